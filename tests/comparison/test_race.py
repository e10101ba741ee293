"""The race of the trained arms: which wait after their openings, and who gets the time."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pretending_machine import ANSWER, NAMES, RECIPE, TRAIN, Machine, begun, pretending, steps

from riyaz.comparison.folder import ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return pretending(tmp_path, monkeypatch)


def test_with_time_enough_nothing_races(machine: Machine) -> None:
    arms = begun(machine, 2000.0)
    arms.run()
    assert [method for work, method in machine.done if work == "fit"] == list(NAMES)
    assert not [work for work, _ in machine.done if work == "open"] and set(steps(arms).values()) == {120}
    assert ComparisonPlan.read(machine.folder.path / "plan.json") == arms.plan


def test_the_trained_arm_that_is_left_out_last_comes_first_though_it_takes_longer(machine: Machine) -> None:
    arms = begun(machine, 700.0, trains={"full": replace(TRAIN, step_seconds=0.8)})
    arms.run()
    fitted = [method for work, method in machine.done if work == "fit"]
    assert fitted == ["nearest", "zero_shot", "lora", "full", "rag_lora"], "rag_lora takes the rate of lora"
    assert arms.plan.arm("full").took < arms.plan.arm("lora").took


def test_the_worst_after_the_openings_waits_and_the_others_get_its_time(machine: Machine) -> None:
    arms = begun(machine, 400.0)
    assert all(arm.cut for arm in arms.plan.arms if arm.recipe_steps)
    before = steps(arms)
    arms.run()
    assert [work for work in machine.done if work[0] == "open"] == [
        (("open"), name) for name in ("lora", "full", "rag_lora")
    ]
    fitted = [method for work, method in machine.done if work == "fit"]
    assert fitted == ["nearest", "zero_shot", "lora", "rag_lora", "full"], "full has the lowest score"
    after = steps(arms)
    assert after["lora"] > before["lora"] and after["rag_lora"] > before["rag_lora"]
    assert after["full"] >= arms.plan.arm("full").opening, "its opening is trained, and counts"
    assert machine.notes[0].endswith("lora 0.500, full 0.300, rag_lora 0.400; full waits for the others")
    assert machine.now <= 400


def test_of_arms_that_differ_by_chance_the_one_waits_that_is_left_out_first(machine: Machine) -> None:
    machine.scores |= {"lora": 0.45, "full": 0.5}
    arms = begun(machine, 300.0, ("nearest", "encoder", "lora", "full", "ensemble"))
    arms.run()
    assert machine.notes[0].endswith("lora 0.450, full 0.500; full waits for the others")
    fitted = [method for work, method in machine.done if work == "fit"]
    assert fitted == ["nearest", "encoder", "lora", "ensemble", "full"]


def test_the_training_on_all_rows_comes_before_the_arm_that_waits(machine: Machine) -> None:
    recipe = replace(RECIPE, refit=True)
    for budget, raced in ((380.0, True), (1000.0, False)):
        machine.now, machine.notes, machine.scores = 0.0, [], {"lora": 0.5, "full": 0.5}
        machine.folder = ComparisonFolder(machine.folder.path / f"{budget:.0f}")
        arms = begun(machine, budget, ("nearest", "lora", "full"), recipes={"lora": recipe, "full": recipe})
        assert not any(arm.cut for arm in arms.plan.arms) and arms.plan.arm("lora").refit != raced
        arms.run()
        lora, full = arms.plan.arm("lora"), arms.plan.arm("full")
        assert lora.refit and not lora.cut and full.cut == raced == bool(machine.notes)
        assert full.steps >= full.opening and machine.now <= budget


@pytest.mark.parametrize("budget", [520.0, 560.0])
def test_the_training_on_all_rows_takes_no_untrained_arm_its_time(machine: Machine, budget: float) -> None:
    recipe, slow = replace(RECIPE, refit=True), replace(ANSWER, row_seconds=3.0)
    machine.scores = {"lora": 0.5, "full": 0.5}
    arms = begun(machine, budget, ("nearest", "zero_shot", "lora", "full"), answers={"zero_shot": slow},
                 recipes={"lora": recipe, "full": recipe})  # fmt: skip
    arms.run()
    assert ("evaluate", "zero_shot") in machine.done and machine.now <= budget
    assert arms.plan.arm("lora").refit and not arms.plan.arm("lora").cut and arms.plan.arm("full").cut


def test_refits_leave_the_arms_that_wait_the_time_of_their_choices(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = SimpleNamespace(task=SimpleNamespace(kind="closed"))
    monkeypatch.setattr(ComparisonFolder, "settings", lambda folder: task)
    slow, recipe = replace(ANSWER, row_seconds=9.0, choose_seconds=40.0), replace(RECIPE, refit=True)
    refitted = set()
    for budget in range(500, 760, 20):
        machine.now, machine.done = 0.0, []
        machine.scores = {"lora": 0.5, "full": 0.5}
        machine.folder = ComparisonFolder(machine.folder.path / "next")
        arms = begun(machine, float(budget), ("nearest", "zero_shot", "lora", "full"), answers={"zero_shot": slow},
                     recipes={"lora": recipe, "full": recipe})  # fmt: skip
        machine.scores["zero_shot"] = 0.05
        arms.run()
        refitted.add(refits := sum(arm.refit for arm in arms.plan.arms))
        assert refits < 2 or arms.plan.arm("zero_shot").ruled_out, budget
    assert refitted == {1, 2}


def test_an_arm_whose_validation_rows_a_teacher_has_answered_does_not_race(machine: Machine) -> None:
    machine.scores |= {"distil": 0.9}
    arms = begun(machine, 300.0, ("nearest", "lora", "full", "distil"))
    assert arms.plan.arm("distil").opening or arms.plan.arm("distil").cut
    arms.run()
    opened = [name for work, name in machine.done if work == "open"]
    assert opened and "distil" not in opened and not any("distil" in note for note in machine.notes)
    assert ("evaluate", "distil") in machine.done


def test_every_arm_behind_the_best_beyond_chance_waits(machine: Machine) -> None:
    machine.scores = {"lora": 0.5, "full": 0.1, "rag_lora": 0.2}
    arms = begun(machine, 400.0)
    arms.run()
    assert machine.notes[0].endswith("full 0.100, rag_lora 0.200; full and rag_lora wait for the others")
    assert steps(arms)["lora"] == 120, "the time of both goes to the best, which is trained whole"
    assert [method for work, method in machine.done if work == "fit"][2] == "lora" and machine.now <= 400


def test_rows_of_few_groups_say_less_about_an_arm(machine: Machine) -> None:
    machine.scores, machine.group_size = {"lora": 0.5, "full": 0.1, "rag_lora": 0.2}, 10
    begun(machine, 400.0).run()
    assert machine.notes[0].endswith("full 0.100, rag_lora 0.200; full waits for the others"), "by chance: two groups"


def test_equal_scores_let_the_arm_wait_that_is_left_out_first(machine: Machine) -> None:
    machine.scores = dict.fromkeys(machine.scores, 0.0)
    arms = begun(machine, 400.0)
    arms.run()
    assert [arm.method for arm in arms.plan.arms if arm.waits] == ["full"]
