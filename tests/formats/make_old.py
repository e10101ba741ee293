"""Makes the folders of `tests/formats/v0_1/` again, with the code of riyaz 0.1.0 (the commit 164c4a8).

    git worktree add ../riyaz-0.1 164c4a8
    RIYAZ_NATIVE=0 PYTHONPATH=../riyaz-0.1/src python tests/formats/make_old.py tests/formats/v0_1

Everything is made in the folder MADE_IN, whose path the files hold, and then copied. `expected.json` holds what the old
code answers, scores and finds with these folders.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.append(str(Path(__file__).parents[1] / "helpers"))

import tiny_llama

MADE_IN = Path("/tmp/riyaz-0.1-formats")
TEXTS = {
    "billing": ("my card payment was declined", "the payment is pending", "please change my card"),
    "delivery": ("when does the order arrive", "where is my order", "the order did not arrive"),
    "refund": ("where is my refund", "I want the money back", "please return the payment"),
}
PAGES = {
    "opening.md": "# Opening\n\nThe library opens at nine.\n\nThe library closes at six.\n",
    "loans.txt": "A book may be kept for three weeks.\n\nA film may be kept for one week.\n",
}
ASKED = (
    ("when does the library open", "nine"), ("when does the library close", "six"),
    ("how long may a book be kept", "three weeks"), ("how long may a film be kept", "one week"),
)  # fmt: skip
WORDS = ("the baker", "a river", "my aunt", "sees", "carries", "paints", "the bread", "a red boat", "an old song")
ARTIFACTS = ("nearest", "few_shot", "prompt_tuning", "lora", "full")
BY_HAND = {"prompt_tuning": ("--steps", "4", "--learning-rate", "0.02"),
           "lora": ("--steps", "4", "--learning-rate", "0.001", "--rank", "2"),
           "full": ("--steps", "4", "--learning-rate", "0.001")}  # fmt: skip
COMPARE = (
    "train.jsonl", "--test", "test.jsonl", "--model", "tiny", "--methods", "nearest,zero_shot,few_shot", "--precision",
    "fp32", "--threads", "1", "--seed", "0", "--quiet",
)  # fmt: skip
TERNARIZE = ("small", "text.txt", "--steps", "6", "--learning-rate", "0.001", "--group", "16", "--quiet")
PRETRAIN = (
    "--tokenizer", "bytes", "--layers", "1", "--width", "8", "--heads", "1", "--context", "32", "--batch", "4",
    "--steps", "6", "--validate-every", "2", "--checkpoint-every", "2", "--compute", "float32", "--threads", "1",
)  # fmt: skip
MODELS = ("ternary-packed", "full-int4/model.gguf")
TEXT = "the baker sees"
LEFT_OUT = (
    "home",
    "whole",
    "whole-comparison",
    "ternary",
    "best.safetensors",
    "report*",
    "*.html",
    "events.jsonl",
    "learned.json",
    "*.log",
    ".lock",
    "README.md",
    "inductor",
    "measuring",
    "tokens.*",
)  # what is made again, or only read by people


def riyaz(*arguments: object) -> str:
    """What one `riyaz` command of the old code prints. Raises RuntimeError where it fails."""
    from riyaz.cli import main as cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([str(argument) for argument in arguments])
    if status:
        raise RuntimeError(f"riyaz {' '.join(map(str, arguments))}\n{err.getvalue()}")
    return out.getvalue()


def document_of(*arguments: object) -> Any:
    """The JSON document that a command prints last."""
    return json.loads(riyaz(*arguments, "--json").splitlines()[-1])


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_inputs(work: Path) -> None:
    """The tiny model, the rows, the documents and the text."""
    tiny_llama.write_hf_folder(
        work / "tiny", layers=1, hidden=32, intermediate=32, heads=2, kv_heads=1, vocab=262, context=512, dtype="BF16"
    )
    tiny_llama.write_hf_folder(  # a checkpoint of it takes half as many bytes
        work / "small", layers=1, hidden=16, intermediate=16, heads=1, kv_heads=1, vocab=262, context=512, dtype="BF16"
    )
    pairs = [(text, label) for label, texts in TEXTS.items() for text in texts]
    for name, count, ending in (("train", 36, "today"), ("test", 9, "now")):
        rows = [{"text": f"{pairs[i % 9][0]} {ending} {i}", "label": pairs[i % 9][1]} for i in range(count)]
        write_lines(work / f"{name}.jsonl", rows)
        asked = [{"question": f"{q} {ending}?", "answer": a} for q, a in ASKED] if name == "test" else [
            {"question": f"{q} {ending} {i}?", "answer": a} for i in range(6) for q, a in ASKED
        ]  # fmt: skip
        write_lines(work / f"questions-{name}.jsonl", asked)
    (work / "documents").mkdir()
    for name, text in PAGES.items():
        (work / "documents" / name).write_text(text, encoding="utf-8")
    draw = random.Random(0)
    sentences = [" ".join(draw.choice(WORDS) for _ in range(6)) + "." for _ in range(110)]
    (work / "text.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")


def make_artifacts() -> None:
    """An artifact of each kind of weights, and one that retrieves."""
    common = ("--model", "tiny", "--seed", "0", "--threads", "1", "--quiet")
    for method in ARTIFACTS:
        by_hand = BY_HAND.get(method, ())
        riyaz("adapt", method, "train.jsonl", "--test", "test.jsonl", "--out", method, *common, *by_hand)
    riyaz("adapt", "rag", "questions-train.jsonl", "--test", "questions-test.jsonl", "--documents", "documents",
          "--out", "rag", *common)  # fmt: skip


def stop_after(step: int, *arguments: object) -> None:
    """A command that trains, ended as by Ctrl-C when it has written the checkpoint of this step."""
    from riyaz.checkpoint import Checkpoints

    save = Checkpoints.save

    def stopping(self: Any, weights: Any, moments: Any, state: Any) -> None:
        save(self, weights, moments, state)
        if state.step == step:
            raise KeyboardInterrupt

    Checkpoints.save = stopping
    try:
        riyaz(*arguments)
    except RuntimeError:
        pass  # it was stopped
    else:
        raise AssertionError(f"{arguments[0]} wrote no checkpoint of step {step}")
    finally:
        Checkpoints.save = save


def make_stopped_comparison() -> dict[str, float]:
    """A comparison that was ended, as by Ctrl-C, after few_shot was fitted and before it was evaluated; returns the
    scores of one that nobody stopped, by method."""
    from riyaz.comparison.arms import Arms

    riyaz("compare", *COMPARE, "--out", "whole-comparison")
    process = Arms._process

    def stopping(self: Any, work: str, method: str, part: str, run: Path) -> None:
        if (work, method) == ("evaluate", "few_shot"):
            raise KeyboardInterrupt
        process(self, work, method, part, run)

    Arms._process = stopping
    try:
        riyaz("compare", *COMPARE, "--out", "stopped-comparison")
    except RuntimeError:
        pass  # it was stopped
    else:
        raise AssertionError("few_shot was not evaluated by a process of its own")
    finally:
        Arms._process = process
    return {
        arm["method"]: arm["score"] for arm in json.loads(Path("whole-comparison/compare.json").read_text())["arms"]
    }


def make_ternary() -> float:
    """A ternary model in its packed form, and a run that was stopped; returns the loss of
    the whole run in nats per token."""
    from riyaz import hardware

    hardware.bf16_is_fast = lambda: False  # the same on every CPU
    riyaz("ternarize", *TERNARIZE, "--out", "ternary")
    riyaz("quantize", "ternary", "--precision", "ternary", "--out", "ternary-packed", "--quiet")
    stop_after(4, "ternarize", *TERNARIZE, "--out", "ternarizing")
    loss: float = json.loads(Path("ternary/ternarize.json").read_text())["loss"]
    return loss


def predictions(target: str, rows: str) -> list[str]:
    """The answers of a target to the rows of a file."""
    riyaz("run", target, rows, "--out", "answers.jsonl", "--quiet", "--precision", "fp32", "--force")
    answers = [json.loads(line)["prediction"] for line in Path("answers.jsonl").read_text().splitlines()]
    for path in Path().glob("answers.jsonl*"):
        path.unlink()
    return answers


def make_all() -> dict[str, Any]:
    """Make every folder, and what the old code answers with each."""
    expected: dict[str, Any] = {"version": riyaz("--version").strip(), "answers": {}, "scores": {}}
    make_artifacts()
    riyaz("quantize", "full", "--precision", "int4", "--out", "full-int4", "--quiet")
    for name in (*ARTIFACTS, "rag", "full-int4"):
        rows = "questions-test.jsonl" if name == "rag" else "test.jsonl"
        expected["answers"][name] = predictions(name, rows)
        expected["scores"][name] = document_of("evaluate", name, "--test", rows, "--precision", "fp32")["score"]
    riyaz("compare", "train.jsonl", "--test", "test.jsonl", "--model", "tiny", "--methods", "nearest,zero_shot",
          "--precision", "fp32", "--threads", "1", "--out", "comparison", "--quiet")  # fmt: skip
    expected["found"] = {q: found(q) for q, _ in ASKED}
    riyaz("limits", "nearest", "--suite", "fragile", "--rows", "test.jsonl", "--out", "limits", "--quiet")
    riyaz("pretrain", "text.txt", *PRETRAIN, "--out", "whole")
    expected["loss"] = json.loads(Path("whole/run.json").read_text())["result"]
    expected["comparison"] = make_stopped_comparison()
    expected["ternary_loss"] = make_ternary()
    expected["likeliest"] = {name: likeliest(name) for name in MODELS}
    expected["sha256"] = hashlib.sha256(Path("whole/model.safetensors").read_bytes()).hexdigest()
    stop_after(4, "pretrain", "text.txt", *PRETRAIN, "--out", "pretraining")
    return expected


def likeliest(model: str) -> list[list[Any]]:
    """The five likeliest next tokens of a model after a text, with their probabilities."""
    rows = document_of("predict", TEXT, "--model", model, "--top", "5", "--precision", "fp32")["before"]
    return [[row["token"], row["probability"]] for row in rows]


def found(question: str) -> list[list[Any]]:
    """The passages of the old collection that answer a question: document, first and last character, score."""
    passages = document_of("rag", "ask", "rag/collection.sqlite", question)["passages"]
    return [[each[key] for key in ("doc_id", "start", "end", "score")] for each in passages]


def leave_out(folder: str, names: list[str]) -> set[str]:
    """What is not copied: also the base's probabilities beside a comparison that is finished. The best weights of the
    stopped runs are those of the last step."""
    finished = {"base_kl.safetensors"} if folder == str(MADE_IN / "comparison") else set()
    return shutil.ignore_patterns(*LEFT_OUT)(folder, names) | finished


def main(out: Path) -> None:
    """Make every folder and the answers, and copy them to `out`."""
    shutil.rmtree(MADE_IN, ignore_errors=True)
    MADE_IN.mkdir(parents=True)
    write_inputs(MADE_IN)
    os.chdir(MADE_IN)
    os.environ["RIYAZ_HOME"] = str(MADE_IN / "home")
    riyaz("pull", "./tiny")
    expected = make_all()
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(MADE_IN, out, ignore=leave_out)
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
