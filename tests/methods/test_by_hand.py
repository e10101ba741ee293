"""Rank, alpha, length, learning rate and batch size by hand: what they change, and what is said and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
from conftest import Finished
from refusals import assert_refused
from tiny_comparison import command

from riyaz import methods as table
from riyaz.comparison import plan as planning
from riyaz.comparison.by_hand import by_hand_notes
from riyaz.config import CompareConfig, PretrainConfig, resolve
from riyaz.methods.fitting.recipe import ByHand, Recipe, search_rates

pytestmark = pytest.mark.usefixtures("one_core")
PLAIN = Recipe(epochs=2, least_steps=80, batch_size=8, learning_rates=(5e-4, 1e-3), default_rate=1e-3, share=2)


# the recipe


def test_steps_and_epochs_by_hand_are_those_of_the_recipe() -> None:
    assert PLAIN.by_hand(ByHand()) == PLAIN
    assert PLAIN.by_hand(ByHand(steps=7)).steps(10_000) == 7
    assert PLAIN.by_hand(ByHand(epochs=3)).steps(20) == 9, "fewer than the recipe's least"
    assert PLAIN.by_hand(ByHand(epochs=3, batch_size=5)).steps(20) == 12
    assert PLAIN.by_hand(ByHand(batch_size=16)).steps(20) == 80
    assert PLAIN.by_hand(ByHand(steps=7)).share == 2


def test_a_learning_rate_by_hand_is_not_searched() -> None:
    chosen = PLAIN.by_hand(ByHand(learning_rate=3e-3))
    assert search_rates(PLAIN, 80, 80) == PLAIN.learning_rates
    assert search_rates(chosen, 80, 80) == search_rates(chosen, 8, 80) == (3e-3,)


def test_labels_have_a_recipe_of_their_own_which_the_user_changes_as_well() -> None:
    from riyaz.methods.lora import METHOD as lora  # not from the table, whose recipes other tests shorten
    from riyaz.methods.rag_lora import METHOD as together

    assert lora.for_task("free").recipe == lora.recipe != lora.for_task("closed").recipe == lora.label_recipe
    assert lora.for_task("closed", ByHand(steps=7)).recipe.steps(1000) == 7  # type: ignore[union-attr]
    shared, alone = together.for_task("closed").recipe, lora.label_recipe
    assert shared is not None and alone is not None and (shared.share, shared.epochs) == (alone.share + 1, alone.epochs)
    assert table.METHODS["zero_shot"].for_task("closed").recipe is None


# the plan


def planned(hand: ByHand, *methods: str, budget: float = 10_000.0) -> Any:
    from test_plan import SIZES, measured

    recipes = {name: table.METHODS[name].for_task("free", hand).recipe for name in methods}
    return planning.make_plan(planning.PlanInputs(recipes, measured(), SIZES, seed=7), budget=budget, spent=0.0)


def test_the_plan_has_the_steps_the_rate_and_the_batch_by_hand() -> None:
    plan = planned(ByHand(steps=50, learning_rate=3e-3, batch_size=4), "zero_shot", "lora", "full")
    for name in ("lora", "full"):
        arm = plan.arm(name)
        assert (arm.steps, arm.recipe_steps, arm.batch_size, arm.learning_rates) == (50, 50, 4, (3e-3,))
    searched = planned(ByHand(steps=50), "zero_shot", "lora", "full")
    assert searched.arm("lora").learning_rates == table.METHODS["lora"].recipe.learning_rates  # type: ignore[union-attr]
    assert plan.estimate["seconds"] < searched.estimate["seconds"], "the search is not estimated"


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_fewer_steps_than_an_arm_needs_else_are_trained_when_asked_for(steps: int) -> None:
    arm = planned(ByHand(steps=steps), "zero_shot", "lora").arm("lora")
    assert (arm.steps, arm.recipe_steps, arm.skipped, arm.opening) == (steps, steps, "", 0)
    assert arm.seconds["train"] >= steps


# the options


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"rank": 0}, "--rank: 0 is too small"),
        ({"rank": 5000}, "--rank: 5000 is too large"),
        ({"alpha": 0}, "--alpha: 0 is too small"),
        ({"epochs": 0}, "--epochs: 0 is too small"),
        ({"steps": 0}, "--steps: 0 is too small"),
        ({"steps": 2.5}, "--steps: 2.5 is not a whole number"),
        ({"learning_rate": 0.0}, "--learning-rate: 0.0 is too small"),
        ({"learning_rate": 1.0}, "--learning-rate: 1.0 is too large"),
        ({"learning_rate": float("nan")}, "--learning-rate: nan is not a finite number"),
        ({"batch_size": 0}, "--batch-size: 0 is too small"),
        ({"steps": 5, "epochs": 2}, "--epochs and --steps: both say how long to train; give one of them"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], line: str) -> None:
    with assert_refused(line):
        CompareConfig(**options)


def test_a_length_on_the_command_line_takes_the_place_of_the_other_in_the_file() -> None:
    _, config = resolve({"epochs": 3}, {"steps": 40})
    assert (config.epochs, config.steps) == (None, 40)
    _, config = resolve({"steps": 40, "rank": 8}, {"epochs": 3})
    assert (config.epochs, config.steps, config.rank) == (3, None, 8)
    with assert_refused("give one of them"):
        resolve({}, {"steps": 40, "epochs": 3})


def test_an_option_that_no_chosen_method_takes_is_refused() -> None:
    assert by_hand_notes(ByHand(), ("nearest",)) == []
    with assert_refused("--rank: nearest, full cannot take it; leave it out, or run lora or rag_lora"):
        by_hand_notes(ByHand(rank=4), ("nearest", "full"))
    for option in ("epochs", "steps", "learning_rate", "batch_size"):
        with assert_refused(f"--{option.replace('_', '-')}: zero_shot cannot take it", "prompt_tuning or lora or full"):
            by_hand_notes(ByHand(**{option: 1}), ("zero_shot",))
    assert by_hand_notes(ByHand(rank=4, steps=9), ("nearest", "lora", "full")) == [
        "lora by hand: rank 4, steps 9", "full by hand: steps 9",
    ]  # fmt: skip
    assert by_hand_notes(ByHand(steps=1_000_000), ("full",)) == ["full by hand: steps 1000000"]
    assert by_hand_notes(ByHand(learning_rate=5e-4), ("full",)) == [
        "full by hand: learning rate 0.0005; no learning rate is searched"
    ]
    assert by_hand_notes(ByHand(length_normalised=True, beta=0.05), ("dpo", "kto", "lora")) == [
        "dpo by hand: beta 0.05, length normalised", "kto by hand: beta 0.05",
    ]  # fmt: skip
    assert by_hand_notes(ByHand(length_normalised=False), ("lora",)) == [], "a switch that is off"
    with assert_refused("--length-normalised: lora, kto cannot take it; leave it out, or run dpo"):
        by_hand_notes(ByHand(length_normalised=True), ("lora", "kto"))
    with assert_refused("--beta: orpo cannot take it; leave it out, or run dpo or kto"):
        by_hand_notes(ByHand(beta=0.1), ("orpo",))


def test_an_option_of_the_data_folder_that_no_chosen_method_takes_is_said() -> None:
    hand = ByHand(rank=4, steps=9)
    assert by_hand_notes(hand, ("nearest", "full"), {"rank": 4}, "d/riyaz.toml") == [
        "d/riyaz.toml: rank = 4 has no effect, as nearest, full cannot take it", "full by hand: steps 9",
    ]  # fmt: skip
    normalised = ByHand(length_normalised=True)
    assert by_hand_notes(normalised, ("lora",), {"length_normalised": True}, "riyaz.toml") == [
        "riyaz.toml: length_normalised = true has no effect, as lora cannot take it"
    ]
    with assert_refused("--rank: nearest cannot take it"):
        by_hand_notes(ByHand(rank=8), ("nearest",), {"rank": 4}, "d/riyaz.toml")


def test_threads_of_a_pretraining_are_checked() -> None:
    with assert_refused("--threads: 0 is too small"):
        PretrainConfig(threads=0)
    with assert_refused("--prompt: is empty"):
        PretrainConfig(prompt=" ")


# a whole run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    return tmp_path / "data"


HAND = ("--rank", "3", "--alpha", "5", "--epochs", "2", "--learning-rate", "0.002", "--batch-size", "4")


def test_adapt_trains_what_was_asked_for(inside: list, asked: tuple, rows: Path, tmp_path: Path) -> None:
    told = command("adapt", "lora", rows, *asked, *HAND, "--out", tmp_path / "mine")
    assert told.status == 0, told.err
    assert "lora by hand: rank 3, alpha 5, epochs 2, learning rate 0.002, batch size 4; no learning rate" in told.err
    assert not any(line.startswith("lora: search") for line in told.err.splitlines()), told.err
    adapter = json.loads((tmp_path / "mine/adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (3, 5)
    chosen = told.document["chosen"]
    trained = json.loads((tmp_path / "mine/riyaz.json").read_text())["validation"]["rows"]
    assert chosen["steps"] == 2 * -(-(45 - trained) // 4) and chosen["learning_rate"] == 0.002
    assert (chosen["rank"], chosen["alpha"], chosen["search"]) == (3, 5, [])
    assert command("generate", tmp_path / "mine", "my card").status == 0


def test_a_rank_in_the_data_folder_does_not_stop_other_methods(
    inside: list, asked: tuple, rows: Path, tmp_path: Path
) -> None:
    (rows / "riyaz.toml").write_text("rank = 8\n")
    told = command("adapt", "nearest", rows, *asked, "--out", tmp_path / "mine")
    assert told.status == 0, told.err
    assert f"{rows / 'riyaz.toml'}: rank = 8 has no effect, as nearest cannot take it" in " ".join(told.err.split())
    told = command("adapt", "nearest", rows, *asked, "--rank", "4", "--out", tmp_path / "other")
    assert told.status == 2 and told.line.startswith("error: --rank: nearest cannot take it")


def test_alpha_is_twice_a_rank_by_hand(inside: list, asked: tuple, rows: Path, tmp_path: Path) -> None:
    told = command("adapt", "lora", rows, *asked, "--rank", "3", "--steps", "3", "--out", tmp_path / "mine")
    assert told.status == 0 and told.document["chosen"]["alpha"] == 6, told.err
    assert told.document["chosen"]["steps"] == 3


def test_a_dry_run_says_what_is_by_hand(inside: list, asked: tuple, rows: Path, tmp_path: Path) -> None:
    told = command(
        "compare", rows, *asked, *HAND, "--methods", "nearest,lora,full", "--dry-run", "--out", tmp_path / "out"
    )
    plan = {arm["method"]: arm for arm in told.document["plan"]["arms"]}
    assert plan["lora"]["learning_rates"] == plan["full"]["learning_rates"] == [0.002]
    assert plan["lora"]["steps"] == plan["lora"]["recipe_steps"] == plan["full"]["steps"] > 8
    assert plan["lora"]["batch_size"] == 4
    assert "full by hand: epochs 2, learning rate 0.002, batch size 4; no learning rate is searched" in told.err


def test_other_values_by_hand_are_another_comparison(quick: Finished, inside: list, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(quick.out, out)
    for option, name in (("--rank", "rank"), ("--steps", "steps"), ("--batch-size", "batch size")):
        told = command(*quick.arguments, option, "9", "--out", out)
        assert told.status == 2 and f"this folder holds another comparison (other {name})" in told.line
    stored = json.loads((out / "settings.json").read_text())
    for option in ("rank", "alpha", "epochs", "steps", "learning_rate", "batch_size"):
        assert stored["settings"].pop(option) is None
    (out / "settings.json").write_text(json.dumps(stored))
    again = command(*quick.arguments, "--out", out, "--json")
    assert again.status == 0 and not inside, "a folder begun before these options existed goes on"
    assert again.document == quick.document
