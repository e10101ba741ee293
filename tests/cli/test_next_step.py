"""The last line of `riyaz` alone: what one can do next in this folder."""

import sys
from pathlib import Path

import pytest
import tiny_bert
import tiny_llama
from conftest import Finished

from riyaz import extras
from riyaz.cli import main as cli
from riyaz.cli.next_step import next_step
from riyaz.events import EVENTS, Begun, Ended, to_json
from riyaz.sources import pull

NOBODY = 2**22 + 1  # the number of no process


def begun(folder: Path, *more: object, command: str = "riyaz compare rows.csv --out kept") -> Path:
    """A comparison's folder with these events after its beginning."""
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text("{}")
    (folder / "arms").mkdir()
    events = [Begun(command, NOBODY), *more]
    (folder / EVENTS).write_text("".join(f"{to_json(event)}\n" for event in events))
    return folder


def test_without_a_model_one_is_pulled(
    own_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main([]) == 0
    assert capsys.readouterr().out.endswith("\n\nNext, in this folder:  riyaz pull smollm2-135m\n")


@pytest.fixture
def kept_model(own_store: Path, tmp_path: Path) -> None:
    """Two models in the store: one that answers and minilm, which embeds."""
    tiny_bert.keep(own_store)
    assert next_step(tmp_path) == "riyaz pull smollm2-135m"  # minilm alone answers nothing
    tiny_llama.write_hf_folder(tmp_path / "tiny", seed=1)
    pull(str(tmp_path / "tiny"))


@pytest.mark.usefixtures("kept_model")
def test_rows_are_compared(tmp_path: Path) -> None:
    assert next_step(tmp_path).startswith("riyaz compare ROWS ")
    (tmp_path / "my rows.csv").write_text("text,label\na,b\n")
    assert next_step(tmp_path) == "riyaz compare 'my rows.csv' --budget 10m"
    (tmp_path / "train.jsonl").write_text("{}\n")
    assert next_step(tmp_path) == "riyaz compare . --budget 10m"


@pytest.mark.usefixtures("kept_model")
def test_where_nothing_can_be_trained_one_can_chat(
    own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    said = f"riyaz chat tiny; to compare ways of adapting it: {extras.install('train')}"
    assert next_step(tmp_path) == said


def test_a_stopped_comparison_goes_on(tmp_path: Path) -> None:
    begun(tmp_path / "kept")
    assert next_step(tmp_path) == "kept was stopped; this goes on: riyaz compare rows.csv --out kept"
    begun(tmp_path / "b/kept", Ended("stopped"))
    assert "was stopped" in next_step(tmp_path / "b")


def test_it_goes_on_where_it_was_begun(tmp_path: Path) -> None:
    """The command names its files as seen from there."""
    out = begun(tmp_path / "work/sub/my run", command="riyaz compare rows.csv --out 'sub/my run'")
    command = "riyaz compare rows.csv --out 'sub/my run'"
    assert next_step(tmp_path / "work") == f"'sub/my run' was stopped; this goes on: {command}"
    assert next_step(tmp_path / "work/sub") == f"'my run' was stopped; this goes on: cd .. && {command}"
    assert next_step(out) == f". was stopped; this goes on: cd ../.. && {command}"
    begun(tmp_path / "else", command="riyaz compare rows.csv --out=/away/kept")
    assert "in the folder where it was begun: riyaz" in next_step(tmp_path / "else")


@pytest.mark.usefixtures("kept_model")
@pytest.mark.parametrize("name", ["rows.csv.gz", "ROWS.CSV", "rows.json", "-a b.csv"])
def test_every_file_of_rows_is_seen(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    named = {"-a b.csv": "'./-a b.csv'"}.get(name, name)
    assert next_step(tmp_path) == f"riyaz compare {named} --budget 10m"


def test_a_comparison_far_below_is_not_this_folders(own_store: Path, tmp_path: Path) -> None:
    begun(tmp_path / "a/b/c/kept")
    assert next_step(tmp_path) == "riyaz pull smollm2-135m"


def test_without_the_packages_they_are_named(tmp_path: Path, quick: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path / "kept")
    for name in ("torch", "bm25s"):
        monkeypatch.setitem(sys.modules, name, None)
    assert next_step(tmp_path) == f"kept was stopped; to go on: {extras.install('train')}"
    assert next_step(quick.out.parent).endswith(f"; what its pick may need: {extras.install('compare')}")


def test_a_finished_one_is_used(quick: Finished) -> None:
    place = quick.out
    assert next_step(place.parent) == (
        f"{place.name} is finished; riyaz run {place.name} ROWS --out answers.jsonl answers the rows of a file, "
        f"riyaz chat {place.name} a question"
    )
