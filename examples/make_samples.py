r"""Makes src/riyaz/samples again: what the page shows to someone who has nothing yet, by riyaz's own commands.

    riyaz pull smollm2-135m
    riyaz pull qwen2.5-coder-0.5b
    python examples/make_samples.py              # all of it, about a quarter of an hour on two cores
    python examples/make_samples.py models       # or only: models, compare, limits, answers

models: sample_text.py writes animals.txt; a tokenizer and a model of 0.25 million weights learn it; ternarize and
quantize make a ternary copy and one of 8 bits:

    riyaz tokenizer animals.txt --vocab 512 --out words
    riyaz pretrain animals.txt --tokenizer words --layers 4 --heads 4 --width 64 --context 128 --batch 16 \
        --steps 300 --validate-every 30 --seed 1 --prompt "There was once a quick brown" --out animals
    riyaz ternarize animals animals.txt --steps 300 --learning-rate 0.002 --out animals-ternary
    riyaz quantize animals --precision int8 --out sample-animals
    riyaz quantize animals-ternary --precision ternary --out sample-animals-ternary

compare, limits, answers (of each model to each of three prompts):

    riyaz compare examples/quickstart --model smollm2-135m --methods nearest,linear,zero_shot,lora \
        --limit-train 250 --limit-test 100 --steps 60 --budget 8m --seed 1 --out build/samples/quickstart
    riyaz limits smollm2-135m --suite bias,truth,context,cost --budget 3m --out smollm2-limits
    riyaz generate MODEL PROMPT --max-tokens 90 --temperature 0

Of a run only the files are kept that the page reads: no weights, no reports. Paths of this machine become names.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import sample_text

ROOT = Path(__file__).resolve().parents[1]
BUILT = Path("build/samples")  # below the repository
MADE, SAMPLES = ROOT / BUILT, ROOT / "src/riyaz/samples"
KEPT = {
    "quickstart": ("settings.json", "compare.json", "plan.json", "arms/*/kept/predictions.jsonl"),
    "animals": ("run.json", "plan.json", "metrics.jsonl", "samples.jsonl", "learned.jsonl"),
    "animals-ternary": ("ternarize.json", "plan.json", "metrics.jsonl"),
    "smollm2-limits": ("limits.json",),
}  # of each run; missing ones are left out
SIDES = ("smollm2-135m", "qwen2.5-coder-0.5b")
PROMPTS = (
    "Why is the sky blue? Answer in two sentences.",
    "Write a Python function that adds up the even numbers of a list.",
    "Say in plain words what a battery does.",
)


def riyaz(words: str, *more: str, folder: Path = BUILT) -> str:
    """What a command prints; it runs in a folder below the repository, so that no path of this machine is needed."""
    command = [str(Path(sys.executable).absolute().with_name("riyaz")), *words.split(), *more]
    print("$ riyaz", words, *more, flush=True)
    return subprocess.run(command, cwd=ROOT / folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def models() -> None:
    """The text, the record of its model, of the ternary copy, and both in few bits."""
    (MADE / "animals.txt").write_text(sample_text.text(), encoding="utf-8")
    shutil.copyfile(MADE / "animals.txt", SAMPLES / "animals.txt")
    riyaz("tokenizer animals.txt --vocab 512 --out words")
    shape = "--layers 4 --heads 4 --width 64 --context 128 --batch 16 --steps 300 --validate-every 30 --seed 1"
    riyaz(
        f"pretrain animals.txt --tokenizer words {shape} --out animals --prompt",
        "There was once a quick brown",
    )
    riyaz("ternarize animals animals.txt --steps 300 --learning-rate 0.002 --out animals-ternary")
    riyaz("quantize animals --precision int8 --out sample-animals")
    riyaz("quantize animals-ternary --precision ternary --out sample-animals-ternary")
    for name in ("sample-animals", "sample-animals-ternary"):
        target = SAMPLES / "models" / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(MADE / name, target, ignore=shutil.ignore_patterns(".*"))
    for name in ("animals", "animals-ternary"):
        keep(name)


def compare() -> None:
    """Four methods on the rows of quickstart, with the real SmolLM2-135M."""
    less = "--limit-train 250 --limit-test 100 --steps 60 --budget 8m --seed 1"
    methods = "--methods nearest,linear,zero_shot,lora"
    out = f"--out {BUILT / 'quickstart'}"
    riyaz(f"compare examples/quickstart --model smollm2-135m {methods} {less} {out}", folder=Path("."))
    keep("quickstart")


def limits() -> None:
    """What SmolLM2-135M cannot do, in the small."""
    riyaz("limits smollm2-135m --suite bias,truth,context,cost --budget 3m --out smollm2-limits")
    keep("smollm2-limits")


def answers() -> None:
    """The answers of two models to the same prompts, and the commands that gave them."""
    rows = []
    for prompt in PROMPTS:
        said = []
        for model in SIDES:
            words = f"generate {model} --max-tokens 90 --temperature 0 --json"
            text = json.loads(riyaz(words, prompt).splitlines()[-1])["answer"]
            said.append({"model": model, "text": text})
        rows.append({"prompt": prompt, "answers": said})
    text = json.dumps(
        {"command": "riyaz generate MODEL PROMPT --max-tokens 90 --temperature 0", "prompts": rows}, indent=1
    )
    (SAMPLES / "answers.json").write_text(text + "\n", encoding="utf-8")


def keep(name: str) -> None:
    """Copy the files of a run that the page reads, without paths of this machine."""
    shutil.rmtree(SAMPLES / name, ignore_errors=True)
    for pattern in KEPT[name]:
        for path in sorted((MADE / name).glob(pattern)):
            target = SAMPLES / name / path.relative_to(MADE / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(plain(path.read_text(encoding="utf-8")), encoding="utf-8")


def plain(text: str) -> str:
    """A text in which paths below the repository begin there, and a pulled model is its name."""
    text = text.replace(f"{MADE}/", "").replace(f"{ROOT}/", "")
    return re.sub(r'/[^" ]*/models/([\w.-]+)/[^" ]+', r"\1", text)


def main() -> None:
    """Make the parts that are named, else all."""
    parts = {"models": models, "compare": compare, "limits": limits, "answers": answers}
    chosen = sys.argv[1:] or list(parts)
    if unknown := set(chosen) - set(parts):
        sys.exit(f"error: there is no part {', '.join(sorted(unknown))}; the parts are {', '.join(parts)}")
    MADE.mkdir(parents=True, exist_ok=True)
    SAMPLES.mkdir(exist_ok=True)
    for part in chosen:
        parts[part]()


if __name__ == "__main__":
    main()
