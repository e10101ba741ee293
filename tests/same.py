"""Runs one fixed set of commands on a source tree, and compares what two trees wrote: a refactoring changes no byte.

    python tests/same.py capture OLD --source ../before/src --python ../before/.venv/bin/python
    python tests/same.py capture NEW --source src --python .venv/bin/python
    python tests/same.py compare OLD NEW

Only the command line is driven, so any tree will do. A capture takes about ten minutes on two cores; the same command
goes on with one that was stopped. What is compared does not depend on the time it took: budgets are longer than any
run, and epochs, steps, learning rates, batch sizes and seeds are given. (A machine so busy that an answer takes 2.5 s
has fewer `latency_rows` in plan.json, and other `batch_flips` and `prompt_tokens`: capture that comparison again.) No
instruction set with AMX computes, so that captures of CPUs with it and without it are alike.

Weights, answers, exports and the files of artifacts are the same if all their bytes are. Documents in JSON are the same
without the keys in IGNORED. Reports, cards, READMEs and what commands print are words: a difference is listed and is no
failure. `compare` ends with 1 if anything else differs.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EVER = "--budget 20h --threads 2 --seed 7"
SMALL = "--epochs 1 --batch-size 8 --limit-train 40 --limit-test 8 --general data/general.txt"
METHODS = "nearest,zero_shot,few_shot,prompt_tuning,lora,full"
RATES = "--learning-rate lora=1e-3,full=5e-5,prompt_tuning=2e-2"
SHORT = "--context 64 --batch 8 --dropout 0.1 --checkpoint-every 30 --validate-every 20 --threads 2 --seed 7"
ROWS = 6  # answered by `run`
BEGINNINGS = ("A bike", "The keys", "Late")  # answered by models of a short context
LOGS = "log"  # folder of what the commands print: the name of what they write, .txt (stdout) and .log (stderr)
# Commands of riyaz, in their order; what a command prints as its last line goes to the file behind `>`.
COMMANDS = f"""
pull smollm2-135m
pull minilm
pretrain TEXT --size 1m --steps 60 --lr 3e-3 --compute float32 {SHORT} --prompt 'The workshop' --out pretrain
pretrain TEXT --family gpt2 --layers 2 --width 64 --steps 10 --tokenizer bytes --compute float32 {SHORT} --out gpt2
pretrain TEXT --ternary --layers 1 --width 768 --steps 12 --lr 2e-3 --compute bfloat16 {SHORT} --out ternary
ternarize pretrain TEXT --steps 20 --learning-rate 1e-3 --group 64 --seed 7 --out ternarized
compare data/quickstart --methods {METHODS} {SMALL} {RATES} {EVER} --out quickstart
compare data/helpdesk --methods zero_shot,rag,rag_lora {SMALL} --learning-rate 1e-3 {EVER} --out helpdesk
export quickstart/lora --format hf --out hf
export quickstart/lora --format peft --out peft
export quickstart/prompt_tuning --format peft --out peft-soft
export quickstart/lora --format mlx --out mlx
export quickstart/lora --format gguf-lora --out gguf-lora
export helpdesk/rag_lora --format gguf-lora --without-base --out gguf-rag
export quickstart/full --format gguf --out gguf
export quickstart/lora --format gguf --dtype q8_0 --out gguf-q8_0
export quickstart/lora --format gguf --dtype q4_k_m --out gguf-q4_k_m
export quickstart/lora --format gguf --dtype q4_0 --out gguf-q4_0
export gpt2 --format gguf --dtype float16 --out gguf-gpt2
export ternary --format gguf --dtype tq2_0 --out gguf-tq2_0
export ternary --format gguf --dtype tq1_0 --out gguf-tq1_0
merge quickstart/lora --dtype bfloat16 --out merged
quantize quickstart/full --precision int8 --out int8
quantize merged --precision int4 --group 64 --symmetric --out int4
quantize ternarized --precision ternary --out packed
run quickstart/lora MESSAGES --precision PRECISION --out run-lora-PRECISION.jsonl
run helpdesk/rag QUESTIONS --precision PRECISION --out run-rag-PRECISION.jsonl
run pretrain BEGINNINGS --precision PRECISION --out run-pretrain-PRECISION.jsonl
predict 'A bicycle has two' --adapter quickstart/lora --precision PRECISION --json > predict-PRECISION.json
predict 'The workshop' --model pretrain --precision PRECISION --json > predict-pretrain-PRECISION.json
predict 'The workshop' --model gpt2 --json > predict-gpt2.json
predict 'The workshop' --model ternary --json > predict-ternary.json
predict 'The workshop' --model packed --json > predict-packed.json
run int8 MESSAGES --out run-int8.jsonl
run int4 MESSAGES --out run-int4.jsonl
run gpt2 BEGINNINGS --out run-gpt2.jsonl
run ternary BEGINNINGS --out run-ternary.jsonl
run packed BEGINNINGS --out run-packed.jsonl
run gguf-q4_k_m MESSAGES --out run-q4_k_m.jsonl
evaluate smollm2-135m --test QUESTIONS --json > evaluate.json
generate smollm2-135m 'Name a bicycle.' --temperature 0.8 --seed 3 --max-tokens 24 --kv int8 --json > drawn.json
card quickstart/lora --out card.md
card helpdesk/rag_lora --out card-helpdesk.md
report quickstart
report pretrain
"""
NAMES = {
    "TEXT": "data/helpdesk/handbook",
    **{rows.upper(): f"data/{rows}.jsonl" for rows in ("messages", "questions", "beginnings")},
}
PRECISIONS = ("fp32", "bf16", "int8", "int4")

# Keys of JSON documents that are not compared: times and what follows from them, the machine (an artifact's size and
# a collection's hash too, as both hold paths), sentences for a reader (which name times), and what the older of two
# trees did not write.
TIMES = (
    "seconds estimate_seconds train_seconds search_seconds eval_seconds end_seconds before took ms_per_answer "
    "merged_ms remeasured cpu_waited tokens_s peak_share peak_flops pace date estimate checkpoint_every"
)
MACHINE = (
    "peak_rss_mb serve_rss_mb memory_mb artifact_mb collection.sqlite hardware version versions command path paths"
)
SENTENCES = "reason why notes note"
NEW_FIELDS = "about curve_method"
IGNORED = {*TIMES.split(), *MACHINE.split(), *SENTENCES.split(), *NEW_FIELDS.split()}
NOT_COMPARED = {"events.jsonl", "measured.json", "seconds.json", "log.txt"}  # progress, speeds, errors
WORDS = (".md", ".html", ".txt", ".svg")
EXACT = {"predictions.jsonl"}  # JSON of which every byte counts


def capture(folder: Path, source: Path, python: Path, isa: str) -> None:
    """Runs every command that has not run yet, in `folder`."""
    _inputs(folder, source.resolve().parent / "examples")
    environment = {
        **os.environ, "PYTHONPATH": str(source.resolve()), "RIYAZ_ISA": isa, "OMP_NUM_THREADS": "2", "COLUMNS": "100",
    }  # fmt: skip
    for name in ("RIYAZ_ENGINE", "RIYAZ_NATIVE", "RIYAZ_FROZEN"):
        environment.pop(name, None)
    for command in commands():
        words = shlex.split(command)
        arguments, document = (words[:-2], words[-1]) if ">" in words else (words, "")
        name = document or (words[words.index("--out") + 1] if "--out" in words else "-".join(words))
        said, log = folder / LOGS / f"{name}.txt", folder / LOGS / f"{name}.log"
        if said.exists():
            continue
        began = time.monotonic()
        with open(log, "w", encoding="utf-8") as errors:
            whole = [python.absolute(), "-m", "riyaz.cli.main", *arguments]
            done = subprocess.run(whole, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        print(f"{time.monotonic() - began:6.1f} s  riyaz {command}", flush=True)
        if done.returncode:
            raise SystemExit(log.read_text(encoding="utf-8")[-2000:])
        if document:
            (folder / document).write_text(done.stdout.splitlines()[-1] + "\n", encoding="utf-8")
        said.write_text(done.stdout, encoding="utf-8")


def commands() -> Iterator[str]:
    """COMMANDS with the names of files and every precision."""
    for line in COMMANDS.strip().splitlines():
        for name, path in NAMES.items():
            line = line.replace(name, path)
        for precision in PRECISIONS if "PRECISION" in line else ("",):
            yield line.replace("PRECISION", precision)


def _inputs(folder: Path, examples: Path) -> None:
    """Copies the examples into `folder`, so that every path is relative to it, and cuts rows and a text from them."""
    data = folder / "data"
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    if data.exists():
        return
    unfinished = folder / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in ("quickstart", "helpdesk"):
        shutil.copytree(examples / name, unfinished / name, ignore=shutil.ignore_patterns("README.md"))
    for name, rows in (("quickstart", "messages.jsonl"), ("helpdesk", "questions.jsonl")):
        lines = (unfinished / name / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (unfinished / rows).write_text("".join(lines[:ROWS]), encoding="utf-8")
    beginnings = "".join(json.dumps({"text": text}) + "\n" for text in BEGINNINGS)
    (unfinished / "beginnings.jsonl").write_text(beginnings, encoding="utf-8")
    texts = [path.read_text(encoding="utf-8") for path in sorted((unfinished / "helpdesk/handbook").iterdir())]
    (unfinished / "general.txt").write_text("\n\n".join(texts)[:6000], encoding="utf-8")
    unfinished.rename(data)


def compare(old: Path, new: Path) -> tuple[list[str], list[str], dict[str, str]]:
    """(differences, different words, {file of the same bytes: their hash}) of two captures, a line for each
    difference."""
    wrong, words, same = [], [], {}
    files = {folder: set(_files(folder)) for folder in (old, new)}
    for name in sorted(files[old] ^ files[new]):
        line = f"{name}: only in {old if name in files[old] else new}"
        (words if _is_words(name) else wrong).append(line)
    for name in sorted(files[old] & files[new]):
        one, other = (old / name).read_bytes(), (new / name).read_bytes()
        if one == other:
            same[name] = hashlib.sha256(one).hexdigest()
        elif _is_words(name):
            words.append(f"{name}: {_other_words(one.decode(), other.decode())}")
        elif Path(name).suffix in (".json", ".jsonl", ".sqlite") and Path(name).name not in EXACT:
            before, after = _document(old / name, old), _document(new / name, new)
            wrong += [f"{name}: {line}" for line in differences(before, after)]
        else:
            before, after = (hashlib.sha256(content).hexdigest()[:16] for content in (one, other))
            wrong.append(f"{name}: {before} became {after}")
    return wrong, words, same


def _files(folder: Path) -> Iterator[str]:
    """The files of a capture that are compared, relative to its folder."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.name not in NOT_COMPARED and path.suffix != ".log":
            yield path.relative_to(folder).as_posix()


