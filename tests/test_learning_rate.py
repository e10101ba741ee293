"""The search for a learning rate: which rate is chosen, what is trained and kept of the openings, and search.json."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expect import assert_refused
from fitting import PLAN, fit_context
from hypothesis import given, settings
from hypothesis import strategies as st

from riyaz import train as training
from riyaz.errors import RiyazError
from riyaz.events import Event, Phase, Progress
from riyaz.files import write_json
from riyaz.methods import lora, weights
from riyaz.methods.base import Context
from riyaz.methods.learning_rate import OPENINGS, SEARCH, Search, chosen, opening_folder, search
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
    with assert_refused("the loss was not finite at any learning rate"):
        chosen({1e-4: broken, 2e-4: broken}, two)


# what is trained


class Pretend:
    """In place of the training loop: losses by rate and step; keeps (rate, until) of every run."""

    def __init__(self, losses: Callable[[float, int], float]) -> None:
        self.losses, self.done = losses, list[tuple[float, int]]()
        self.rate = 0.0

    def train(
        self, model: Any, rows: Any, valid: Any, plan: Any, folder: Path, listen: Any, *, until: int
    ) -> TrainState:
        assert (plan.steps, plan.steady, plan.keep_best) == (THREE.opening, THREE.opening, False)
        self.rate, loss = plan.learning_rate, self.losses(plan.learning_rate, until)
        self.done.append((self.rate, until))
        folder.mkdir(parents=True, exist_ok=True)
        if loss > 100:
            raise Diverged("the loss is nan")
        return TrainState(step=until, history=[{"valid_loss": loss} if step == until else {} for step in range(1, 5)])

    def row_nats(self, model: Any, valid: Any) -> list[float]:
        return [self.losses(self.rate, THREE.opening) * len(row.answer) for row in valid]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pretend]:
    def start(losses: Callable[[float, int], float]) -> Pretend:
        made = Pretend(losses)
        monkeypatch.setattr(training, "train", made.train)
        monkeypatch.setattr(training, "row_nats", made.row_nats)
        return made

    return start


def searched(context: Context, **arm: Any) -> Search:
    _, valid, _ = weights._training_rows(context, 1024)
    return search(replace(context, arm=replace(THREE, **arm)), lambda _: None, [], valid)


def test_of_three_rates_the_two_best_halfway_train_the_whole_opening(
    context: Context, pretend: Callable[..., Pretend]
) -> None:
    after = {(1e-3, 2): 3.0, (2e-3, 2): 2.0, (4e-3, 2): 1.0, (2e-3, 4): 0.5, (4e-3, 4): 0.9, (1e-3, 4): 0.0}
    made = pretend(lambda rate, step: after[rate, step])
    found = searched(context)
    assert made.done == [(1e-3, 2), (2e-3, 2), (4e-3, 2), (4e-3, 4), (2e-3, 4)]
    assert found.rate == 2e-3 and found.score is None and found.seconds > 0
    assert found.record == [
        {"rate": 1e-3, "loss": 3.0, "steps": 2}, {"rate": 2e-3, "loss": 0.5, "error": 0.0},
        {"rate": 4e-3, "loss": pytest.approx(0.9), "error": pytest.approx(0.0)},
    ]  # fmt: skip
    assert openings(context) == {"0.002"}, "the others are removed"
    assert Search.read(context.folder / SEARCH) == found
    made.done.clear()
    assert searched(context) == found and not made.done, "what was found is not searched again"


def test_of_two_rates_both_train_the_whole_opening(context: Context, pretend: Callable[..., Pretend]) -> None:
    made = pretend(lambda rate, step: 1 + rate)
    found = searched(context, learning_rates=(1e-3, 4e-3))
    assert made.done == [(1e-3, 4), (4e-3, 4)] and found.rate == 1e-3 and openings(context) == {"0.001"}


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("step", [2, 4])
def test_a_rate_that_diverges_is_left_out(
    context: Context, pretend: Callable[..., Pretend], bad: float, step: int
) -> None:
    made = pretend(lambda rate, until: bad if rate == 2e-3 and until >= step else 1 - rate)
    found = searched(context)
    assert found.rate == 4e-3 or step == 4
    assert found.rate != 2e-3 and openings(context) == {f"{found.rate:g}"}
    assert next(entry for entry in found.record if entry["rate"] == 2e-3)["loss"] is None
    assert ((2e-3, 4) in made.done) == (step == 4)
    assert Search.read(context.folder / SEARCH) == found


def test_a_rate_that_diverges_halfway_is_not_trained_on(context: Context, pretend: Callable[..., Pretend]) -> None:
    made = pretend(lambda rate, until: math.inf if rate > 1e-3 else 1.0)
    assert searched(context).rate == 1e-3 and made.done == [(1e-3, 2), (2e-3, 2), (4e-3, 2), (1e-3, 4)]


def test_a_search_in_which_every_rate_diverges_is_refused(context: Context, pretend: Callable[..., Pretend]) -> None:
    for bad in (math.inf, 101.0):
        pretend(lambda rate, until, bad=bad: bad)
        with assert_refused("the loss was not finite at any learning rate"):
            searched(context)
        assert not (context.folder / SEARCH).exists()


def test_one_rate_is_not_compared_and_without_an_opening_nothing_is_trained(
    context: Context, pretend: Callable[..., Pretend]
) -> None:
    made = pretend(lambda rate, until: 1.0)
    assert searched(context, learning_rates=(3e-3,), opening=0) == Search(3e-3, []) and not made.done
    (context.folder / SEARCH).unlink()
    found = searched(context, learning_rates=(3e-3,))
    assert made.done == [(3e-3, 4)] and (found.rate, found.record, found.seconds) == (3e-3, [], 0.0)


# with the real training


def test_the_search_of_a_stopped_run_ends_the_same(context: Context) -> None:
    context = replace(context, arm=THREE)
    whole = replace(context, folder=context.folder / "whole")
    rows, valid, _ = weights._training_rows(context, 1024)
    wanted = search(whole, lora.build, rows, valid)
    for stop in (1, 5, 8, 10):  # in the first halves, and in the second ones
        stopped, seen = replace(context, folder=context.folder / str(stop)), list[Event]()

        def listen(event: Event, seen: list[Event] = seen, stop: int = stop) -> None:
            if isinstance(event, Progress):
                seen.append(event)
                if len(seen) == stop:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(replace(stopped, listen=listen), lora.build, rows, valid)
        again = list[Event]()
        found = search(replace(stopped, listen=again.append), lora.build, rows, valid)
        assert replace(found, seconds=0.0) == replace(wanted, seconds=0.0), stop
        assert sum(isinstance(event, Progress) for event in again) <= 10 - (stop - 1) // 2 * 2
        assert openings(stopped) == {f"{found.rate:g}"}


def test_a_finished_opening_that_went_wrong_later_is_judged_by_its_half(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = replace(context, arm=replace(THREE, learning_rates=(1e-3, 2e-3, 10.0)))
    rows, valid, _ = weights._training_rows(context, 1024)
    losses = {(1e-3, 2): 3.0, (2e-3, 2): 2.0, (10.0, 2): 1.0}  # the best halfway, and the worst at the end
    real = training.answer_loss

    def told(context: Context) -> list[tuple[float, int]]:
        """The runs of a search, with these losses halfway."""
        done: list[tuple[float, int]] = []
        train = training.train

        def watched(*arguments: Any, until: int) -> TrainState:
            rate = arguments[3].learning_rate
            done.append((rate, until))
            monkeypatch.setattr(training, "answer_loss", lambda *rest: losses.get((rate, until)) or real(*rest))
            return train(*arguments, until=until)

        with monkeypatch.context() as patch:
            patch.setattr(training, "train", watched)
            search(context, lora.build, rows, valid)
        return done

    expected = told(replace(context, folder=context.folder / "whole"))
    assert expected[3:] == [(10.0, 4), (2e-3, 4)]
    stopped = replace(context, folder=context.folder / "stopped")
    count = 0

    def listen(event: Event) -> None:
        nonlocal count
        count += isinstance(event, Progress) and event.phase == "search"
        if count == 9:  # the first finalist has ended, the second not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        told(replace(stopped, listen=listen))
    assert told(stopped) == expected


@pytest.mark.parametrize("full", [16, 20])
def test_the_winners_opening_is_continued_and_stays_for_an_arm_that_was_cut(context: Context, full: int) -> None:
    context, steps = replace(context, arm=replace(THREE, recipe_steps=full)), list[tuple[str, float]]()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.phase in ("search", "train"):
            steps.append((event.phase, event.done))

    fitted = lora.fit(replace(context, listen=listen))
    assert steps == [("search", step) for step in (1, 2, 1, 2, 1, 2, 3, 4, 3, 4)] + [
        ("train", step) for step in range(5, 17)
    ], "nothing is trained twice"
    assert [point["step"] for point in fitted.curve] == list(range(1, 17))
    found = Search.read(context.folder / SEARCH)
    assert fitted.chosen["learning_rate"] == found.rate and fitted.chosen["search"] == found.record
    assert fitted.search_seconds == found.seconds > 0 and fitted.train_seconds > 0
    kept = context.folder / OPENINGS
    assert {path.name for path in kept.iterdir()} == {f"{found.rate:g}"} if full > 16 else not kept.exists()
    if full > 16:
        assert {path.name for path in opening_folder(context, found.rate).iterdir()} >= {"step-000004"}


def test_an_arm_that_is_opened_apart_and_then_fitted_is_the_arm_fitted_in_one_go(context: Context) -> None:
    context = replace(context, arm=THREE)
    apart, whole = (replace(context, folder=context.folder / name) for name in ("apart", "whole"))
    opened = weights.begin_weights(apart, lora.build)
    assert opened.score is not None and 0 <= opened.score <= 1
    assert Search.read(apart.folder / SEARCH) == opened and openings(apart) == {f"{opened.rate:g}"}
    write_json(apart.folder / SEARCH, replace(opened, seconds=1000.0))  # on a slow machine
    one, other = lora.fit(whole), lora.fit(apart)
    assert {name: Path(file).read_bytes() for name, file in one.files.items() if isinstance(file, Path)} == {
        name: Path(file).read_bytes() for name, file in other.files.items() if isinstance(file, Path)
    }
    assert one.curve == other.curve and one.chosen["search"] == other.chosen["search"]
    assert other.search_seconds == 1000 and 0 < other.train_seconds < 60, "the search is not part of this process"


# its file


def test_a_search_is_read_back_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = tmp_path / SEARCH
    whole = {"rate": 1e-3, "record": [{"rate": 1e-3, "loss": 2.5, "error": 0.0}], "seconds": 3.5, "score": None}
    path.write_text(json.dumps(whole))
    assert Search.read(path) == Search(1e-3, whole["record"], 3.5)
    for damage, told in (
        ({"rate": 0}, "rate is 0"), ({"rate": 1.5}, "rate is 1.5"), ({"rate": "fast"}, "rate"),
        ({"record": [3]}, "record"), ({"seconds": None}, "seconds"),
    ):  # fmt: skip
        path.write_text(json.dumps(whole | damage))
        with assert_refused("search.json", told, "remove it, and the search is made again"):
            Search.read(path)
    path.write_text('{"rate": 1e-3')
    with assert_refused("search.json", "remove it, and the search is made again"):
        Search.read(path)


def test_a_damaged_search_ends_the_fit_in_one_line(context: Context) -> None:
    (context.folder / SEARCH).write_text("{}")
    with pytest.raises(RiyazError, match=r"search\.json"):
        lora.fit(context)


def test_every_rate_that_is_tried_is_said_and_one_alone_is_training(
    context: Context, pretend: Callable[..., Pretend]
) -> None:
    pretend(lambda rate, until: rate)
    said = list[Event]()
    searched(replace(context, listen=said.append))
    assert [(event.phase, event.detail) for event in said if isinstance(event, Phase)] == [
        ("search", f"rate {rate}") for rate in (0.001, 0.002, 0.004, 0.001, 0.002)
    ]
    said.clear()
    (context.folder / SEARCH).unlink()
    searched(replace(context, listen=said.append), learning_rates=(3e-3,))
    assert said == [Phase("train", "rate 0.003")]
