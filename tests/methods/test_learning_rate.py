"""The search for a learning rate: which rate is chosen, what is trained and kept of the openings, and search.json."""

import json
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_context import PLAN, fit_context
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused

from riyaz import train as training
from riyaz.events import Event, Progress
from riyaz.methods import lora
from riyaz.methods.fitting import learning_rate, weights
from riyaz.methods.fitting.base import Context
from riyaz.methods.fitting.label_rows import with_label_head
from riyaz.methods.fitting.learning_rate import OPENINGS, SEARCH, Search, chosen, search
from riyaz.ranks import ALONE
from riyaz.train import Diverged, TrainState

ONES = np.ones(4, int)
THREE = replace(PLAN, learning_rates=(1e-3, 2e-3, 4e-3), steps=16, recipe_steps=16, opening=4)


@pytest.fixture
def context(model_folder: Path, tmp_path: Path, in_float32: None) -> Context:
    return fit_context(model_folder, tmp_path)


def openings(context: Context) -> set[str]:
    return {path.name for path in (context.folder / OPENINGS).iterdir()}


# the rate that is chosen


def test_of_rates_within_a_standard_error_of_the_lowest_loss_the_smallest_is_chosen() -> None:
    lowest = np.array([1.0, 2.0, 3.0, 4.0])
    noisy = lowest + np.array([0.5, -0.3, 0.3, -0.1])  # 0.1 more, the error of which is 0.18
    clear = lowest + np.array([0.2, 0.1, 0.1, 0.2])  # 0.15 more, the error of which is 0.03
    assert chosen({1e-4: noisy, 2e-4: lowest}, ONES)[0] == 1e-4
    assert chosen({1e-4: clear, 2e-4: lowest}, ONES)[0] == 2e-4, "rows are paired: their spread does not count"
    assert chosen({1e-4: clear, 2e-4: noisy, 4e-4: lowest}, ONES)[0] == 2e-4
    assert chosen({2e-4: lowest, 1e-4: lowest}, ONES)[0] == 1e-4
    assert chosen({4e-4: noisy, 2e-4: lowest}, ONES)[0] == 2e-4, "a larger rate must be better"


def test_the_record_holds_the_loss_of_a_token_and_the_error_of_its_difference() -> None:
    tokens = np.array([1, 3, 2, 2])
    losses = {2e-4: np.array([1.0, 3.0, 2.0, 2.0]), 1e-4: np.array([1.5, 3.3, 2.8, 2.4])}
    rate, (smaller, larger) = chosen(losses, tokens)
    assert larger == {"rate": 2e-4, "loss": 1.0, "error": 0.0} and smaller["rate"] == 1e-4
    assert smaller["loss"] == pytest.approx(1.25) and rate == 2e-4
    rest = np.array([0.5, 0.3, 0.8, 0.4]) - 0.25 * tokens  # of a ratio's linearisation
    assert smaller["error"] == pytest.approx(math.sqrt(4 / 3 * (rest**2).sum()) / 8)
    assert chosen({1e-4: np.array([1.0]), 2e-4: np.array([0.5])}, np.array([1]))[0] == 2e-4, "of one row"


@settings(deadline=None)
@given(st.data(), st.integers(2, 12), st.integers(1, 4))
def test_what_holds_for_all_losses(data: st.DataObject, rows: int, rates: int) -> None:
    nats = st.lists(st.floats(0, 9), min_size=rows, max_size=rows).map(np.array)
    losses = {10.0**-place: data.draw(nats) for place in range(1, 1 + rates)}
    tokens = np.array(data.draw(st.lists(st.integers(1, 5), min_size=rows, max_size=rows)))
    rate, record = chosen(losses, tokens)
    assert [entry["rate"] for entry in record] == sorted(losses)
    lowest = min(entry["loss"] for entry in record)
    within = [entry["rate"] for entry in record if entry["loss"] - lowest <= entry["error"]]
    assert rate == within[0] and json.loads(json.dumps(record)) == record
    infinite = losses | {0.5: np.full(rows, math.inf), 1e-9: np.full(rows, math.nan)}
    again, longer = chosen(infinite, tokens)
    assert again == rate and longer[1:-1] == record
    assert [longer[0], longer[-1]] == [{"rate": 1e-9, "loss": None}, {"rate": 0.5, "loss": None}]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_an_infinite_loss_is_never_chosen_and_all_of_them_are_refused(bad: float) -> None:
    fine, broken = np.array([1.0, 2.0]), np.array([1.0, bad])
    two = np.ones(2, int)
    for rates in ((1e-4, 2e-4), (2e-4, 1e-4)):
        rate, record = chosen(dict(zip(rates, (broken, fine), strict=True)), two)
        assert rate == rates[1] and {entry["rate"]: entry["loss"] for entry in record} == {
            rates[0]: None,
            rates[1]: 1.5,
        }
    with assert_refused("the loss was not finite at learning rate 0.0001, 0.0002; give a lower --learning-rate"):
        chosen({1e-4: broken, 2e-4: broken}, two)


