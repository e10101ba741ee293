"""Tiny comparisons for tests: rows, commands, and workers that run inside the test's own process.

A comparison with real processes imports torch a dozen times; `workers_inside` calls the same worker functions
here instead, so that a comparison costs a second or two (`quick` in conftest.py). What only a process can show
(memory, signals, a fresh start) is tested on the one real run of the session, `finished`, by slow tests.
"""

import io
import json
import math
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from riyaz import drift, hardware, methods, rehearsal
from riyaz.adapters import Adapter
from riyaz.cli import main as cli
from riyaz.comparison import arms, processes, worker
from riyaz.engine.native import load as native_load
from riyaz.engine.native.runner import NativeRunner
from riyaz.events import Event, Failed, Listen
from riyaz.sources import Source

# without documents
METHODS = ("nearest", "linear", "zero_shot", "few_shot", "instruct", "prompt_tuning", "lora", "full")
ARM_KEYS = {
    "method", "status", "metric", "score", "ci_low", "ci_high", "slices", "n_test", "train_seconds", "search_seconds",
    "eval_seconds", "peak_rss_mb", "trainable_params", "artifact_mb", "ms_per_answer", "prompt_tokens",
    "forgetting_nats", "kl_task", "chosen", "checks", "reason",
}  # fmt: skip
REHEARSED = 12  # texts that a tiny base writes, in place of 96: half of the time of a tiny comparison
TOPICS = 50_000  # characters of Python's help topics that are read: several times the tokens that are measured
STEPS = 16  # of a full recipe here: the least with a search of two rates
CLOSED = {
    "billing": ("my card payment was declined", "the payment is pending", "please change my card"),
    "delivery": ("when does the order arrive", "where is my order", "the order did not arrive"),
    "refund": ("where is my refund", "I want the money back", "please return the payment"),
}
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
PAGES = {
    "cards.md": (
        ("A card payment is pending for two days.", "how long is a card payment pending", "two days"),
        ("The card desk is on the third floor.", "on which floor is the card desk", "third floor"),
        ("A lost card costs nine euros.", "what does a lost card cost", "nine euros"),
        ("Miriam changes the card limit.", "who changes the card limit", "Miriam"),
    ),
    "orders.html": (
        ("An order arrives on a Tuesday.", "when does an order arrive", "Tuesday"),
        ("The order number begins with 77.", "with what does the order number begin", "77"),
        ("Ahmed sends every order.", "who sends an order", "Ahmed"),
        ("Orders over fifty euros are free of delivery.", "from what price are orders free of delivery", "fifty euros"),
    ),
    "returns.txt": (
        ("A refund takes one week.", "how long does a refund take", "one week"),
        ("Return labels are green.", "what colour are return labels", "green"),
        ("The return window closes after forty days.", "after what does the return window close", "forty days"),
        ("Refunds are paid to the account.", "to what are refunds paid", "account"),
    ),
}  # the facts of three documents: what stands there, a question, its answer
REFUSAL = "not in the pages"


@dataclass(frozen=True)
class Told:
    """What one command did: exit status, both streams, and the JSON document on stdout if there is one."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])

    @property
    def line(self) -> str:
        """The last line on stderr, which says what is wrong; before it there is no other."""
        *before, last = self.err.splitlines()
        assert last.startswith("error: ") and last.isprintable(), self.err
        assert not any("error" in line or "Traceback" in line for line in before), self.err
        return last


def closed_rows(count: int, ending: str) -> list[dict[str, str]]:
    """Rows of a closed set of three labels in two slices, every prompt different."""
    pairs = [(text, label) for label, texts in CLOSED.items() for text in texts]
    return [
        {"text": f"{pairs[i % 9][0]} {ending} {i}", "label": pairs[i % 9][1], "slice": "odd" if i % 2 else "even"}
        for i in range(count)
    ]


def short_rows(count: int) -> list[dict[str, str]]:
    """Questions with an answer of one or two words; too many different ones for a closed set."""
    names = [f"{tens} {ones}" for tens in NUMBERS for ones in NUMBERS]
    return [{"question": f"what comes after {i} in the order?", "answer": names[i]} for i in range(count)]


def free_rows(count: int) -> list[dict[str, str]]:
    """Instructions with an answer of a sentence."""
    return [
        {"instruction": f"please help with order {i}", "response": f"where is order {i} and when does it arrive"}
        for i in range(count)
    ]


def write_pages(folder: Path) -> Path:
    """The documents that hold the facts of PAGES, one of each kind of text."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, facts in PAGES.items():
        lines, title = [fact[0] for fact in facts], name.partition(".")[0].title()
        text = f"# {title}\n\n" + "\n\n".join(lines) + "\n"
        if name.endswith("html"):
            text = (
                f"<html><title>{title}</title><body>" + "".join(f"<p>{line}</p>" for line in lines) + "</body></html>"
            )
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def page_rows(*endings: str) -> list[dict[str, Any]]:
    """Questions about PAGES, each fact once for every ending, and one for each that no page answers."""
    rows: list[dict[str, Any]] = []
    for ending in endings:
        for name, facts in PAGES.items():
            rows += [{"question": f"{ask} {ending}?", "answer": said, "doc_id": name} for _, ask, said in facts]
        rows.append({"question": f"may I bring a dog {ending}?", "answer": REFUSAL, "slice": "unanswerable"})
    return rows


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def strict(text: str) -> Any:
    """JSON without the NaN and Infinity that only Python reads."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def command(*arguments: object) -> Told:
    """One `riyaz` command inside this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = cli.main([str(argument) for argument in arguments])
    return Told(status, out.getvalue(), err.getvalue())


