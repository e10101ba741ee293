"""The training loop: it learns, the seed fixes every bit, its gradient is the naive one, bad ends are said."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from plain_layers import packed_plain
from refusals import assert_refused
from small_llama import END, SIZES, bits, counting_rows, engine_of, random_rows, small_model
from torch import Tensor, nn

from riyaz import train as training
from riyaz.data.packing import batch, pack
from riyaz.data.rows import Row
from riyaz.engine import Request
from riyaz.errors import RiyazError
from riyaz.events import from_json, quiet, to_json
from riyaz.layers.fast.masters import Masters
from riyaz.layers.swaps import lora
from riyaz.models.llama import Model
from riyaz.train import TrainPlan, TrainState, answer_loss, answer_nats, learning_rate, micro_batches, train

LOSS = 1e-5  # nats, float32, beside the naive computation
GRADIENT = 1e-5  # in units of the largest element, float32, whatever the micro batches
PLAN = TrainPlan(steps=60, learning_rate=5e-3, validate_every=10, checkpoint_every=20, seed=1)
ROWS = counting_rows()


def adapted(seed: int = 0) -> Model:
    """Frozen bf16 base, fresh adapter."""
    model = small_model(torch.bfloat16)
    lora.apply(model, r=4, alpha=8, seed=seed)
    return model


def whole() -> Model:
    return small_model().requires_grad_(True)


MODELS = pytest.mark.parametrize("build", [adapted, whole], ids=["lora", "full"])


def naive_loss(model: Model, rows: list[Row]) -> Tensor:
    """Mean −log p of the answer tokens: one row at a time, all logits, plain attention."""
    total = torch.zeros(())
    for row in rows:
        tokens = torch.tensor([*row.prompt, *row.answer])
        logits = model.head(model(tokens, torch.arange(len(tokens)), packed_plain([len(tokens)])))
        log_p = F.log_softmax(logits.float(), -1)
        for place in range(len(row.prompt), len(tokens)):
            total = total - log_p[place - 1, tokens[place]]
    return total / sum(len(row.answer) for row in rows)


@MODELS
def test_the_loss_falls_and_the_answers_end(tmp_path: Path, build) -> None:
    model = build()
    before = answer_loss(model, ROWS)
    plan = dataclasses.replace(PLAN, steps=80, learning_rate=1e-2, validate_every=80)
    state = train(model, ROWS, ROWS, plan, tmp_path, quiet)
    assert state.best_loss < 0.2 * before and before > 3
    prompts = [Request(i, row.prompt, limit=8, stop=frozenset({END})) for i, row in enumerate(ROWS)]
    if lora.adapter_of(model).pairs:
        prompts = [dataclasses.replace(prompt, adapter="mine") for prompt in prompts]
    answers = engine_of(model.float()).generate(prompts)
    right = [answer == list(row.answer[:-1]) for answer, row in zip(answers, ROWS)]
    assert sum(right) >= 0.9 * len(ROWS)  # the letter as often as it should stand there, and then it stops


@MODELS
def test_the_plan_fixes_every_bit(tmp_path: Path, build) -> None:
    plan, valid = dataclasses.replace(PLAN, steps=12, validate_every=4), random_rows(9, 5)
    runs = []
    for name in ("one", "two"):
        model = build()
        state = train(model, ROWS, valid, plan, tmp_path / name, quiet)
        runs.append((bits(model.state_dict()), state.history, state.best_loss, state.best_step, state.tokens))
    assert runs[0] == runs[1]
    model = build()
    other = train(model, ROWS, valid, dataclasses.replace(plan, seed=2), tmp_path / "three", quiet)
    assert other.history != runs[0][1] and bits(model.state_dict()) != runs[0][0]


def test_the_order_is_that_of_batch_whatever_the_step_it_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Row]] = []

    def watched(rows, *shape):
        seen.append(list(rows))
        return micro_batches(rows, *shape)

    plan = dataclasses.replace(PLAN, steps=9, checkpoint_every=4, validate_every=100)
    monkeypatch.setattr(training, "micro_batches", watched)
    train(adapted(), ROWS, ROWS[:1], plan, tmp_path, quiet)
    expected = [
        [dataclasses.replace(ROWS[i], place=i) for i in batch(len(ROWS), plan.batch_size, plan.seed, step)]
        for step in range(9)
    ]
    assert seen == [*expected, ROWS[:1]]
    seen.clear()
    train(adapted(), ROWS, ROWS[:1], plan, tmp_path, quiet)  # continues from the checkpoint of step 8
    assert seen == [expected[8], ROWS[:1]]


def test_the_validation_loss_is_the_naive_one(tmp_path: Path) -> None:
    model, valid = whole(), random_rows(3, 11)
    wanted = naive_loss(model, valid).item()
    for micro_tokens in (1, 30, 10**6):
        assert answer_loss(model, valid, micro_tokens) == pytest.approx(wanted, abs=LOSS)
    plan = dataclasses.replace(PLAN, steps=3, validate_every=2, compute="float32")
    state = train(model, ROWS, valid, plan, tmp_path, quiet)
    assert [("valid_loss" in entry) for entry in state.history] == [False, True, True]
    assert state.best_loss == pytest.approx(naive_loss(model, valid).item(), abs=LOSS)


def gradients(rows: list[Row], plan: TrainPlan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the loop hands to the optimiser in its first step."""
    kept: list[Tensor] = []
    step = Masters.step

    def watched(self, *arguments, **options):
        kept.extend(self.sums.of(weight).clone() for weight in self.working.values())
        step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Masters, "step", watched)
        train(whole(), rows, rows[:1], plan, folder, quiet)
    return kept


