"""The last line of `riyaz` alone: what one can do next in this folder."""

from pathlib import Path

import pytest
import tiny_bert
from conftest import Finished

from riyaz.cli import main as cli
from riyaz.cli.next_step import next_step
from riyaz.events import EVENTS, Begun, Ended, to_json

NOBODY = 2**22 + 1  # the number of no process


def begun(folder: Path, *more: object) -> Path:
    """A comparison's folder with these events after its beginning."""
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text("{}")
    (folder / "arms").mkdir()
    events = [Begun("riyaz compare rows.csv --out kept", NOBODY), *more]
    (folder / EVENTS).write_text("".join(f"{to_json(event)}\n" for event in events))
    return folder


def test_without_a_model_one_is_pulled(
    own_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main([]) == 0
    assert capsys.readouterr().out.endswith("\n\nNext, in this folder:  riyaz pull smollm2-135m\n")


def test_rows_are_compared(own_store: Path, tmp_path: Path) -> None:
    tiny_bert.keep(own_store)
    assert next_step(tmp_path).startswith("riyaz compare ROWS ")
    (tmp_path / "my rows.csv").write_text("text,label\na,b\n")
    assert next_step(tmp_path) == "riyaz compare 'my rows.csv' --budget 10m"
    (tmp_path / "train.jsonl").write_text("{}\n")
    assert next_step(tmp_path) == "riyaz compare . --budget 10m"


def test_a_stopped_comparison_goes_on(tmp_path: Path) -> None:
    begun(tmp_path / "kept")
    assert next_step(tmp_path) == "kept was stopped; this goes on: riyaz compare rows.csv --out kept"
    begun(tmp_path / "b/kept", Ended("stopped"))
    assert "was stopped" in next_step(tmp_path / "b")


def test_a_finished_one_is_used(quick: Finished) -> None:
    place = quick.out
    assert next_step(place.parent) == (
        f"{place.name} is finished; riyaz run {place.name} ROWS --out answers.jsonl, or riyaz chat {place.name}"
    )
