"""Folders of comparisons that were begun by an earlier riyaz: the same command continues them on the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison

from riyaz.comparison.folder import ComparisonFolder
from riyaz.comparison.job import Job, open_job
from riyaz.config import CompareConfig, DataConfig
from riyaz.errors import RiyazError
from riyaz.events import Note

pytestmark = pytest.mark.usefixtures("one_core")
TOOL = {"type": "function", "function": {"name": "book"}}
SINCE = ("turns", "called", "checks", "group")  # what a reading did not say


def talks(count: int, answers: int = 1, tools: bool = False) -> list[dict[str, Any]]:
    """Conversations of so many answers each."""
    rows = []
    for place in range(count):
        pairs = [(f"question {place} {turn}", f"answer {place % 7} {turn}") for turn in range(answers)]
        roles = ("user", "assistant")
        turns = [{"role": role, "content": text} for pair in pairs for role, text in zip(roles, pair)]
        rows.append({"messages": turns} | ({"tools": [TOOL]} if tools else {}))
    return rows


class Begun:
    """A comparison of chats whose folder is as an earlier riyaz left it: with the arms' folder, where `ran`."""

    def __init__(self, folder: Path, model: Path, rows: list[dict[str, Any]], ran: bool = True) -> None:
        tiny_comparison.write_rows(folder / "data/train.jsonl", rows)
        config = CompareConfig(model=(str(model),), methods=("nearest", "zero_shot"), out=folder / "out")
        self.data, self.config, self.notes = folder / "data", config, list[str]()
        self.folder = ComparisonFolder(folder / "out")
        (folder / "out").mkdir()
        settings = self.job(turns="last").settings
        settings["reading"]["turns"] = None
        for name in SINCE:
            settings["reading"]["columns"].pop(name)
        self.folder.write("settings.json", settings)
        self.folder.write("plan.json", {})
        if ran:
            (folder / "out/arms").mkdir()

    def job(self, **reading: Any) -> Job:
        """The inputs of the command."""

        def listen(event: object) -> None:
            self.notes += [event.text] if isinstance(event, Note) else []

        self.notes.clear()
        return open_job(self.data, DataConfig(**reading), self.config, None, listen)


def test_chats_of_one_answer_go_on(tmp_path: Path, model_folder: Path) -> None:
    begun = Begun(tmp_path, model_folder, talks(45))
    begun.folder.claim(begun.job().settings)
    assert not any("begun" in note for note in begun.notes)


def test_longer_chats_go_on_as_they_were_read_and_a_note_says_so(tmp_path: Path, model_folder: Path) -> None:
    begun = Begun(tmp_path, model_folder, talks(45, answers=2))
    job = begun.job()
    begun.folder.claim(job.settings)
    assert len(job.files.train.examples) == 45 and all(row.turn == 2 for row in job.files.train.examples)
    assert [note for note in begun.notes if "begun" in note] == [
        "this comparison was begun on the last answer of each conversation and goes on so; another --out reads all"
    ]
    with pytest.raises(RiyazError, match=r"another comparison \(other turns, columns\)"):
        begun.folder.claim(begun.job(turns="all").settings)


def test_tools_stay_text(tmp_path: Path, model_folder: Path) -> None:
    begun = Begun(tmp_path, model_folder, talks(45, tools=True))
    (tmp_path / "out/settings.json").rename(tmp_path / "kept")
    assert begun.job().files.train.examples[0].tools
    (tmp_path / "kept").rename(tmp_path / "out/settings.json")
    first = begun.job().files.train.examples[0]
    assert not first.tools and "<tools>" in first.messages[0]["content"]


def test_where_no_arm_has_run_the_rows_are_read_anew(tmp_path: Path, model_folder: Path) -> None:
    begun = Begun(tmp_path, model_folder, talks(45, answers=2), ran=False)
    assert len(begun.job().files.train.examples) == 90
    columns = json.loads((tmp_path / "out/settings.json").read_text())["reading"]["columns"]
    assert not set(SINCE) & set(columns)