def test_micro_batches_do_not_change_the_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(5, 8)  # of unequal lengths, so that a mean of means would differ
    model = whole()
    naive_loss(model, rows).backward()
    wanted = [weight.grad for weight in model.parameters()]
    for micro_tokens in (1, 40, 10**6):
        plan = TrainPlan(steps=1, learning_rate=1e-3, compute="float32", micro_tokens=micro_tokens)
        found = gradients(rows, plan, tmp_path / str(micro_tokens), monkeypatch)
        for ours, naive in zip(found, wanted, strict=True):
            assert (ours - naive).abs().max() <= GRADIENT * naive.abs().max()


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.95)])
def test_a_step_is_adamw_with_clipping_on_the_mean_gradient(tmp_path: Path, betas: tuple[float, float]) -> None:
    model, twin = whole(), whole()
    plan = TrainPlan(steps=4, learning_rate=1e-2, compute="float32", weight_decay=0.1, clip=0.5, validate_every=4,
                     betas=betas)  # fmt: skip
    state = train(model, ROWS, ROWS[:1], plan, tmp_path, quiet)
    split = [{"params": [p for p in twin.parameters() if (p.ndim > 1) == matrix], "weight_decay": decay}
             for matrix, decay in ((True, 0.1), (False, 0.0))]  # fmt: skip
    optimizer = torch.optim.AdamW(split, betas=betas, fused=False)
    for step, entry in enumerate(state.history):
        optimizer.zero_grad()
        loss = naive_loss(twin, [ROWS[i] for i in batch(len(ROWS), plan.batch_size, plan.seed, step)])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step)
        optimizer.step()
        assert entry["loss"] == pytest.approx(loss.item(), abs=1e-4)
        assert entry["norm"] == pytest.approx(norm.item(), rel=1e-3) and norm > 0.5
    for ours, naive in zip(model.parameters(), twin.parameters()):
        assert (ours - naive).abs().max() < 1e-3  # four steps of 1e-2 each


def test_masters_keep_updates_that_bfloat16_would_lose() -> None:
    layer, lost = nn.Linear(1, 1, bias=False).bfloat16(), nn.Linear(1, 1, bias=False).bfloat16()
    for each in (layer, lost):
        nn.init.ones_(each.weight)
    masters = Masters(layer, torch.bfloat16)
    with torch.no_grad():
        for step in range(100):  # half a step of bfloat16 at 1 is 0.002
            masters.sums.of(layer.weight).fill_(1.0)
            masters.step(step + 1, 1e-3, (0.9, 0.999), 0.0, factor=1.0)
            lost.weight -= 1e-3
    assert lost.weight.item() == 1.0 and layer.weight.item() == pytest.approx(0.9, abs=2**-8)
    masters.detach()  # the mean gradient, in bfloat16, is up to a hundredth below 1
    assert layer.weight.dtype == torch.float32 and layer.weight.item() == pytest.approx(0.9, abs=1e-3)


