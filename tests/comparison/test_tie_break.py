"""A pick that is not clear is made on answers given one at a time: for which arms, when, and only once."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_comparison
from conftest import Finished
from refusals import assert_refused
from tiny_comparison import command

from riyaz.comparison import processes
from riyaz.comparison.arm_row import arm_row
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.tie_break import decide_alone
from riyaz.config import CompareConfig
from riyaz.events import ArmDone, Event, Note
from riyaz.json_files import to_document
from riyaz.results import ArmResult, Comparison, Evaluation

pytestmark = pytest.mark.usefixtures("one_core")
ROWS = 18


class Close:
    """The finished comparison with other scores, and what `decide_alone` runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.plan = ComparisonFolder(folder), ComparisonPlan.read(folder / "plan.json")
        self.margin = 0.3
        self.ran: list[tuple[str, ...]] = []
        self.events: list[Event] = []
        self.reason = ""

    def score(self, **right: int) -> None:
        """Let each method be right on its first so many rows, and leave out the other methods."""
        for method, count in right.items():
            self.write(method, [float(i < count) for i in range(ROWS)])
        arms = Comparison.read(self.folder.path / "compare.json").arms
        self.arms = [
            arm_row(self.folder, self.plan.arm(arm.method), [FINAL], "") for arm in arms if arm.method in right
        ]

    def write(self, method: str, scores: list[float]) -> None:
        path = self.folder.part(method, FINAL) / "predictions.jsonl"
        rows = [json.loads(line) | {"score": score} for line, score in zip(path.read_text().splitlines(), scores)]
        tiny_comparison.write_rows(path, rows)

    def run(self, arguments: list[str], log: Path, listen: Callable) -> str:
        """In place of a process: alone, every answer is right."""
        work, _, method, part = arguments
        self.ran.append((work, method, part))
        if not self.reason:
            self.write(method, [1.0] * ROWS)
            path = self.folder.part(method, part) / "result.json"
            result = json.loads(path.read_text()) | {"alone": True}
            path.write_text(json.dumps(result))
        return self.reason

    def decide(self, left: float = 1e6) -> list[ArmResult]:
        return decide_alone(self.folder, self.plan, self.arms, [FINAL], CompareConfig(margin=self.margin),
                            lambda: left, self.events.append)  # fmt: skip

    @property
    def methods(self) -> list[str]:
        return [method for _, method, _ in self.ran]

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]


