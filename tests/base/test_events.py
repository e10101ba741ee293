"""Events are lines of JSON that come back as they were; what is none, or of another version, is passed over."""

import json
import math
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from riyaz import events
from riyaz.errors import RiyazError
from riyaz.events import ArmDone, Begun, Done, Ended, Estimate, Event, Failed, Note, Phase, Planned, Progress, recorded

ALL: list[Event] = [
    Phase("fit"),
    Phase("train", "1e-4", "lora"),
    Progress("train", 1, 2),
    Progress("train", 1, 2, "lora", "MB", 0.5, 1.5, "fast\u2028é\ud800", {"step": 1, "loss": 0.5}),
    Note("two\nlines"),
    Estimate(60, 900.5, 10, (Planned("lora", 30.0), Planned("full", 30))),
    ArmDone({"method": "lora", "score": 0.5}),
    Failed("out of memory"),
    Done({"arms": []}),
    Begun("riyaz compare rows", 7),
    Ended("failed", "the disk is full"),
]


def test_every_kind_is_here_and_comes_back() -> None:
    assert {type(event) for event in ALL} == set(events.KINDS.values())
    for event in ALL:
        line = events.to_json(event)
        assert line.isascii() and "\n" not in line
        assert json.loads(line)["version"] == 1
        assert events.from_json(line) == events.from_json(line + "\n") == event
    assert not any(entry.name in ("event", "version") for kind in events.KINDS.values() for entry in fields(kind))


def test_a_number_that_is_none_is_null() -> None:
    assert events.from_json(events.to_json(Progress("train", 1, 2, loss=math.nan))) == Progress("train", 1, 2)


@pytest.mark.parametrize(
    "line",
    [
        "", "hello", "[1, 2]", "null", "1", '"event"', '{"no": "event"}', "{", "[" * 100_000, "\udcff",
        '{"event": "note", "text": "of no version"}',
        '{"event": "note", "version": 2, "text": "of another"}',
        '{"event": "song", "version": 1}',
        '{"event": ["note"], "version": 1, "text": ""}',
        '{"event": "note", "version": 1}',
        '{"event": "progress", "version": 1, "phase": "fit", "done": "some", "total": 2}',
    ],
)  # fmt: skip
def test_what_is_no_event_is_passed_over(line: str) -> None:
    assert events.from_json(line) is None


def test_a_later_key_is_passed_over() -> None:
    assert events.from_json('{"event": "note", "version": 1, "text": "a", "colour": "red"}') == Note("a")


def test_a_listener_adds_the_method() -> None:
    heard: list[Any] = []
    listen = events.about("lora", heard.append)
    for event in ALL:
        listen(event)
    named = [replace(e, method="lora") if isinstance(e, Phase | Progress) else e for e in ALL]
    assert heard == named and heard[0].method == "lora"
    events.quiet(ALL[0])


def lines_of(path: Path) -> list[Event]:
    return [event for line in path.read_text().splitlines() if (event := events.from_json(line)) is not None]


def test_a_run_keeps_its_events_and_how_it_ended(tmp_path: Path) -> None:
    path, heard = tmp_path / events.EVENTS, []
    path.write_text('{"event": "note", "vers')  # of a process that was killed
    with recorded(path, "riyaz compare rows", heard.append) as listen:
        for event in ALL:
            listen(event)
    assert heard == ALL, "every event goes on"
    begun, *between, ended = lines_of(path)
    assert begun == Begun("riyaz compare rows", os.getpid()) and ended == Ended("done")
    assert [event for event in between if not isinstance(event, Progress)] == [
        event for event in ALL if not isinstance(event, Done | Progress)
    ]
    assert all("time" in json.loads(line) for line in path.read_text().splitlines()[1:])


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), Ended("stopped")), (RiyazError("no\nroom", "x"), Ended("failed", "x: no room"))],
)
def test_the_end_of_a_run_says_why(tmp_path: Path, error: BaseException, status: Ended) -> None:
    with pytest.raises(type(error)), recorded(tmp_path / "e", "", events.quiet):
        raise error
    assert lines_of(tmp_path / "e")[-1] == status


def test_progress_is_kept_now_and_then_and_a_validation_always(tmp_path: Path) -> None:
    with recorded(tmp_path / "e", "", events.quiet) as listen:
        for step in range(1, 1001):
            metrics = {"step": step, **({"valid_loss": 1.0} if step in (500, 501) else {})}
            listen(Progress("train", step, 1000, "lora", metrics=metrics))
        listen(Progress("train", 1, 9, "full"))
    done = [(event.method, event.done) for event in lines_of(tmp_path / "e") if isinstance(event, Progress)]
    assert done[0] == ("lora", 1) and {("lora", 500), ("lora", 501), ("lora", 1000), ("full", 1)} <= set(done)
    assert len(done) < 100


def test_a_record_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "e").symlink_to(tmp_path / "elsewhere")
    heard: list[Event] = []
    for place in (tmp_path / "e", tmp_path / "absent/e", Path("/dev/full")):
        with recorded(place, "", heard.append) as listen:
            listen(Note("a"))
    assert heard == [Note("a")] * 3 and not (tmp_path / "elsewhere").exists()