def test_gradients_add_up_in_float32() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    masters = Masters(layer, torch.bfloat16)
    for value in (1.0, *[2**-10] * 64):  # in bfloat16 each of the small ones is lost beside the 1
        (layer.weight * value).sum().backward()
    assert masters.sums.of(layer.weight).item() == 1 + 64 * 2**-10 and layer.weight.grad is None


def test_only_what_is_trainable_moves(tmp_path: Path) -> None:
    model = adapted()
    before = bits(model.state_dict())
    train(model, ROWS, ROWS, dataclasses.replace(PLAN, steps=2), tmp_path, quiet)
    moved = {name for name, value in bits(model.state_dict()).items() if value != before[name]}
    assert moved == {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert all(weight.grad is None for weight in model.parameters())
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}


def test_a_tied_head_learns_with_the_embedding(tmp_path: Path) -> None:
    model = whole()
    train(model, ROWS, ROWS, dataclasses.replace(PLAN, steps=2), tmp_path, quiet)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not torch.equal(model.lm_head.weight, whole().lm_head.weight)


def test_early_stop_keeps_the_best_weights(tmp_path: Path) -> None:
    wrong = [Row(row.prompt, (39, *row.answer)) for row in ROWS]  # the better it learns, the worse it does here
    plan = dataclasses.replace(PLAN, steps=200, patience=3, validate_every=5, compute="float32")
    model = whole()
    state = train(model, ROWS, wrong, plan, tmp_path, quiet)
    losses = {entry["step"]: entry["valid_loss"] for entry in state.history if "valid_loss" in entry}
    assert state.step == len(state.history) < 200
    assert state.best_loss == min(losses.values()) == losses[state.best_step]
    assert list(losses)[-4:] == [state.best_step + 5 * late for late in range(4)]  # three worse, and no fourth
    assert answer_loss(model, wrong) == state.best_loss
    assert state.worse == 3 and json.loads((tmp_path / "state.json").read_text()) == dataclasses.asdict(state)


def test_a_loss_that_is_not_a_number_is_an_error_of_one_line(tmp_path: Path) -> None:
    model = whole()
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    with assert_refused("the loss is nan", "at step 1", "lower learning rate"):
        train(model, ROWS, ROWS, PLAN, tmp_path, quiet)


def test_a_rate_that_is_far_too_high_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RiyazError, match="lower learning rate"):
        train(whole(), ROWS, ROWS, dataclasses.replace(PLAN, learning_rate=1e30), tmp_path, quiet)