def _is_words(name: str) -> bool:
    """Whether a file is read by people only."""
    return Path(name).suffix in WORDS and Path(name).name != "training_rows.txt"


def _other_words(old: str, new: str) -> str:
    """How two texts differ, in words: most reports differ in the times that they name."""
    before, after = ([re.sub(r"[\d.,]+", "0", line) for line in text.splitlines()] for text in (old, new))
    return f"{len(set(before) ^ set(after))} lines with other words" if before != after else "other numbers"


def _document(path: Path, folder: Path) -> Any:
    """The JSON in a file, the list of its lines, or the rows of a collection's tables; `folder`, the capture's, which
    paths begin with, has the same name in each."""
    if path.suffix == ".sqlite":
        with contextlib.closing(sqlite3.connect(path)) as collection:
            text = json.dumps(list(collection.iterdump()))
    else:
        text = path.read_text(encoding="utf-8")
    text = text.replace(str(folder.resolve()), "FOLDER")
    try:
        return json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Where two JSON values differ, a line for each place, without the keys in IGNORED."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted((old.keys() | new.keys()) - IGNORED)
        return [
            line
            for key in keys
            for line in differences(old.get(key, "(missing)"), new.get(key, "(missing)"), f"{place}.{key}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for index, (one, other) in enumerate(zip(old, new))
            for line in differences(one, other, f"{place}[{index}]")
        ]
    return [] if old == new else [f"{place} {str(old)[:60]} became {str(new)[:60]}"]


def main() -> int:
    """The command line; returns 1 if two captures differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    capturing = verbs.add_parser("capture", help="run the commands on a tree")
    capturing.add_argument("folder", type=Path)
    capturing.add_argument("--source", type=Path, required=True, help="the tree's src")
    capturing.add_argument("--python", type=Path, default=Path(sys.executable), help="a Python with its requirements")
    capturing.add_argument("--isa", default="avx512", help="RIYAZ_ISA (default: avx512)")
    comparing = verbs.add_parser("compare", help="compare two captures")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "capture":
        capture(arguments.folder, arguments.source, arguments.python, arguments.isa)
        return 0
    wrong, words, same = compare(arguments.old, arguments.new)
    print(*[f"words  {line}" for line in words], *[f"DIFFERENT  {line}" for line in wrong], sep="\n")
    if not wrong:
        print(*[f"{digest}  {name}" for name, digest in same.items()], sep="\n")
    print(f"{len(wrong)} differences; {len(same)} files of the same bytes; {len(words)} files of other words")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
