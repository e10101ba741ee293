"""Events are lines of JSON that come back as they were; what is none, or of another version, is passed over."""

import json
import math
from dataclasses import fields, replace
from typing import Any

import pytest

from riyaz import events
from riyaz.events import ArmDone, Done, Estimate, Event, Failed, Note, Phase, Planned, Progress

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
