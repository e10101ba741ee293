"""More seeds of a close call and a curve over rows: when they run, what they cost, and where they stand."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
from conftest import RETRIEVED, Finished
from tiny_comparison import command, files

from riyaz.artifact import Artifact
from riyaz.comparison import extra_runs, processes
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan
from riyaz.data import Example
from riyaz.events import Event, Note
from riyaz.results import ArmResult, Comparison, CurveScore

pytestmark = pytest.mark.usefixtures("one_core")
PARTS = {"lora": ("seed-1", "seed-2", "rows-50", "rows-25"), "rag_lora": ("seed-1", "seed-2")}


class Again:
    """The finished comparison without its extra parts, and what `extra` runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = ComparisonFolder(folder)
        self.plan = ComparisonPlan.read(folder / "plan.json")
        self.arms = [replace(arm, seeds=None) for arm in Comparison.read(folder / "compare.json").arms]
        self.ran: list[tuple[str, ...]] = []
        self.notes: list[str] = []
        self.reason = ""

    def run(self, arguments: list[str], log: Path, listen: Callable) -> str:
        """In place of a process: the part gets the answers of the arm."""
        work, _, method, part = arguments
        self.ran.append((work, method, part))
        if not self.reason:
            for name in ("fit.json",) if work == "fit" else ("result.json", "predictions.jsonl"):
                shutil.copy(self.folder.part(method, FINAL) / name, self.folder.part(method, part) / name)
        return self.reason

    def listen(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)

    def arm(self, method: str) -> ArmResult:
        return next(arm for arm in self.arms if arm.method == method)

    def change(self, method: str, **known: Any) -> None:
        self.arms = [replace(arm, **known) if arm.method == method else arm for arm in self.arms]

    def seeds(self, margin: float = 0.02, left: float = 1e6) -> None:
        self.arms = extra_runs.seeds(self.folder, self.plan, self.arms, margin, lambda: left, self.listen)

    def curve(self, left: float = 1e6) -> list[CurveScore]:
        return extra_runs.data_curve(self.folder, self.plan, self.arms, lambda: left, self.listen)


