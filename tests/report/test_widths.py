"""Output at 60, 80 and 120 columns: every figure and every name is there, and only what cannot be cut is wider."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_comparison import arm, comparison, typed
from rich.console import Console

from riyaz.cli import data, doctor, models, rag
from riyaz.cli.output import Screen
from riyaz.events import Estimate, Phase, Planned, Progress
from riyaz.methods.fitting.base import ArmPlan
from riyaz.report import words
from riyaz.report.comparison import terminal
from riyaz.report.media.stacked import Cells, table
from riyaz.results import Comparison
from riyaz.sources import store

WIDTHS = pytest.mark.parametrize("width", [40, 60, 80, 120])
PATH = "/a/folder/with a long name/" + "models/" * 12 + "smollm2-135m/model.gguf"


def console(width: int, *, live: bool = False, height: int = 25) -> Console:
    out = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=live, color_system=None, highlight=False
    )
    return out


def printed(out: Console) -> list[str]:
    """The lines as the terminal got them, without its control sequences."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.file.getvalue()).splitlines()  # type: ignore[attr-defined]


def everything(out: Console) -> str:
    return " ".join(" ".join(printed(out)).split())


@pytest.fixture
def on_screen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Console]:
    """Puts a console of a width in the place of stdout and stderr of a command."""

    def put(width: int, *, live: bool = False) -> Console:
        out = console(width, live=live)
        monkeypatch.setattr("riyaz.cli.output.console", lambda **known: out)
        return out

    return put


def full_comparison() -> Comparison:
    document = comparison()
    document["arms"][3] |= {"forgetting_nats": 0.1034, "forgetting_se": 0.0123}
    document["arms"].append(arm("prompt_tuning", status="skipped", metric=None, ms_per_answer=None, reason="no time"))
    return typed(document)


@WIDTHS
def test_the_comparison_keeps_every_figure(width: int) -> None:
    document, out = full_comparison(), console(width)
    terminal.print_comparison(document, out)
    lines, text = printed(out), everything(out)
    assert max(map(len, lines)) <= width
    tables = {line.split()[0]: "" for line in lines if line}
    for line in lines:
        if line:
            tables[line.split()[0]] += f"  {line}"
    for column in words.columns(document.arms, document.pick):
        assert column.title in tables["method"], column.title
        for one in document.arms:
            assert column.fill(one) in tables[one.method], (one.method, column.title)
    assert "trained 60 of 120 steps" in text and "out of memory at step 3" in text


@WIDTHS
def test_the_plan_keeps_every_figure(width: int) -> None:
    seconds = {"start": 6, "fit": 4, "search": 99, "train": 189, "evaluate": 196}
    rates = (2e-4, 5e-4, 1e-3, 2e-3)
    arms = [
        ArmPlan("prompt_tuning", seconds, steps=1320, recipe_steps=15000, learning_rates=rates),
        ArmPlan("full", recipe_steps=120, skipped="no time for 8 steps"),
    ]
    out = console(width)
    terminal.print_plan(arms, {"seconds": 500, "peak_rss_mb": 1900, "disk_mb": 320}, out)
    text = everything(out)
    for figure in ("10 s", "1m 39s", "3m 09s", "3m 16s", "1320/15000", "0.0002 0.0005 0.001 0.002", "0/120",
                   "no time for 8 steps", "8m 20s", "1,900 MB", "320 MB", "learning rates", "evaluate"):  # fmt: skip
        assert figure in text, figure


@WIDTHS
@pytest.mark.parametrize("live", [False, True])
def test_models_doctor_and_the_data_report_keep_every_name(
    width: int, live: bool, on_screen: Callable[..., Console], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = store.ModelEntry("smollm2-135m", Path(PATH), "gguf", "catalogue", "Apache-2.0", "0" * 64, 98_000_000)
    monkeypatch.setattr(store, "models", lambda: [entry])
    out = on_screen(width, live=live)
    models.models()
    assert PATH in printed(out)[-2] or PATH in "".join(printed(out)), "a path can be copied"
    text = everything(out)
    assert all(part in text for part in ("smollm2-135m", "gguf", "98", "Apache-2.0", "riyaz pull gemma3-270m"))
    out = on_screen(width, live=live)
    doctor.doctor()
    assert all(f"{name} " in everything(out) for name in doctor.PACKAGES)
    screen = Screen()
    labels = {f"label number {number}": {"train": number, "test": 3} for number in range(30)}
    counted = {"rows": {"train": 1234, "valid": 56, "test": 78}, "duplicates": 9, "conflicts": 8, "notes": ["n" * 200],
               "leakage": {"test_rows": 7, "share": 0.5}, "answer_words": {"median": 41}, "labels": labels}  # fmt: skip
    out = on_screen(width, live=live)
    data._show_split(Screen(), counted)
    text = everything(out)
    for figure in ("1,234 to train", "56 to validate", "78 to test", "median 41", "and 18 more labels", "50.0%",
                   "label number 11: train 11, test 3"):  # fmt: skip
        assert figure in text, figure
    assert text.replace(" ", "").count("n" * 200) == 1 and screen.data is not None
    if live:
        assert max(map(len, printed(out))) <= width


@WIDTHS
def test_live_rows_say_all_that_plain_lines_say(width: int) -> None:
    board = terminal.Board(began=0.0)
    planned = tuple(
        Planned(method, 100.0 + place) for place, method in enumerate(("few_shot", "lora", "prompt_tuning"))
    )
    board.apply(Estimate(500, 1900, 320, planned), 0.0)
    extra = "1.234 bits/byte, 12,345 tokens/s, 45 % of peak"
    board.apply(Progress("train", 8000, 12000, "lora", "steps", 1.23456, 754.0, extra), 10.0)
    out = console(width, live=True)
    out.print(terminal._rows(board, 20.0, width, 40))
    assert max(map(len, printed(out))) <= width
    text = everything(out)
    said = terminal.says(board.arms["lora"])
    words_shown = re.split(r"[ ╸]+", text)
    assert extra in said and all(word in words_shown for word in said.split()), text
    assert all(word in words_shown for word in ("few_shot", "waiting", "planned", "prompt_tuning")), text
    assert "━━━" in text


def test_rows_that_are_higher_than_the_terminal_are_counted() -> None:
    board = terminal.Board(began=0.0)
    board.apply(Estimate(500, 1900, 320, tuple(Planned(f"method_{n}", 9.0) for n in range(30))), 0.0)
    board.apply(Phase("train", "", "method_7"), 1.0)
    out = console(80, live=True)
    out.print(terminal._rows(board, 20.0, 80, 10))
    text = everything(out)
    assert "method_7" in text and "29 other arms not shown" in text and len(printed(out)) < 10


@WIDTHS
def test_a_passage_is_wrapped_and_whole(width: int, on_screen: Callable[..., Console]) -> None:
    out = on_screen(width)
    passage = " ".join(f"word{number}" for number in range(60)) + " " + "x" * 150
    rag._quote(Screen(), passage)
    shown = [line.removeprefix(rag.BAR) for line in printed(out)]
    assert all(line.startswith(rag.BAR) and len(line) <= width for line in printed(out))
    assert "".join(shown).replace(" ", "") == passage.replace(" ", "")


def test_a_table_counts_the_cells_of_wide_letters() -> None:
    lines = table([Cells("name", ["日本", "ab"], True), Cells("n", ["1", "22"])], 80)
    assert [line.plain for line in lines] == ["name   n", "日本   1", "ab    22"]