def test_learning_rate_warms_up_and_falls_to_a_tenth() -> None:
    plan = TrainPlan(steps=100, learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(plan, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0 and rates[55] == pytest.approx(1.1) and 0.2 < rates[99] < 0.201
    assert rates[9:] == sorted(rates[9:], reverse=True)
    zero = [learning_rate(dataclasses.replace(plan, final=0.0), step) for step in range(100)]
    assert zero[:11] == rates[:11] and zero[55] == pytest.approx(1.0) and 0 < zero[99] < 0.001
    assert [learning_rate(TrainPlan(steps=1, learning_rate=2.0), 0)] == [2.0]
    short = TrainPlan(steps=3, learning_rate=2.0, warmup=0.0)
    assert [round(learning_rate(short, step), 3) for step in range(3)] == [2.0, 2.0, 1.1]


STEADY = dataclasses.replace(PLAN, steps=40, steady=10, validate_every=10, checkpoint_every=12, batch_size=4)


def test_the_rate_is_steady_in_the_opening_and_then_falls_to_a_tenth() -> None:
    plan = TrainPlan(steps=40, learning_rate=2.0, warmup=0.2, steady=10)
    rates = [learning_rate(plan, step) for step in range(40)]
    assert rates[:2] == [1.0, 2.0] and set(rates[1:11]) == {2.0}, "the warm-up is a share of the opening"
    assert rates[10:] == sorted(rates[10:], reverse=True) and len(set(rates[10:])) == 30
    assert rates[25] == pytest.approx(1.1) and 0.2 < rates[39] < 0.21
    for steps in (10, 20, 400):
        longer = dataclasses.replace(plan, steps=steps)
        assert [learning_rate(longer, step) for step in range(10)] == rates[:10], "whatever the length of the run"
        assert [learning_rate(longer.opening(), step) for step in range(10)] == rates[:10]


def test_the_opening_is_the_same_run_for_every_length() -> None:
    plan = STEADY.opening()
    assert (plan.steps, plan.validate_every, plan.checkpoint_every, plan.keep_best) == (10, 10, 10, False)
    other = dataclasses.replace(STEADY, steps=90, validate_every=15, checkpoint_every=50, keep_best=False)
    assert other.opening() == plan


def outcome(model: Model, state: TrainState) -> tuple:
    """Everything that a run leaves, but the time it took."""
    return bits(model.state_dict()), dataclasses.replace(state, seconds=0.0)


@MODELS
def test_an_opening_that_is_continued_is_the_run_trained_in_one_go_also_if_it_is_killed(tmp_path: Path, build) -> None:
    valid, begun, heard = random_rows(9, 5), tmp_path / "opening", []
    model = build()
    wanted = outcome(model, train(model, ROWS, valid, STEADY, tmp_path / "whole", quiet))
    opening = train(build(), ROWS, valid, STEADY.opening(), begun, quiet)
    assert opening.step == 10 and opening.history == wanted[1].history[:10]
    model = build()
    state = train(model, ROWS, valid, STEADY, tmp_path / "run", heard.append, begun=begun)
    assert [event.done for event in heard] == list(range(11, 41)), "no step is trained twice"
    assert outcome(model, state) == wanted and state.seconds > opening.seconds

    def kill(event) -> None:
        if event.done == killed:
            raise KeyboardInterrupt

    for killed, first in ((11, 11), (26, 25)):  # before and after the first checkpoint of its own
        folder = tmp_path / f"killed-{killed}"
        with pytest.raises(KeyboardInterrupt):
            train(build(), ROWS, valid, STEADY, folder, kill, begun=begun)
        model = build()
        heard.clear()
        state = train(model, ROWS, valid, STEADY, folder, heard.append, begun=begun)
        assert heard[0].done == first and outcome(model, state) == wanted


def test_the_last_weights_of_a_continued_run_are_those_of_one_go_wherever_it_validates(tmp_path: Path) -> None:
    plan, valid = dataclasses.replace(STEADY, steps=20, steady=5, validate_every=7, keep_best=False), ROWS[:3]
    wanted, model = whole(), whole()
    train(wanted, ROWS, valid, plan, tmp_path / "whole", quiet)
    train(whole(), ROWS, valid, plan.opening(), tmp_path / "opening", quiet)
    train(model, ROWS, valid, plan, tmp_path / "run", quiet, begun=tmp_path / "opening")
    assert bits(model.state_dict()) == bits(wanted.state_dict())


def test_the_weights_at_the_end_of_the_opening_may_stay_the_best(tmp_path: Path) -> None:
    wrong = [Row(row.prompt, (39, *row.answer)) for row in ROWS]  # the better it learns, the worse it does here
    plan = dataclasses.replace(STEADY, steps=16, steady=6, validate_every=5, compute="float32")
    opened, model = whole(), whole()
    opening = train(opened, ROWS, wrong, plan.opening(), tmp_path / "opening", quiet)
    state = train(model, ROWS, wrong, plan, tmp_path / "run", quiet, begun=tmp_path / "opening")
    assert (state.step, state.best_step, state.best_loss) == (16, 6, opening.best_loss)
    assert bits(model.state_dict()) == bits(opened.state_dict())


def test_only_the_opening_of_the_same_run_is_continued(tmp_path: Path) -> None:
    plan, begun, heard = dataclasses.replace(STEADY, steps=3, steady=1), tmp_path / "opening", []
    train(adapted(), ROWS, ROWS[:3], plan.opening(), begun, quiet)
    for name, rows, other in (
        ("rate", ROWS, dataclasses.replace(plan, learning_rate=1e-3)),
        ("seed", ROWS, dataclasses.replace(plan, seed=2)),
        ("rows", ROWS[1:], plan),
    ):
        heard.clear()
        train(adapted(), rows, ROWS[:3], other, tmp_path / name, heard.append, begun=begun)
        assert heard[0].done == 1, name
    heard.clear()
    train(adapted(), ROWS, ROWS[:3], plan, tmp_path / "none", heard.append, begun=tmp_path / "lost")
    assert heard[0].done == 1 and not (tmp_path / "lost").exists()


def test_the_listener_hears_every_step(tmp_path: Path) -> None:
    heard: list = []
    rows = random_rows(7, 20)
    plan = dataclasses.replace(PLAN, steps=6, validate_every=3)
    state = train(adapted(), rows, rows[:2], plan, tmp_path, heard.append)
    assert [event.done for event in heard] == [1, 2, 3, 4, 5, 6] and heard[-1].seconds_left == 0
    assert [event.metrics for event in heard] == state.history
    picked = [i for step in range(6) for i in batch(len(rows), plan.batch_size, plan.seed, step)]
    assert state.tokens == sum(len(rows[i].prompt) + len(rows[i].answer) for i in picked)
    assert [from_json(to_json(event)) for event in heard] == heard


class Lazy:
    """Rows that know their hash, and say which of them were read."""

    def __init__(self, rows: list[Row], sha256: str) -> None:
        self.rows, self.sha256, self.read = rows, sha256, list[int]()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Row:
        self.read.append(place)
        return self.rows[place]


def test_rows_that_say_what_they_are_are_read_batch_by_batch_only(tmp_path: Path) -> None:
    plan, name = dataclasses.replace(PLAN, steps=2), {}
    rows = Lazy(ROWS, "one")
    train(adapted(), rows, ROWS[:1], plan, tmp_path, quiet)
    assert rows.read == [place for step in range(2) for place in batch(len(ROWS), plan.batch_size, plan.seed, step)]
    for text in ("one", "other"):
        name[text] = training.run_name({}, Lazy(ROWS, text), ROWS[:1], plan)
    assert name["one"] != name["other"] == training.run_name({}, Lazy([], "other"), ROWS[:1], plan)


def test_look_is_asked_after_every_validation_with_the_weights_of_its_step(tmp_path: Path) -> None:
    model, seen = whole(), []
    plan = dataclasses.replace(PLAN, steps=5, validate_every=2)

    def look(step: int) -> None:
        seen.append((step, model.training, answer_loss(model, ROWS[:3], plan.micro_tokens)))

    state = train(model, ROWS, ROWS[:3], plan, tmp_path, quiet, look)
    losses = [(entry["step"], False, entry["valid_loss"]) for entry in state.history if "valid_loss" in entry]
    assert seen == losses and [step for step, *_ in seen] == [2, 4, 5] and not model.training


def test_dropout_is_of_training_alone_and_a_function_of_seed_and_step(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, steps=3, validate_every=2, dropout=0.3, compute="float32")
    losses = {}
    for name, changed in (("one", plan), ("two", plan), ("none", dataclasses.replace(plan, dropout=0.0))):
        torch.manual_seed(ord(name[0]))  # what the process did before does not count
        model = whole()
        state = train(model, ROWS, ROWS[:3], changed, tmp_path / name, quiet)
        losses[name] = [entry["loss"] for entry in state.history]
        assert state.best_loss == answer_loss(model, ROWS[:3]), "chance in a validation"
    assert losses["one"] == losses["two"] and losses["one"][0] != losses["none"][0]


def test_a_state_goes_through_json_unchanged() -> None:
    state = TrainState(3, 0.1 + 0.2, 2, 1, 1.5, 99, [{"step": 3, "loss": 1 / 3}])
    assert TrainState(**json.loads(json.dumps(dataclasses.asdict(state)))) == state
    assert SIZES["vocab"] > max(max(row.prompt + row.answer) for row in ROWS)


@pytest.mark.parametrize("shared", [7, 8, 40])
def test_a_beginning_that_rows_share_changes_neither_loss_nor_gradient(shared: int) -> None:
    beginning = tuple(i % 37 + 3 for i in range(shared))
    rows = [dataclasses.replace(row, prompt=(*beginning, *row.prompt)) for row in random_rows(3, 6)]
    found = []
    for groups in ([rows], [[row] for row in rows]):
        model = small_model().requires_grad_(True)
        nats = torch.stack([answer_nats(model, pack(group)) for group in groups]).sum()
        nats.backward()
        found.append((nats.item(), [parameter.grad for parameter in model.parameters()]))
    (together, ours), (alone, theirs) = found
    assert pack(rows).shared >= shared * (shared >= 8)
    assert together == pytest.approx(alone, rel=1e-5)
    for grad, wanted in zip(ours, theirs, strict=True):
        assert (grad - wanted).abs().max() <= GRADIENT * wanted.abs().max()


def test_a_rate_falls_to_its_end_also_where_the_length_of_the_run_changes() -> None:
    plan = TrainPlan(steps=100, learning_rate=2.0, warmup=0.1, final=0.0)
    whole = [learning_rate(plan, step) for step in range(100)]
    shorter = dataclasses.replace(plan, changes=((40, 60),))
    rates = [learning_rate(shorter, step) for step in range(60)]
    assert shorter.length == 60 and rates[:41] == whole[:41], "nothing that was done is changed"
    assert rates[9:] == sorted(rates[9:], reverse=True) and 0 < rates[59] < 0.02
    assert rates[50] == pytest.approx(whole[70]), "half of what was left is over after half of the steps"
    again = dataclasses.replace(plan, changes=((40, 60), (50, 80)))
    rates = [learning_rate(again, step) for step in range(80)]
    assert again.length == 80 and rates[50] == pytest.approx(whole[70]) and rates[65] == pytest.approx(whole[85])
    early = dataclasses.replace(plan, changes=((0, 50),))
    assert [learning_rate(early, step) for step in range(50)] == pytest.approx(whole[::2])


def test_a_run_that_is_shortened_and_killed_is_the_same_run(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, steps=40, validate_every=10, checkpoint_every=6)
    changes = {10: ((10, 21),), 15: ((10, 21), (15, 25))}

    def changed(now: TrainPlan, step: int) -> TrainPlan:
        return dataclasses.replace(now, changes=changes.get(step, now.changes))

    heard: list = []
    model = whole()
    wanted = outcome(model, train(model, ROWS, ROWS, plan, tmp_path / "whole", heard.append, adjust=changed))
    assert [event.total for event in heard] == [40] * 10 + [21] * 5 + [25] * 10 and heard[-1].done == 25
    assert [entry["step"] for entry in wanted[1].history if "valid_loss" in entry] == [10, 20, 25]

    def kill(event) -> None:
        if event.done == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(whole(), ROWS, ROWS, plan, tmp_path / "killed", kill, adjust=changed)
    assert [path.name for path in (tmp_path / "killed").glob("step-*")] == ["step-000012"]
    model, recorded = whole(), dataclasses.replace(plan, changes=changes[15])
    assert outcome(model, train(model, ROWS, ROWS, recorded, tmp_path / "killed", quiet)) == wanted


@pytest.mark.parametrize("changes", [((5, 5),), ((5, 9), (4, 9)), ((5, 9), (9, 12)), ((5, 99),), ((-1, 5),)])
def test_changes_of_length_that_no_run_made_are_refused(changes: tuple) -> None:
    with assert_refused("changes", "no run"):
        dataclasses.replace(PLAN, changes=changes)


def test_a_shortened_run_is_not_looked_at_after_its_end(tmp_path: Path) -> None:
    seen: list[int] = []

    def adjust(plan: TrainPlan, step: int) -> TrainPlan:
        assert step < plan.length
        seen.append(step)
        return dataclasses.replace(plan, changes=((2, 5),)) if step == 2 else plan

    plan = dataclasses.replace(PLAN, steps=9, validate_every=9)
    state = train(adapted(), ROWS, ROWS[:2], plan, tmp_path, quiet, adjust=adjust)
    assert (state.step, seen) == (5, [0, 1, 2, 3, 4])