@pytest.fixture
def close(quick: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Close:
    shutil.copytree(quick.out, tmp_path / "out")
    (tmp_path / "out/alone.json").unlink(missing_ok=True)
    made = Close(tmp_path / "out")
    monkeypatch.setattr(processes, "run_worker", made.run)
    return made


def test_the_arms_of_a_tie_are_asked_again_one_row_at_a_time(close: Close) -> None:
    close.score(nearest=2, zero_shot=3, lora=17, full=17)
    arms = {arm.method: arm for arm in close.decide()}
    assert close.ran == [("alone", "lora", FINAL), ("alone", "full", FINAL)]
    assert (arms["lora"].score, arms["lora"].alone, arms["full"].alone) == (1.0, True, True)
    assert arms["zero_shot"] == close.arms[1] and not arms["zero_shot"].alone
    done = [event.arm for event in close.events if isinstance(event, ArmDone)]
    assert done == [to_document(arms["lora"]), to_document(arms["full"])]


def test_an_arm_that_copies_answers_has_none_of_its_own(close: Close) -> None:
    close.score(nearest=17, lora=17, full=2)
    close.decide()
    assert close.methods == ["lora"]


@pytest.mark.parametrize(("margin", "methods"), [(0.12, ["zero_shot", "lora", "full"]), (0.06, ["lora", "full"])])
def test_undecided_are_the_leader_and_the_arms_within_the_margin_of_it(
    close: Close, margin: float, methods: list[str]
) -> None:
    close.score(zero_shot=0, lora=0, full=0)
    for method, first, count in (("zero_shot", 8, 10), ("lora", 6, 11), ("full", 0, 12)):
        close.write(method, [float(first <= i < first + count) for i in range(ROWS)])
    close.margin = margin
    close.decide()
    assert close.methods == methods


def test_a_clear_pick_is_left_as_it_is(close: Close) -> None:
    close.margin = 0.02
    close.score(nearest=1, zero_shot=2, lora=18)
    for left in (1e6, -30.0):
        assert close.decide(left) == close.arms and close.ran == [] and close.notes == []
    assert not (close.folder.path / "alone.json").exists()


def test_what_takes_longer_than_the_time_left_is_not_begun(close: Close) -> None:
    close.score(zero_shot=3, lora=17, full=17)
    close.arms = [replace(arm, ms_per_answer=1000.0) for arm in close.arms]
    assert close.decide(left=36.0) == close.arms, "18 rows of a second each, twice, and two starts"
    assert close.ran == [] and not (close.folder.path / "alone.json").exists()
    (note,) = close.notes
    assert note.startswith("no time left to decide between lora and full on answers given one at a time, which takes ")
    close.decide(left=36.0 + 2 * 60)
    assert len(close.ran) == 2


def test_a_stopped_decision_goes_on_with_the_arms_that_it_began_with(close: Close) -> None:
    close.score(zero_shot=3, lora=17, full=16)
    whole, close.reason = close.reason, "out of memory"
    arms = close.decide()
    assert arms == close.arms and "full could not be asked one row at a time: out of memory" in close.notes
    close.reason = whole
    close.ran.clear()
    close.run(["alone", "", "lora", FINAL], Path(), print)  # lora alone was finished: it is clearly the best now
    close.ran.clear()
    close.margin = 0.0
    arms = close.decide(left=-1)
    assert close.methods == ["full"] and all(arm.alone for arm in arms if arm.method != "zero_shot")
    close.ran.clear()
    close.decide()
    assert close.ran == []


def test_an_arm_that_was_trained_further_makes_another_decision(close: Close) -> None:
    close.score(zero_shot=3, lora=17, full=16)
    close.decide()
    close.ran.clear()
    plan = [replace(arm, steps=arm.steps + 5) if arm.method == "full" else arm for arm in close.plan.arms]
    close.plan = replace(close.plan, arms=tuple(plan))
    path = close.folder.part("full", FINAL) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"alone": False}))
    close.score(zero_shot=17, lora=18, full=17)
    assert all(arm.alone for arm in close.decide())
    assert close.methods == ["zero_shot", "full"], "lora is alone already"


def test_a_damaged_list_is_named(close: Close) -> None:
    close.score(lora=17, full=16)
    (close.folder.path / "alone.json").write_text("{}")
    with assert_refused("alone.json", "steps is missing"):
        close.decide()


def test_a_comparison_decides_its_tie_on_answers_given_one_at_a_time(
    inside: list, asked: tuple, tmp_path: Path
) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    base = ("compare", tmp_path / "data", *asked, "--methods", "zero_shot,few_shot", "--margin", 1)
    told = command(*base, "--out", tmp_path / "out")
    assert told.status == 0 and told.document["decision"] == "tie"
    assert [each for each in inside if each[0] == "alone"] == [("alone", m, FINAL) for m in ("zero_shot", "few_shot")]
    for arm in told.document["arms"]:
        result = Evaluation.read(tmp_path / f"out/arms/{arm['method']}/kept/result.json")
        assert arm["alone"] and result.alone and arm["batch_flips"]["rows"] == 9
    for name in ("report.md", "report.html"):
        assert "Ties were decided on answers given one at a time" in (tmp_path / "out" / name).read_text()
    inside.clear()
    (tmp_path / "out/compare.json").unlink()
    again = command(*base, "--out", tmp_path / "out")
    assert again.status == 0 and inside == [] and again.document["pick"] == told.document["pick"]