def shorten_recipes(patch: pytest.MonkeyPatch, steps: int = STEPS) -> None:
    """Every method trains so few steps, by default as few as still have a search."""
    for name, method in methods.METHODS.items():
        if method.recipe is not None:
            short = replace(method.recipe, epochs=1, least_steps=steps)
            patch.setitem(methods.METHODS, name, replace(method, recipe=short, label_recipe=None))


@contextmanager
def small_machine(home: Path) -> Iterator[pytest.MonkeyPatch]:
    """One core, a store of the tests' own and short recipes, which are not trained longer in the time that is left."""

    patch = pytest.MonkeyPatch()
    patch.setenv("RIYAZ_HOME", str(home))
    patch.delenv("COLUMNS", raising=False)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # workers set them in their own process, here in this one
        patch.setenv(name, "1")
    shorten_recipes(patch)
    patch.setattr(arms, "LONGER", math.inf)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    try:
        if allowed:  # of several test processes each takes another core
            place = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
            os.sched_setaffinity(0, {sorted(allowed)[place % len(allowed)]})
        yield patch
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
        patch.undo()


def serve_in_float32(patch: pytest.MonkeyPatch) -> None:
    """Weights in float32 where a test says nothing of a precision, in training and in both engines."""
    packed = native_load.load_runner

    def load_runner(
        source: Source, precision: str = "auto", merged: Adapter | None = None, kv: str = "auto"
    ) -> NativeRunner:
        return packed(source, "fp32" if precision == "auto" else precision, merged, kv)

    patch.setattr(native_load, "load_runner", load_runner)
    patch.setattr(hardware, "bf16_is_fast", lambda: False)


def workers_inside(patch: pytest.MonkeyPatch, whole: bool = False, as_processes: bool = False) -> list[tuple[str, ...]]:
    """Let arms run in this process; the list that is returned fills with what was run.

    If not `as_processes`, whose bits are those of workers in processes of their own, fewer texts are rehearsed.

    If not `whole`, pictures are drawn but not written, and without a file of general text forgetting is measured on
    less of Python's help topics, as many tokens of it: half of a tiny comparison's time.
    """
    done: list[tuple[str, ...]] = []
    if not as_processes:
        patch.setattr(rehearsal, "TEXTS", REHEARSED)
    if not whole:
        from riyaz.report.media import svg  # it imports matplotlib

        topics, written = drift.general_text, svg.Drawing.savefig
        patch.setattr(drift, "general_text", lambda path: topics(path)[: None if path else TOPICS])
        patch.setattr(svg.Drawing, "savefig", lambda figure, file, **known: (
            file.write("<svg/>") if known.get("format") == "svg" else written(figure, file, **known)))  # fmt: skip

    def run_inside(
        arguments: list[str], log: Path, listen: Listen, threads: int | None = None, limit: float | None = None
    ) -> str:
        work, _, *which = arguments
        done.append((work, *(which if work != "measure" else ())))
        log.parent.mkdir(parents=True, exist_ok=True)
        reasons = [""]

        def send(event: Event) -> None:
            if isinstance(event, Failed):
                reasons.append(event.reason)
            else:
                listen(event)

        patch.setattr(worker, "send", send)
        handler = signal.getsignal(signal.SIGINT)
        try:
            code = worker.main(arguments)
        except Exception:
            log.write_text(traceback.format_exc())
            return processes._why(1, log)
        finally:
            signal.signal(signal.SIGINT, handler)
        return "" if code == 0 else reasons[-1]

    patch.setattr(processes, "run_worker", run_inside)
    patch.setattr(worker, "_end_with", lambda parent: None)  # this process stays
    return done
