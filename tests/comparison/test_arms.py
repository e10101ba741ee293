"""The order of the arms, the race, planning anew and `--more`, with a clock and processes that only pretend to work."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from riyaz.comparison import arms as running
from riyaz.comparison import plan as planning
from riyaz.comparison import processes
from riyaz.comparison.arm_row import _reason, _with_warning
from riyaz.comparison.arm_seconds import PlanInputs, Sizes
from riyaz.comparison.arms import Arms
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.speeds import AnswerSpeed, Speeds, TrainSpeed
from riyaz.data import Example
from riyaz.events import Event, Note
from riyaz.json_files import write_json
from riyaz.methods.fitting.base import ArmPlan
from riyaz.methods.fitting.learning_rate import OPENINGS
from riyaz.methods.fitting.pacing import Paced
from riyaz.methods.fitting.recipe import ByHand, Recipe
from riyaz.results import ArmResult, Fit

RECIPE = Recipe(epochs=4, least_steps=1, batch_size=8, learning_rates=(1e-3, 2e-3), default_rate=1e-3)  # 120 steps
SIZES = Sizes(train=240, valid=48, test=40)
ANSWER = AnswerSpeed(0.1, 0.1, loss_seconds=0.01, choose_seconds=2.0, load_seconds=0.5, look_seconds=0.0)
TRAIN = TrainSpeed(1.0, validate_seconds=0.5, build_seconds=0.5, rss_mb=500, disk_mb=10, trainable=10)
NAMES = ("nearest", "zero_shot", "lora", "full", "rag_lora")


class Machine:
    """A clock, and processes that let it go on by what their arm was given, times `slow`."""

    def __init__(self, folder: ComparisonFolder, scores: dict[str, float]) -> None:
        self.folder, self.scores = folder, scores
        self.now, self.slow, self.gains = 0.0, 1.0, 0.0
        self.group_size = 1  # of the validation rows
        self.improving: set[str] = set()  # methods whose last validation is the best
        self.done: list[tuple[str, str]] = []
        self.notes: list[str] = []

    def listen(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)

    def valid(self, part: str, which: str) -> list[Example]:
        """The validation rows, each `group_size` of which have the same group."""
        groups = (str(row // self.group_size) for row in range(SIZES.valid))
        return [Example((), ("",), where=f"valid:{row}", group=group) for row, group in enumerate(groups)]

    def rows(self, method: str) -> list[float]:
        """The scores of 20 rows: the mean is the method's score."""
        return [float(row < round(20 * self.scores[method])) for row in range(20)]

    def run(
        self, arguments: list[str], log: Path, listen: object, threads: int | None = None, limit: float | None = None
    ) -> str:
        work, _, method, part = arguments
        self.done.append((work, method))
        arm, run = ComparisonPlan.read(self.folder.path / "plan.json").arm(method), self.folder.part(method, part)
        run.mkdir(parents=True, exist_ok=True)
        seconds = {key: value / arm.pace * self.slow for key, value in arm.seconds.items()}
        train, evaluate = seconds.pop("train", 0.0), seconds.pop("evaluate")
        steps = self.paced(arm, train) if arm.steps else 0
        took = {"open": arm.opening * self.slow, "evaluate": evaluate}.get(work, sum(seconds.values()))
        took += train * steps / arm.steps if work == "fit" and arm.steps else 0.0
        if limit is not None and took > limit:
            self.now += limit
            return processes.STOPPED
        self.now += took
        if work == "open":
            (run / OPENINGS).mkdir()
            write_json(run / "search.json", {"rate": 1e-3, "record": [], "scores": self.rows(method)})
        elif work == "fit":
            self.write_fit(run, arm, steps, took)
            if steps < arm.steps:
                write_json(run / "pace.json", Paced(((steps - 1, steps),), took))
        else:
            write_json(run / "result.json", {})
        return ""

    def write_fit(self, run: Path, arm: ArmPlan, steps: int, took: float) -> None:
        """fit.json of a run that is as good as the method's score, and with `gains` better where it is longer than
        the recipe."""
        best = steps if arm.method in self.improving else max(0, steps - 1)
        score = self.scores.get(arm.method, 0.0) + (self.gains if steps > arm.recipe_steps else 0.0)
        chosen = {"learning_rate": 1e-3, "steps": steps, "best_step": best}
        fit = Fit(chosen, {}, search_seconds=0.0, train_seconds=took, trainable_params=0, valid_loss=1.0,
                  valid_score=score, curve=[], peak_rss_mb=1.0, seconds=took)  # fmt: skip
        write_json(run / "fit.json", fit)

    def paced(self, arm: ArmPlan, train: float) -> int:
        """The steps of a run whose every step takes `train` seconds / the planned steps, as `Pace` shortens it."""
        each = train / arm.steps
        allowed = arm.train_limit - arm.after_seconds * max(0.0, each / arm.step_seconds - 1)
        return min(arm.steps, max(arm.opening + 1, int(allowed / each)))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(ComparisonFolder(tmp_path), {"lora": 0.5, "full": 0.3, "rag_lora": 0.4})
    monkeypatch.setattr(ComparisonFolder, "rows", made.valid)
    monkeypatch.setattr(processes, "run_worker", made.run)
    monkeypatch.setattr(running.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(running, "arm_row", lambda folder, arm, parts, reason: ArmResult(arm.method, "ok"))
    return made


def begun(
    machine: Machine, budget: float, names: tuple[str, ...] = NAMES, answers: dict[str, AnswerSpeed] | None = None,
    trains: dict[str, TrainSpeed] | None = None,
) -> Arms:  # fmt: skip
    recipes = {name: RECIPE if name in machine.scores else None for name in names}
    speeds = Speeds(2, "float32", rss_mb=400, start_seconds=1.0, base_seconds=1.0,
                    predict=dict.fromkeys(names, ANSWER) | (answers or {}),
                    arms=dict.fromkeys(machine.scores, TRAIN) | (trains or {}))  # fmt: skip
    given = PlanInputs(recipes, speeds, SIZES, seed=0, rate_of={"rag_lora": "lora"}, may_wait=names)
    plan = planning.make_plan(given, budget=budget, spent=0.0)
    machine.folder.write("plan.json", plan)
    return Arms(machine.folder, given, plan, [FINAL], budget, lambda: machine.now, machine.listen)


def steps(arms: Arms) -> dict[str, int]:
    return {arm.method: arm.steps for arm in arms.plan.arms if arm.recipe_steps}


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
    arms._save_arm(almost)
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


def test_of_arms_that_differ_by_chance_the_one_waits_that_is_left_out_first(machine: Machine) -> None:
    machine.scores |= {"lora": 0.45, "full": 0.5}
    arms = begun(machine, 300.0, ("nearest", "encoder", "lora", "full", "ensemble"))
    arms.run()
    assert machine.notes[0].endswith("lora 0.450, full 0.500; full waits for the others")
    fitted = [method for work, method in machine.done if work == "fit"]
    assert fitted == ["nearest", "encoder", "lora", "ensemble", "full"]


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