@pytest.fixture
def again(retrieved: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Again:
    shutil.copytree(retrieved.out, tmp_path / "out")
    for method, parts in PARTS.items():
        for part in parts:
            shutil.rmtree(tmp_path / "out/arms" / method / part)
    made = Again(tmp_path / "out")
    monkeypatch.setattr(processes, "run_worker", made.run)
    return made


# when


@pytest.mark.parametrize(("lora", "rag_lora", "close"), [(0.5, 0.52, True), (0.5, 0.53, False), (0.6, 0.5, False)])
def test_more_seeds_are_for_a_close_call_alone(again: Again, lora: float, rag_lora: float, close: bool) -> None:
    again.change("lora", score=lora)
    again.change("rag_lora", score=rag_lora)
    again.change("nearest", score=0.51)  # trains nothing
    again.seeds(margin=0.0201)
    assert bool(again.ran) == close and ((again.arm("lora").seeds is not None) == close)
    if close:
        assert again.ran == [(work, method, f"seed-{n}") for n in (1, 2) for method in ("rag_lora", "lora")
                             for work in ("fit", "evaluate")]  # fmt: skip
        for method in ("lora", "rag_lora"):
            found = again.arm(method).seeds
            assert found is not None and [entry.seed for entry in found] == [4, 5, 6], "its own is the first"
            assert found[0].score == again.arm(method).score
        assert all(again.arm(method).seeds is None for method in RETRIEVED[:3])


def test_a_folder_may_be_named_from_where_one_stands(again: Again, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(again.folder.path.parent)
    again.folder = ComparisonFolder(Path(again.folder.path.name))
    again.seeds(margin=1)
    assert len(again.ran) == 8 and [len(arm.seeds) for arm in again.arms if arm.seeds] == [3, 3]


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_one_trained_arm_alone_is_no_close_call(again: Again, status: str) -> None:
    again.change("lora", status=status)
    again.seeds(margin=1)
    assert again.ran == [] and again.notes == [] and again.curve() == []


def test_arms_that_fit_without_a_learning_rate_have_no_more_seeds(again: Again) -> None:
    again.arms.append(replace(again.arm("lora"), method="linear", chosen={}))
    again.change("rag_lora", status="skipped")
    again.seeds(margin=1)
    assert again.ran == []


def test_nothing_is_run_for_which_no_time_is_left(again: Again) -> None:
    again.seeds(margin=1, left=0.01)
    assert again.ran == [] and not list(again.folder.path.glob("arms/*/seed-*"))
    assert len(again.notes) == 4 and all("no time left for" in note for note in again.notes)
    assert "no time left for lora seed-1, which takes" in " ".join(again.notes)
    assert not any(arm.seeds for arm in again.arms)


def test_a_part_is_held_against_what_its_arm_took(again: Again) -> None:
    run = again.folder.part("lora", FINAL)
    fit, result = (json.loads((run / name).read_text()) for name in ("fit.json", "result.json"))
    fit |= {"seconds": 100.0, "train_seconds": 60.0, "search_seconds": 30.0}  # ten seconds around them
    (run / "fit.json").write_text(json.dumps(fit))
    (run / "result.json").write_text(json.dumps(result | {"eval_seconds": 5.0}))
    again.curve(left=74.9)  # 60 of training, 10 around, 5 of answering
    assert again.ran == [] and [note.rpartition(" which takes ")[2] for note in again.notes] == ["75 s", "75 s"]
    again.seeds(margin=1, left=74.9)
    assert not any(method == "lora" for _, method, _ in again.ran)
    again.ran.clear()
    again.curve(left=75.1)
    assert [part for work, _, part in again.ran if work == "fit"] == ["rows-25", "rows-50"]


def test_an_opening_that_was_trained_before_its_fit_counts(again: Again) -> None:
    run = again.folder.part("lora", FINAL)
    fit, result = (json.loads((run / name).read_text()) for name in ("fit.json", "result.json"))
    fit |= {"seconds": 50.0, "train_seconds": 60.0, "search_seconds": 30.0}
    (run / "fit.json").write_text(json.dumps(fit))
    (run / "result.json").write_text(json.dumps(result | {"eval_seconds": 5.0}))
    again.curve(left=64.9)
    assert again.ran == [] and again.notes[0].endswith(" which takes 65 s")
    again.curve(left=65.1)
    assert again.ran


def test_a_part_that_fails_is_a_note(again: Again) -> None:
    again.reason = "out of memory"
    again.seeds(margin=1)
    assert len(again.ran) == 4 and not any(arm.seeds for arm in again.arms)
    assert again.notes[0].endswith(" seed-1 failed: out of memory") and len(again.notes) == 4
    points = again.curve()
    assert [point.rows for point in points] == [21] and "lora rows-25 failed: out of memory" in again.notes


def test_a_part_that_was_begun_goes_on_where_it_was(again: Again) -> None:
    again.seeds(margin=1)
    (again.folder.part("lora", "seed-2") / "result.json").unlink()
    again.ran.clear()
    again.seeds(margin=1)
    assert again.ran == [("evaluate", "lora", "seed-2")]


def test_every_trained_arm_has_as_many_seeds_as_are_asked_for(again: Again) -> None:
    again.change("lora", score=0.9)  # far from a close call
    for count, ran in ((1, 0), (2, 4), (3, 4)):
        again.ran.clear()
        arms = extra_runs.every_seed(again.folder, again.plan, again.arms, count, lambda: 1e6, again.listen)
        assert len(again.ran) == ran, "those that are there stay"
        seeds = {arm.method: [one.seed for one in arm.seeds] for arm in arms if arm.seeds}
        assert seeds == {name: [*range(4, 4 + count)] for name in ("lora", "rag_lora") if count > 1}
    again.ran.clear()
    arms = extra_runs.every_seed(again.folder, again.plan, again.arms, 9, lambda: 1e6, again.listen, run=False)
    assert again.ran == [] and [len(arm.seeds) for arm in arms if arm.seeds] == [3, 3]


# what


def test_seeds_and_curve_stand_in_the_document(retrieved: Finished) -> None:
    for method, parts in PARTS.items():
        assert {path.name for path in (retrieved.out / "arms" / method).iterdir()} == {FINAL, *parts}
        found = retrieved.arm(method)["seeds"]
        assert [entry["seed"] for entry in found] == [4, 5, 6]
        assert found[0]["score"] == retrieved.arm(method)["score"]
    points = retrieved.document["data_curve"]
    assert [point["rows"] for point in points] == [6, 11, 21]
    assert all(0 <= point["ci_low"] <= point["score"] <= point["ci_high"] <= 1 for point in points)
    assert points[-1]["score"] == retrieved.arm("lora")["score"]


def test_parts_are_other_seeds_at_the_rate_that_was_found_and_fewer_rows(retrieved: Finished) -> None:
    chosen = retrieved.arm("lora")["chosen"]
    for part, stride, seed in (("seed-1", 1, 5), ("seed-2", 1, 6), ("rows-50", 2, 4), ("rows-25", 4, 4)):
        run = retrieved.out / "arms/lora" / part
        assert json.loads((run / "part.json").read_text()) == {
            "name": part, "stride": stride, "seed": seed, "learning_rate": chosen["learning_rate"],
        }  # fmt: skip
        fit = json.loads((run / "fit.json").read_text())
        assert (fit["chosen"]["learning_rate"], fit["chosen"]["steps"]) == (chosen["learning_rate"], 16), "as the arm"
        assert fit["chosen"]["search"] == [] and fit["search_seconds"] < 1
        assert Artifact.read(run / "artifact").seeds["seed"] == seed
    weights = [(retrieved.out / f"arms/lora/{part}/artifact/adapter_model.safetensors").read_bytes()
               for part in (FINAL, "seed-1", "seed-2")]  # fmt: skip
    assert len(set(weights)) == 3


def test_fewer_rows_are_nested(retrieved: Finished) -> None:
    rows = ComparisonFolder(retrieved.out).rows(FINAL, "train")
    half, quarter = rows[::2], rows[::4]
    assert (len(quarter), len(half), len(rows)) == (6, 11, 21)
    assert {example.key for example in quarter} < {example.key for example in half}


def test_the_curve_trains_on_those_rows(again: Again, monkeypatch: pytest.MonkeyPatch) -> None:
    from riyaz.methods import METHODS

    tiny_comparison.workers_inside(monkeypatch)
    seen: dict[str, tuple[tuple[Example, ...], int]] = {}
    whole = METHODS["lora"]

    def watched(context: Any) -> Any:
        seen[context.folder.name] = context.train, context.seed
        return whole.fit(context)

    monkeypatch.setitem(METHODS, "lora", replace(whole, fit=watched))
    points = again.curve()
    rows = again.folder.rows(FINAL, "train")
    assert seen == {"rows-25": (rows[::4], 4), "rows-50": (rows[::2], 4)}
    assert [point.rows for point in points] == [6, 11, 21] and again.notes == []


def test_what_is_trained_again_is_said(retrieved: Finished) -> None:
    lines = retrieved.told.err.splitlines()
    for method, parts in PARTS.items():
        for part in parts:
            begun, judged = lines.index(f"{method}: fit {part}"), lines.index(f"{method}: evaluate {part}")
            assert begun < judged and lines[judged + 1].startswith(f"{method}: ok, exact match")


def test_extra_parts_are_no_arms(retrieved: Finished) -> None:
    document = retrieved.document
    assert [arm["method"] for arm in document["arms"]] == list(RETRIEVED)
    names = {name for pair in document["pairs"] for name in pair["arms"]}
    assert names == set(RETRIEVED) and len(document["pairs"]) == 10
    page = (retrieved.out / "report.md").read_text()
    assert "seed-1" not in page and "rows-25" not in page
    assert all(arm["n_test"] == 13 for arm in document["arms"])
    for method, parts in PARTS.items():
        for part in parts:
            result = json.loads((retrieved.out / "arms" / method / part / "result.json").read_text())
            assert result["ms_per_answer"] is None and "retrieval" not in result, "only its answers count"


def test_the_same_command_again_does_nothing(retrieved: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    done = tiny_comparison.workers_inside(monkeypatch)
    before = {name: (retrieved.out / name).stat().st_mtime_ns for name in files(retrieved.out) if "report" not in name}
    told = command(*retrieved.arguments, "--out", retrieved.out, "--json")
    assert told.status == 0 and told.document == retrieved.document and done == []
    after = {name: (retrieved.out / name).stat().st_mtime_ns for name in files(retrieved.out) if "report" not in name}
    assert {name for name in after if before.get(name) != after[name]} <= {".lock"}


def test_a_command_that_was_stopped_does_what_is_missing(
    again: Again, retrieved: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tiny_comparison.workers_inside(monkeypatch)
    (again.folder.path / "compare.json").unlink()
    told = command(*retrieved.arguments, "--out", again.folder.path, "--json")
    assert done == [(work, method, part) for method, part in (
        ("lora", "rows-25"), ("lora", "rows-50"), *((m, f"seed-{n}") for n in (1, 2) for m in ("lora", "rag_lora")),
    ) for work in ("fit", "evaluate")]  # fmt: skip
    assert [arm["score"] for arm in told.document["arms"]] == [arm["score"] for arm in retrieved.document["arms"]]
    assert told.document["data_curve"] == retrieved.document["data_curve"]
