"""The order of the arms, planning anew and `--more`, with a clock and processes that only pretend to work."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pretending_machine import ANSWER, Machine, begun, pretending, steps

from riyaz.comparison import plan as planning
from riyaz.comparison import processes
from riyaz.comparison.arm_row import _reason, _with_warning
from riyaz.comparison.arms import Arms
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan
from riyaz.methods.fitting.base import ArmPlan
from riyaz.methods.fitting.learning_rate import OPENINGS
from riyaz.methods.fitting.recipe import ByHand
from riyaz.results import Fit


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return pretending(tmp_path, monkeypatch)


def test_an_arm_that_joins_others_runs_as_soon_as_they_have(machine: Machine) -> None:
    arms = begun(machine, 700.0, ("encoder", "lora", "full", "ensemble"))
    arms.run()
    fitted = [method for work, method in machine.done if work == "fit"]
    assert fitted == ["encoder", "lora", "ensemble", "full"]


def test_an_arm_that_joins_one_without_a_result_is_skipped(machine: Machine) -> None:
    arms = begun(machine, 700.0, ("encoder", "lora", "full", "ensemble"))
    arms.failed["lora"] = "no memory"
    arms.run()
    assert arms.plan.arm("ensemble").skipped == "it joins encoder and lora; lora: no memory"
    assert not [method for _, method in machine.done if method == "ensemble"]
    arms.failed.clear()  # the same command again, in which lora succeeds
    again = Arms(machine.folder, arms.inputs, arms.plan, [FINAL], 1400.0, lambda: machine.now, machine.listen)
    again.run()
    assert ("fit", "ensemble") in machine.done and not again.plan.arm("ensemble").skipped


def test_an_arm_that_joins_another_is_made_anew_when_that_has_trained_on(machine: Machine) -> None:
    machine.improving, machine.gains = {"lora"}, 0.1
    arms = begun(machine, 2000.0, ("encoder", "lora", "ensemble"))
    arms.run()
    assert arms.plan.arm("lora").steps > 120
    fitted = [method for work, method in machine.done if work == "fit"]
    assert fitted == ["encoder", "lora", "ensemble", "lora", "ensemble"]
    assert arms.plan.arm("ensemble").state == "begun" and not arms.plan.arm("ensemble").skipped
    assert machine.now <= 2000


def test_an_arm_that_joins_another_stays_when_training_on_gave_nothing(machine: Machine) -> None:
    machine.improving = {"lora"}
    arms = begun(machine, 2000.0, ("encoder", "lora", "ensemble"))
    arms.run()
    fitted = [method for work, method in machine.done if work == "fit"]
    assert arms.plan.arm("lora").steps == 120 and fitted == ["encoder", "lora", "ensemble", "lora"]


def test_a_slow_machine_keeps_to_the_budget_and_leaves_out_what_does_not_fit(machine: Machine) -> None:
    machine.slow = 6.0
    arms = begun(machine, 300.0)
    arms.run()
    assert machine.now <= 300 * 1.35, "what was under way when the pace was learned"
    left_out = [arm.method for arm in arms.plan.arms if arm.skipped]
    assert left_out and all(
        arms.plan.arm(name).skipped == "no time was left for it; --more continues" for name in left_out
    )
    assert any(arm.pace > 3 for arm in arms.plan.arms)


def test_what_the_arms_leave_goes_to_those_that_were_cut(machine: Machine) -> None:
    machine.slow = 0.5
    arms = begun(machine, 420.0)
    assert any(arm.cut for arm in arms.plan.arms)
    arms.run()
    assert set(steps(arms).values()) == {120}, "on a machine twice as fast as measured"


def test_more_time_continues_cut_arms_from_their_openings_and_runs_skipped_ones(machine: Machine) -> None:
    arms = begun(machine, 260.0)
    arms.run()
    cut = {arm.method for arm in arms.plan.arms if arm.cut or arm.skipped}
    assert cut
    (machine.folder.path / "compare.json").write_text("{}")
    opened = [arm.method for arm in arms.plan.arms if (machine.folder.part(arm.method, FINAL) / OPENINGS).exists()]
    machine.done.clear()
    more = Arms(
        machine.folder, arms.inputs, arms.plan, [FINAL], machine.now + 1500, lambda: machine.now, machine.listen
    )
    assert more.revive()
    assert {arm.method: arm.state for arm in more.plan.arms if arm.method in opened} == dict.fromkeys(opened, "opened")
    more.run()
    assert set(steps(more).values()) == {120}
    assert {method for _, method in machine.done} == cut, "whole arms are left as they are"
    assert not (machine.folder.path / "compare.json").exists(), "its arms are other ones now"


def test_an_arm_that_would_gain_little_is_left_as_it_is(machine: Machine) -> None:
    arms = begun(machine, 2000.0)
    arms.run()
    almost = replace(arms.plan.arm("lora"), steps=110)
    arms.save_arm(almost)
    fit = machine.folder.part("lora", FINAL) / "fit.json"
    arms.budget = machine.now + 30
    assert not arms.revive() and fit.exists() and arms.plan.arm("lora") == almost


def test_a_stopped_comparison_goes_on_where_it_was(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = begun(machine, 400.0)
    work = machine.run

    def stopped(arguments: list[str], *rest: object, **options: object) -> str:
        if arguments[0] == "fit" and arguments[2] == "rag_lora":
            raise KeyboardInterrupt
        return work(arguments, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(processes, "run_worker", stopped)
    with pytest.raises(KeyboardInterrupt):
        arms.run()
    frozen = ComparisonPlan.read(machine.folder.path / "plan.json")
    assert frozen.arm("rag_lora").state == "begun"
    monkeypatch.setattr(processes, "run_worker", work)
    machine.done.clear()
    again = Arms(machine.folder, arms.inputs, frozen, [FINAL], 400.0, lambda: machine.now, machine.listen)
    again.run()
    first = [entry for entry in machine.done if entry[1] == "rag_lora"]
    assert first[0] == ("fit", "rag_lora") and ("open", "lora") not in machine.done
    assert (
        json.loads((machine.folder.part("lora", FINAL) / "fit.json").read_text())["chosen"]["steps"]
        >= frozen.arm("lora").steps
    )


def test_an_arm_that_fails_leaves_its_time_to_the_others(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = begun(machine, 400.0)
    work = machine.run
    monkeypatch.setattr(
        processes,
        "run_worker",
        lambda arguments, *rest, **options: (
            "out of memory" if arguments[2] == "full" else work(arguments, *rest, **options)
        ),
    )
    arms.run()
    assert arms.failed == {"full": "out of memory"}
    assert all(steps(arms)[name] == 120 for name in ("lora", "rag_lora"))
    assert isinstance(arms.plan.arm("full"), ArmPlan)


@pytest.mark.parametrize(("slow", "more"), [(1.5, 300.0), (3.0, 300.0), (9.0, 200.0)])
def test_more_time_on_a_slower_machine_takes_nothing_away(machine: Machine, slow: float, more: float) -> None:
    arms = begun(machine, 260.0)
    arms.run()
    before = steps(arms)
    machine.slow = slow
    later = Arms(
        machine.folder, arms.inputs, arms.plan, [FINAL], machine.now + more, lambda: machine.now, machine.listen
    )
    later.revive()
    later.run()
    assert all(steps(later)[method] >= count for method, count in before.items() if count)
    assert all(machine.folder.part(m, FINAL).joinpath("fit.json").exists() for m, count in before.items() if count)


def test_a_killed_more_keeps_what_was_there(machine: Machine) -> None:
    arms = begun(machine, 260.0)
    arms.run()
    before = steps(arms)
    Arms(
        machine.folder, arms.inputs, arms.plan, [FINAL], machine.now + 900, lambda: machine.now, machine.listen
    ).revive()
    planned = ComparisonPlan.read(machine.folder.path / "plan.json")
    again = Arms(machine.folder, arms.inputs, planned, [FINAL], 260.0, lambda: machine.now, machine.listen)
    again.run()
    assert steps(again) == before, "the budget is spent, so the arms stay as they were"


def test_more_of_a_comparison_that_was_stopped_at_once(machine: Machine) -> None:
    arms = begun(machine, 2000.0)
    assert arms.revive()
    arms.run()
    assert set(steps(arms).values()) == {120}


SLOW_ANSWERS = replace(ANSWER, row_seconds=4.0, choose_seconds=60.0)  # 160 s of test rows


def test_arms_that_cost_little_come_first_and_slow_answers_without_training_last(machine: Machine) -> None:
    quick = replace(ANSWER, row_seconds=0.01, answer_seconds=0.01, choose_seconds=0.1)
    arms = begun(machine, 480.0, answers={"zero_shot": SLOW_ANSWERS, "nearest": quick})
    arms.run()
    fitted = [method for work, method in machine.done if work == "fit"]
    assert fitted[0] == "nearest" and [work for work, _ in machine.done].index("open") == 2, (
        "the openings come after the quick arms"
    )
    assert (
        "zero_shot" not in fitted and "takes longer than the time that was left" in arms.plan.arm("zero_shot").skipped
    )
    assert not arms.plan.arm("zero_shot").ruled_out and machine.now <= 480
    named = planning.make_plan(replace(arms.inputs, may_wait=()), budget=480.0, spent=0.0)
    assert named.arm("zero_shot").seconds and named.arm("lora").steps < steps(arms)["lora"], "which had its time"


@pytest.mark.parametrize(("score", "kind"), [(0.05, "closed"), (0.45, "closed"), (0.05, "free")])
def test_slow_answers_are_ruled_out_where_validation_rows_say_enough(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, score: float, kind: str
) -> None:
    task = SimpleNamespace(task=SimpleNamespace(kind=kind))
    monkeypatch.setattr(ComparisonFolder, "settings", lambda folder: task)
    arms = begun(machine, 500.0, answers={"zero_shot": replace(SLOW_ANSWERS, choose_seconds=4.0)})
    machine.scores["zero_shot"] = score
    arms.run()
    assert ("fit", "zero_shot") in machine.done and ("evaluate", "zero_shot") not in machine.done
    assert machine.done.count(("fit", "zero_shot")) == 1 and machine.now <= 500
    arm = arms.plan.arm("zero_shot")
    why = f"on validation rows it scores {score:.2f}, lora 0.50"
    assert arm.ruled_out == (why if (score, kind) == (0.05, "closed") else "")
    assert arm.skipped.startswith(arm.ruled_out) and arm.skipped.endswith("--more continues")


def test_slow_answers_are_waited_for_only_where_they_cost_a_training_its_steps(machine: Machine) -> None:
    arms = begun(machine, 3000.0, answers={"zero_shot": SLOW_ANSWERS})
    assert not arms.plan.arm("zero_shot").waits
    arms.run()
    assert not [arm.method for arm in arms.plan.arms if arm.skipped or arm.cut]
    short = begun(machine, 700.0, answers={"zero_shot": SLOW_ANSWERS})
    assert short.plan.arm("zero_shot").waits and short.plan.estimate["seconds"] <= 700 * planning.RESERVE
    named = planning.make_plan(replace(short.inputs, may_wait=()), budget=700.0, spent=0.0)
    assert not named.arm("zero_shot").waits, "who names a method gets it"


@pytest.mark.parametrize("slow", [2.0, 4.0, 10.0])
@pytest.mark.parametrize("budget", [300.0, 600.0, 1500.0])
def test_the_budget_holds_within_a_quarter_however_slow_the_machine_becomes(
    machine: Machine, slow: float, budget: float
) -> None:
    """Load comes after the speeds were measured."""
    machine.slow = slow
    arms = begun(machine, budget)
    arms.run()
    assert machine.now <= 1.25 * budget
    finished = [arm for arm in arms.plan.arms if arm.state == "begun" and not arm.skipped]
    assert finished and all(arm.took or arm.method in arms.failed for arm in finished)


def test_a_run_with_slow_steps_is_shortened_and_the_plan_says_so(machine: Machine) -> None:
    arms = begun(machine, 700.0, ("nearest", "lora"))
    assert steps(arms)["lora"] == 120
    machine.slow = 5.0
    arms.run()
    lora = arms.plan.arm("lora")
    assert 8 < lora.steps < 120 and lora.cut and machine.now <= 700 * 1.1
    expected = lora.took / sum(lora.seconds.values()) * lora.pace
    assert expected == pytest.approx(5.0, rel=0.2), (
        "its seconds are those of the steps it trained, so its pace is right"
    )


def test_an_arm_that_is_stopped_goes_on_with_more_time(machine: Machine) -> None:
    arms = begun(machine, 300.0, ("nearest", "zero_shot", "lora"))
    machine.slow = 40.0
    arms.run()
    stopped = [arm for arm in arms.plan.arms if arm.skipped and arm.state == "begun"]
    assert stopped and all(arm.skipped.startswith("it was stopped after") for arm in stopped)
    assert machine.now <= 1.25 * 300
    machine.slow = 1.0
    later = Arms(
        machine.folder, arms.inputs, arms.plan, [FINAL], machine.now + 900, lambda: machine.now, machine.listen
    )
    assert later.revive(stopped=True)
    later.run()
    assert not [arm.method for arm in later.plan.arms if arm.skipped]


@pytest.mark.parametrize("gains", [0.1, 0.0])
def test_what_remains_trains_the_leading_arm_on_while_validation_improves(machine: Machine, gains: float) -> None:
    machine.improving, machine.gains = {"lora", "full"}, gains
    arms = begun(machine, 1200.0)
    arms.run()
    ran = [method for work, method in machine.done if work == "fit"]
    assert ran.count("lora") == 2 and ran.count("full") == 1, "lora has the highest score on validation rows"
    assert machine.notes[-1].startswith("lora was still improving: it trains on for the time that is left")
    fit = Fit.read(machine.folder.part("lora", FINAL) / "fit.json")
    if gains:
        assert 180 <= steps(arms)["lora"] == fit.chosen["steps"] <= 360 and not arms.plan.arm("lora").cut
    else:
        assert steps(arms)["lora"] == fit.chosen["steps"] == 120, "the longer run is no better, so it goes"
    assert not list(machine.folder.path.rglob("before")) and machine.now <= 1200
    assert arms.plan.estimate["seconds"] == pytest.approx(machine.now, rel=0.15)


def test_an_arm_whose_length_the_user_has_set_does_not_train_on(machine: Machine) -> None:
    machine.improving, machine.gains = {"lora", "full"}, 0.1
    arms = begun(machine, 1200.0)
    set_by_hand = {name: recipe and recipe.by_hand(ByHand(epochs=4)) for name, recipe in arms.inputs.methods.items()}
    arms.inputs = replace(arms.inputs, methods=set_by_hand)
    arms.run()
    assert [method for work, method in machine.done if work == "fit"].count("lora") == 1
    assert steps(arms)["lora"] == 120


def test_nothing_trains_on_that_is_behind_or_has_stopped_improving_or_has_no_time(machine: Machine) -> None:
    machine.scores["lora"] = 0.5
    begun(machine, 1200.0).run()
    assert [method for work, method in machine.done if work == "fit"].count("lora") == 1
    machine.improving = {"lora"}
    for path in machine.folder.path.rglob("*.json"):
        path.unlink()
    machine.done.clear()
    machine.now = 0.0
    begun(machine, 620.0).run()
    assert [method for work, method in machine.done if work == "fit"].count("lora") == 1


def test_a_check_with_a_warning_fails_nothing_and_is_said_with_its_words() -> None:
    warned = _with_warning("step0_loss", {"ok": True, "warning": "the first loss is 8.2"})
    plan = ArmPlan("lora", steps=120, recipe_steps=120)
    assert _reason(plan, [], [warned]) == "warning: step0_loss (the first loss is 8.2)"
    cut = "trained 60 of 120 steps"
    assert _reason(replace(plan, steps=60), [], []) == cut
    assert _reason(replace(plan, steps=60), [], [warned]) == f"{cut}; warning: step0_loss (the first loss is 8.2)"
    assert _reason(plan, [warned], []) == "failed check: step0_loss (the first loss is 8.2)"
    longer = "trained 240 steps instead of 120, since validation still improved"
    assert _reason(replace(plan, steps=240), [], []) == longer
