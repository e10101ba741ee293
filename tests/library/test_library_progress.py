"""Progress in a notebook's cell, and calls that are interrupted."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tiny_comparison
import tiny_llama
import tiny_store

import riyaz
from riyaz.comparison import processes
from riyaz.config import DEFAULT_MODEL
from riyaz.events import EVENTS, Ended, Estimate, Event, Note, Phase, Planned, Progress, from_json
from riyaz.library import progress

TRAIN, TEST = tiny_comparison.closed_rows(45, "please"), tiny_comparison.closed_rows(18, "today")
ASKED: dict[str, Any] = {"methods": ["nearest", "zero_shot"], "budget": "3h", "seed": 3, "quiet": True}
MARKUP = "<i>&"


@pytest.fixture(scope="module")
def store(
    in_float32: None, one_core: pytest.MonkeyPatch, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A store in which the default model is the tiny one."""
    one_core.setenv("RIYAZ_HOME", str(tmp_path_factory.mktemp("home")))
    tiny_store.keep(model_folder, DEFAULT_MODEL)


def drawings(*events: Event, error: type[BaseException] | None = None) -> list[tuple[str, str]]:
    """The display after each drawing of these events, as HTML and as text; a tenth of a second lies between two."""
    drawn: list[tuple[str, str]] = []
    tenths = itertools.count()

    def clock() -> float:
        return next(tenths) / 10

    def call() -> None:
        with (
            mock.patch.object(
                progress, "NotebookProgress", partial(progress.NotebookProgress, clock=lambda: next(tenths) / 10)
            ),
            progress.notebook_listener(lambda shown: drawn.append((shown._repr_html_(), repr(shown)))) as listen,
        ):
            for event in events:
                listen(event)
            if error is not None:
                raise error

    if error is None:
        call()
    else:
        with pytest.raises(error):
            call()
    return drawn


STEPS = (
    Estimate(60, 100, 1, (Planned("lora", 30), Planned("nearest", 5))),
    Note(f"{MARKUP} run `riyaz pull minilm`"),
    Phase("train", "", "lora"),
    *(Progress("train", step, 40, "lora", loss=1.5) for step in range(1, 41)),
)


def test_a_cell_has_a_bar_for_the_method_at_work() -> None:
    drawn = drawings(*STEPS)
    while_working = [(page, text) for page, text in drawn if "<progress" in page]
    assert 10 < len(while_working) < len(drawn) < len(STEPS) / 2, "not every step is drawn"
    page, text = while_working[-1]
    assert 'value="40" max="40"' in page and "40/40, loss 1.500" in text and "lora: running, train" in text
    assert (
        "nearest: waiting, 5.0 s planned" in text and "&lt;i&gt;&amp; run `riyaz.pull(" in page and MARKUP not in page
    )


def test_after_the_call_one_line_and_the_notes_are_left() -> None:
    page, text = drawings(*STEPS)[-1]
    assert "<progress" not in page and "<table" not in page
    assert text.splitlines()[:-1] == [f"{MARKUP} run `riyaz.pull('minilm')`"]
    assert text.splitlines()[-1] == f"{(len(STEPS) + 1) / 10} s"


@pytest.mark.parametrize("error", [KeyboardInterrupt, riyaz.RiyazError])
def test_after_an_error_what_was_reached_is_left(error: type[BaseException]) -> None:
    class Wrong(error):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__("wrong")

    page, text = drawings(*STEPS, error=Wrong)[-1]
    assert "<progress" not in page and "lora: running, train, 40/40" in text
    assert text.splitlines()[-1] == f"stopped after {(len(STEPS) + 1) / 10} s"


def ended(folder: Path) -> list[str]:
    """How the calls that worked in a folder ended."""
    events = map(from_json, (folder / EVENTS).read_text(encoding="utf-8").splitlines())
    return [event.status for event in events if isinstance(event, Ended)]


def test_an_interrupted_comparison_goes_on(
    store: None, tmp_path: Path, inside: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, run_worker = tmp_path / "out", processes.run_worker

    def interrupted(arguments: list[str], *others: Any, **named: Any) -> str:
        if "zero_shot" in arguments:
            raise KeyboardInterrupt
        return run_worker(arguments, *others, **named)

    (tmp_path / "general.txt").write_text(tiny_llama.CORPUS)
    asked = {**ASKED, "test": TEST, "out": out, "general": tmp_path / "general.txt"}
    with monkeypatch.context() as patch:
        patch.setattr(processes, "run_worker", interrupted)
        with pytest.raises(riyaz.Stopped) as caught:
            riyaz.compare(TRAIN, **asked)
    assert str(caught.value) == f"stopped; the same call goes on in {out}"
    assert isinstance(caught.value, KeyboardInterrupt) and caught.value._render_traceback_() == [str(caught.value)]
    assert ended(out) == ["stopped"] and not (out / "compare.json").exists()
    before = [work for work in inside if "nearest" in work]
    comparison = riyaz.compare(TRAIN, **asked)
    assert before and [work for work in inside if "nearest" in work] == before, "nearest is not run again"
    assert [arm.status for arm in comparison.arms] == ["ok", "ok"] and ended(out) == ["stopped", "done"]


def test_an_interrupted_pretraining_goes_on(store: None, tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "fresh"
    text.write_text("the quick brown fox jumps over the lazy dog and then the other one\n" * 400)
    shape: dict[str, Any] = {"steps": 6, "tokenizer": "bytes", "context": 64, "layers": 1, "width": 32, "heads": 2}

    def stop_at_three(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "train" and event.done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(riyaz.Stopped, match=r"^stopped at step 3; the same call with resume=True goes on$"):
        riyaz.pretrain(text, out=out, batch=4, listen=stop_at_three, **shape)
    run = riyaz.pretrain(text, out=out, batch=4, resume=True, quiet=True, **shape)
    assert run.result.status == "done" and [step.step for step in run.metrics] == [1, 2, 3, 4, 5, 6]


def test_what_was_interrupted_before_there_was_a_folder_names_none(tmp_path: Path) -> None:
    with pytest.raises(riyaz.Stopped, match=r"^stopped; the same call goes on$"), progress.resumable(tmp_path / "no"):
        raise KeyboardInterrupt