# what is trained


class Pretend:
    """In place of the training loop: the loss of each rate; keeps the rates of all runs."""

    def __init__(self, losses: Callable[[float], float]) -> None:
        self.losses, self.done = losses, list[float]()

    def train(
        self, model: Any, rows: Any, valid: Any, plan: Any, folder: Path, listen: Any, **objective: Any
    ) -> TrainState:
        unset = dict.fromkeys(("begun", "adjust", "objective", "judge", "after_validation", "stepping"))
        assert objective == {**unset, "ranks": ALONE}
        assert (plan.steps, plan.steady, plan.keep_best) == (THREE.opening, THREE.opening, False)
        self.done.append(plan.learning_rate)
        folder.mkdir(parents=True, exist_ok=True)
        if self.losses(plan.learning_rate) > 100:
            raise Diverged("the loss is nan")
        return TrainState(step=plan.steps)

    def row_nats(self, model: Any, valid: Any) -> list[float]:
        return [self.losses(self.done[-1]) * len(row.answer) for row in valid]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pretend]:
    def start(losses: Callable[[float], float]) -> Pretend:
        made = Pretend(losses)
        monkeypatch.setattr(training, "train", made.train)
        monkeypatch.setattr(training, "row_nats", made.row_nats)
        monkeypatch.setattr(learning_rate, "recorded", lambda *_: nullcontext())
        return made

    return start


def searched(context: Context, **arm: Any) -> Search:
    _, valid, _ = weights.training_rows(context, 1024)
    return search(replace(context, arm=replace(THREE, **arm)), lambda _: None, [], valid)


def test_every_rate_trains_the_opening_and_the_best_ones_stays(
    context: Context, pretend: Callable[..., Pretend]
) -> None:
    made = pretend({1e-3: 3.0, 2e-3: 0.5, 4e-3: 0.9}.__getitem__)
    found = searched(context)
    assert made.done == [1e-3, 2e-3, 4e-3] and found.rate == 2e-3 and found.scores is None and found.seconds > 0
    assert [(entry["rate"], entry["loss"]) for entry in found.record] == [
        (1e-3, pytest.approx(3.0)), (2e-3, pytest.approx(0.5)), (4e-3, pytest.approx(0.9)),
    ]  # fmt: skip
    assert openings(context) == {"0.002"}, "the others are removed"
    assert Search.read(context.folder / SEARCH) == found
    made.done.clear()
    assert searched(context) == found and not made.done, "what was found is not searched again"


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_rate_that_diverges_is_left_out(context: Context, pretend: Callable[..., Pretend], bad: float) -> None:
    pretend(lambda rate: bad if rate == 2e-3 else 1 - rate)
    found = searched(context)
    assert found.rate == 4e-3 and openings(context) == {"0.004"}
    assert next(entry for entry in found.record if entry["rate"] == 2e-3)["loss"] is None
    assert Search.read(context.folder / SEARCH) == found


def test_a_search_in_which_every_rate_diverges_is_refused(context: Context, pretend: Callable[..., Pretend]) -> None:
    for bad in (math.inf, 101.0):
        pretend(lambda rate, bad=bad: bad)
        with assert_refused("the loss was not finite at learning rate", "give a lower --learning-rate"):
            searched(context)
        assert not (context.folder / SEARCH).exists()


