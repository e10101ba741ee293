"""Names in strangers' files are names, never paths: a result's folder may have come with a cloned repository."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from tiny_comparison import command, small_machine

from riyaz.errors import RiyazError
from riyaz.files import is_bare
from riyaz.json_files import read_json, write_json

PATHS = (
    "", ".", "..", "../x", "../../victim", "/etc", "a/b", "a/../..", "a\\b", "..\\x", "C:x", "a\0b", "\uff0e\uff0e/x",
    "\u2024\u2024", "%2e%2e/x", "~root", "a b", "x\n", "-rf", "\u202ex", "x" + "\ud800", "x" * 256,
)  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_a_path_is_no_name(name: str) -> None:
    assert not is_bare(name)


def test_names_of_files_and_methods_are_names() -> None:
    assert all(map(is_bare, ("rag_lora", "model-1-of-2.safetensors", "fold-1", "examples.jsonl", "0..1", "x" * 255)))


@pytest.fixture
def copy(quick: Finished, tmp_path: Path) -> Path:
    """A copy of a finished comparison, three folders below one that holds a victim."""
    (tmp_path / "out/victim").mkdir(parents=True)
    (tmp_path / "out/victim/letter").write_text("dear")
    return Path(shutil.copytree(quick.out, tmp_path / "out/here"))


def change_method(path: Path, name: str) -> None:
    """The first arm of a document is called so."""
    document: dict[str, Any] = json.loads(path.read_text())
    document["arms"][0]["method"] = name
    path.write_text(json.dumps(document))


def test_an_arm_of_a_strangers_plan_is_a_method_on_a_base(quick: Finished, copy: Path, home: Path) -> None:
    with small_machine(home):
        for name in ("../../victim", str(copy.parent / "victim"), "lora\x1b[2J", "lora@../../victim", "unknown"):
            change_method(copy / "plan.json", name)
            (copy / "compare.json").unlink(missing_ok=True)
            told = command(*quick.arguments, "--out", copy)
            assert told.status == 2 and "plan.json: " in told.line and "is not the name of an arm" in told.line
            assert [path.name for path in copy.parent.glob("victim/*")] == ["letter"]


@pytest.mark.parametrize("name", ["../../victim", "/etc", "lora\x1b[2J"])
def test_an_arm_of_a_strangers_results_is_a_name(name: str, copy: Path) -> None:
    change_method(copy / "compare.json", name)
    for asked in (("report", copy), ("generate", copy, "the card")):
        told = command(*asked)
        assert told.status == 2 and "arms[0].method: " in told.line and "is not the name of a method" in told.line


@pytest.mark.parametrize("key", ["pick", "runner_up"])
@pytest.mark.parametrize("name", ["../../victim", "/etc", "unknown"])
def test_the_pick_of_a_strangers_results_is_one_of_its_arms(key: str, name: str, copy: Path) -> None:
    path = copy / "compare.json"
    write_json(path, read_json(path) | {key: name})
    told = command("report", copy)
    assert told.status == 2 and f"{key} is '{name}', which is none of its arms" in told.line


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("d.jsonl", ("data",)), ("d.csv", ("data",)), ("d.json.gz", ("data",)), ("d.txt", ("pretrain", "--out", "out")),
        ("d.md", ("rag", "add", "c.sqlite", "--lexical")), ("d.pdf", ("rag", "add", "c.sqlite", "--lexical")),
        ("d.txt", ("tokenizer", "--out", "out")), ("riyaz.toml", ("compare",)),
    ],
)  # fmt: skip
def test_a_device_without_end_is_not_read(
    name: str, asked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).symlink_to("/dev/zero")
    told = command(*asked, "." if name == "riyaz.toml" else name)
    assert told.status == 2 and name in told.line


STRANGE = "\x1b[31m\u202e\u2066\x00\x07\ud800"  # red, right to left, isolated, NUL, a bell, half a character
ESCAPED = "\\x1b[31m\\u202e\\u2066\\x00\\x07\\ud800"


def test_messages_show_control_characters_escaped(tmp_path: Path) -> None:
    assert str(RiyazError(STRANGE, "a\nb", "é中 🙂")) == f"a b: {ESCAPED}; é中 🙂"
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({f"{STRANGE}{i}": "x" for i in range(3)}) + "\n" for _ in range(9)))
    told = command("data", rows)
    assert told.status == 2 and f"{ESCAPED}0, {ESCAPED}1" in told.line
