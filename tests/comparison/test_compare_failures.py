"""What a comparison does when an arm fails, and with a folder that is not its own."""

import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
from conftest import Finished
from tiny_comparison import ARM_KEYS, METHODS, STEPS, command, files, strict

from riyaz import methods as table
from riyaz.comparison import plan_inputs
from riyaz.comparison.bases import method_of
from riyaz.methods import lora

pytestmark = pytest.mark.usefixtures("one_core")


# arms


def test_a_failing_arm_is_a_row_and_only_it_is_run_again(
    inside: list, monkeypatch: pytest.MonkeyPatch, quick: Finished, tmp_path: Path
) -> None:
    shutil.copytree(quick.out, tmp_path / "out")
    for method in ("zero_shot", "few_shot"):
        shutil.rmtree(tmp_path / "out/arms" / method)
    (tmp_path / "out/compare.json").unlink()

    def exhausted(context: Any) -> None:
        raise MemoryError

    def wrong(context: Any) -> None:
        raise KeyError("a bug")

    with pytest.MonkeyPatch.context() as broken:
        for name, fit in (("zero_shot", exhausted), ("few_shot", wrong)):
            broken.setitem(table.METHODS, name, replace(table.METHODS[name], fit=fit))
        told = command(*quick.arguments, "--out", tmp_path / "out", "--json")
    arms = {arm["method"]: arm for arm in told.document["arms"]}
    assert told.status == 0, "the rest goes on"
    assert [arms[method]["status"] for method in METHODS] == ["ok", "ok", "failed", "failed", "ok", "ok", "ok", "ok"]
    assert arms["zero_shot"]["reason"] == "out of memory" and set(arms["zero_shot"]) >= ARM_KEYS
    log = tmp_path / "out/arms/few_shot/kept/log.txt"
    assert arms["few_shot"]["reason"] == f"ended with exit code 1; see {log}" and "a bug" in log.read_text()
    assert told.document["pick"] in ("nearest", "linear", "lora", "full")
    inside.clear()
    again = command(*quick.arguments, "--out", tmp_path / "out", "--json")
    assert sorted(inside) == [(work, m, "kept") for work in ("evaluate", "fit") for m in ("few_shot", "zero_shot")]
    assert [arm["score"] for arm in again.document["arms"]] == [arm["score"] for arm in quick.document["arms"]]


def test_a_failed_check_fails_the_arm(inside: list, quick: Finished, tmp_path: Path) -> None:
    shutil.copytree(quick.out, tmp_path / "out")
    (tmp_path / "out/compare.json").unlink()
    fit = tmp_path / "out/arms/lora/kept/fit.json"
    facts = json.loads(fit.read_text())
    facts["checks"]["weights_moved"]["ok"] = False
    fit.write_text(json.dumps(facts))
    told = command(*quick.arguments, "--out", tmp_path / "out", "--json")
    lora = next(arm for arm in told.document["arms"] if arm["method"] == "lora")
    assert (lora["status"], lora["reason"]) == ("failed", "failed check: weights_moved")
    assert told.document["pick"] != "lora" and lora["score"] is not None


@pytest.mark.slow
def test_a_loss_that_is_no_number_fails_the_arm(
    inside: list, monkeypatch: pytest.MonkeyPatch, asked: tuple, tmp_path: Path
) -> None:
    """A rate far too high ends in a reason when every rate does it, and in a record of it when one does."""
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))

    def compared(name: str, *rates: float) -> dict[str, Any]:
        wild = replace(lora.RECIPE, learning_rates=rates, default_rate=rates[0], epochs=1, least_steps=STEPS)
        method = replace(lora.METHOD, recipe=wild, label_recipe=None)
        # measuring still trains at the usual rates
        monkeypatch.setattr(plan_inputs, "method_of", lambda arm: method if arm == "lora" else method_of(arm))
        told = command("compare", tmp_path / "data", *asked, "--methods", "nearest,lora", "--out", tmp_path / name)
        strict((tmp_path / name / "compare.json").read_text())
        return told.document

    arm = compared("one", 1e-3, 1e30)["arms"][1]
    assert arm["status"] == "ok" and arm["chosen"]["learning_rate"] == 1e-3
    losses = {entry["rate"]: entry["loss"] for entry in arm["chosen"]["search"]}
    assert 0 < losses[1e-3] < 8 and losses[1e30] is None
    strict((tmp_path / "one/arms/lora/kept/artifact/riyaz.json").read_text())
    document = compared("all", 1e29, 1e30)
    arm = document["arms"][1]
    assert arm["status"] == "failed" and "not finite" in arm["reason"]
    assert document["pick"] == "nearest" and not (tmp_path / "all/arms/lora/kept/artifact").exists()


# folders


def test_two_commands_in_one_folder(quick: Finished, inside: list, tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = command(*quick.arguments, "--out", tmp_path)
    assert told.status == 2 and told.line == f"error: {tmp_path}: another riyaz is working in this folder; wait for it"
    assert files(tmp_path) == {".lock"}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--seed", 4), "other seed"),
        (("--methods", "lora"), "other methods"),
        (("--instruction", "Sort it."), "other instruction"),
        (("--max-ms", "5", "--margin", "0.1"), "other margin, max ms"),
    ],
)  # fmt: skip
def test_another_comparison_keeps_its_folder(quick: Finished, inside: list, more: tuple, named: str) -> None:
    before = files(quick.out)
    arguments = [a for a in quick.arguments if a not in ("--seed", 3)] if "--seed" in more else quick.arguments
    told = command(*arguments, *more, "--out", quick.out)
    assert told.status == 2
    assert f"this folder holds another comparison ({named})" in told.line and str(quick.out) in told.line
    assert files(quick.out) == before and inside == []


def test_a_folder_with_something_else_is_left_alone(quick: Finished, inside: list, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    told = command(*quick.arguments, "--out", tmp_path)
    assert told.status == 2 and "this folder holds something else" in told.line
    assert files(tmp_path) == {"thesis.txt"}
    file = command(*quick.arguments, "--out", tmp_path / "thesis.txt")
    assert file.status == 2 and "cannot write here" in file.line


def test_a_budget_may_be_raised_until_there_is_a_plan(quick: Finished, inside: list, tmp_path: Path) -> None:
    out = tmp_path / "out"
    left_out = ("nearest", "zero_shot", "plan.json", "compare.json", "report.*")
    shutil.copytree(quick.out, out, ignore=shutil.ignore_patterns(*left_out))
    (out / "seconds.json").write_text("20.0")
    short = [argument if argument != "3h" else "21s" for argument in quick.arguments]
    for _ in range(2):  # measured before, and killed then
        told = command(*short, "--out", out)
        assert told.status == 2 and "give --budget" in told.line
        assert json.loads((out / "seconds.json").read_text()) == 20.0, "a refusal spends nothing"
    told = command(*quick.arguments, "--out", out, "--json")
    assert told.status == 0 and told.document["seconds"] > 20
    assert inside == [(work, method, "kept") for method in ("nearest", "zero_shot") for work in ("fit", "evaluate")]


@pytest.mark.parametrize("name", ["plan.json", "compare.json", "measured.json"])
def test_a_damaged_file_is_named(quick: Finished, inside: list, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(quick.out, out)
    (out / name).write_text("{")
    if name != "compare.json":
        (out / "compare.json").unlink()
    if name == "measured.json":
        (out / "plan.json").unlink()
    told = command(*quick.arguments, "--out", out)
    assert told.status == 2 and f"{name}:1: is damaged" in told.line and "remove it" in told.line