def test_one_rate_is_not_compared_and_trains_an_opening_only_where_that_is_needed(
    context: Context, pretend: Callable[..., Pretend]
) -> None:
    made, one = pretend(lambda rate: 1.0), (3e-3,)
    assert searched(context, learning_rates=one, opening=0) == Search(3e-3, []) and not made.done
    for changed in ({"opening": 0, "recipe_steps": THREE.steps + 1}, {"recipe_steps": THREE.steps}):
        (context.folder / SEARCH).unlink()
        assert searched(context, learning_rates=one, **changed) == Search(3e-3, []) and not made.done
    (context.folder / SEARCH).unlink()
    found = searched(context, learning_rates=one, recipe_steps=THREE.steps + 1)
    assert made.done == [3e-3] and (found.rate, found.record, found.seconds) == (3e-3, [], 0.0), "to be continued"
    (context.folder / SEARCH).unlink()
    rated = replace(context, arm=replace(THREE, learning_rates=one))
    _, valid, _ = weights.training_rows(context, 1024)
    found = search(rated, lambda _: None, [], valid, rated=lambda model: [1.0])
    assert found.scores == [1.0], "to be compared with other arms"


# with the real training


def test_the_search_of_a_stopped_run_ends_the_same(context: Context) -> None:
    context = replace(context, arm=THREE)
    whole = replace(context, folder=context.folder / "whole")
    rows, valid, _ = weights.training_rows(context, 1024)
    build = with_label_head(context, lora.build)
    wanted = search(whole, build, rows, valid)
    for stop in (1, 5, 8, 10):  # in each of the three openings
        stopped, seen = replace(context, folder=context.folder / str(stop)), list[Event]()

        def listen(event: Event, seen: list[Event] = seen, stop: int = stop) -> None:
            if isinstance(event, Progress):
                seen.append(event)
                if len(seen) == stop:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(replace(stopped, listen=listen), build, rows, valid)
        again = list[Event]()
        found = search(replace(stopped, listen=again.append), build, rows, valid)
        assert replace(found, seconds=0.0) == replace(wanted, seconds=0.0), stop
        assert sum(isinstance(event, Progress) for event in again) == 12 - (stop - 1) // 4 * 4, "whole ones are kept"
        assert openings(stopped) == {f"{found.rate:g}"}


def test_openings_trained_apart_are_those_of_one_search(context: Context, tmp_path: Path) -> None:
    context = replace(context, arm=THREE)
    alone, joined = (replace(context, folder=tmp_path / name) for name in ("alone", "joined"))
    rows, valid, _ = weights.training_rows(context, 1024)
    build = with_label_head(context, lora.build)
    wanted = search(alone, build, rows, valid)
    for rate in reversed(THREE.learning_rates):  # in another order, each in a folder of its own
        apart = replace(context, folder=tmp_path / f"apart-{rate:g}")
        weights.try_weights(apart, lora.build, rate)
        shutil.copytree(apart.folder, joined.folder, dirs_exist_ok=True)
    assert {path.name for path in joined.folder.iterdir()} == {
        OPENINGS, "opening-0.001.json", "opening-0.002.json", "opening-0.004.json",
    }  # fmt: skip
    trained = list[Event]()
    found = search(replace(joined, listen=trained.append), build, rows, valid)
    assert replace(found, seconds=0.0) == replace(wanted, seconds=0.0) and not trained, "nothing is trained again"
    kept = [
        {path.relative_to(one.folder): path.read_bytes() for path in one.folder.rglob("*.safetensors")}
        for one in (alone, joined)
    ]
    assert kept[0] and kept[0] == kept[1], "the bits that the run goes on with"
    assert {path.name for path in joined.folder.iterdir()} == {path.name for path in alone.folder.iterdir()}


def test_an_opening_that_diverged_apart_is_left_out(
    context: Context, pretend: Callable[..., Pretend], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(lambda rate: 101.0 if rate == 2e-3 else 1 - rate)
    context = replace(context, arm=THREE)
    monkeypatch.setattr(weights, "with_label_head", lambda context, build: build)
    for rate in THREE.learning_rates:
        weights.try_weights(context, lambda _: None, rate)
    found = searched(context)
    assert found.rate == 4e-3 and openings(context) == {"0.004"}
    assert next(entry for entry in found.record if entry["rate"] == 2e-3)["loss"] is None


def test_a_damaged_opening_is_one_line(context: Context, pretend: Callable[..., Pretend]) -> None:
    pretend(lambda rate: 1.0)
    for damaged, says in (({"rows": 3, "nats": [1.0]}, "does not hold the 3 rows"), ({}, "nats is missing")):
        whole = {"rows": 3, "wrong": None, "seconds": 1.0} | damaged
        (context.folder / "opening-0.001.json").write_text(json.dumps(whole))
        with assert_refused(says, "remove it, and the search is made again"):
            searched(context)
