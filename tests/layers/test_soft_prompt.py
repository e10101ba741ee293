"""Prompt tuning: the shared prefix beside the naive form, in training and in the engine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_layers import head_loss_plain, packed_plain
from small_llama import END, bits, engine_of, moved, next_log_p, random_rows, small_model
from torch import Tensor

from riyaz.data.packing import pack
from riyaz.data.rows import Row
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.torch.runner import TOLERANCE as NEAR
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError
from riyaz.layers.attention import packed
from riyaz.layers.swaps import soft_prompt
from riyaz.layers.swaps.soft_prompt import SoftPrompt
from riyaz.models.llama import Model
from riyaz.train import TrainPlan, answer_loss, answer_nats, train

# Of the largest element, against the float32 naive form. bf16 keeps 8 bits, and a join rounds once more than one call.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 3e-2}
SAME = 1e-4  # nats, the engine beside the naive form
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
HEADS = pytest.mark.parametrize("heads", [(1, 1), (4, 2), (9, 3), (4, 4)], ids=str)
TEXT = (7, 30, 11, 5)  # a prompt's first tokens


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def near(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert (found.float() - wanted).abs().max() <= tolerance * wanted.abs().max()


# attention behind a shared prefix


@DTYPES
@HEADS
@pytest.mark.parametrize("prefix", [1, 20])
@pytest.mark.parametrize("lengths", [[1], [17], [1, 1, 1], [5, 1, 17, 2, 40, 1]], ids=str)
def test_rows_behind_a_prefix_equal_the_prefix_before_every_row(
    lengths: list[int], prefix: int, heads: tuple[int, int], dtype: torch.dtype
) -> None:
    T, (H, K), D = prefix + sum(lengths), heads, 16
    given = [noise(seed, T, size, D).to(dtype) for seed, size in enumerate((H, K, K))]
    ours, theirs = ([x.detach().to(kind).requires_grad_() for x in given] for kind in (dtype, torch.float32))
    found, wanted = packed(lengths).behind(prefix)(0, *ours), packed_plain(lengths, prefix)(0, *theirs)
    near(found, wanted, TOLERANCE[dtype])
    grad = noise(4, T, H, D).to(dtype)
    found.backward(grad)
    wanted.backward(grad.float())
    largest = max(y.grad.abs().max() for y in theirs)  # a row of one token alone has almost no gradient for its key
    for x, y in zip(ours, theirs):
        assert (x.grad.float() - y.grad).abs().max() <= TOLERANCE[dtype] * largest


@pytest.mark.parametrize("attention", [lambda rows, p: packed(rows).behind(p), packed_plain], ids=["fast", "plain"])
def test_a_row_sees_the_prefix_and_itself_and_no_other_row(attention: Any) -> None:
    lengths, prefix, (H, K, D) = [3, 1, 4], 2, (4, 2, 8)
    q, k, v = noise(1, 10, H, D), noise(2, 10, K, D), noise(3, 10, K, D)
    found, row = attention(lengths, prefix)(0, q, k, v), [None, None, 0, 0, 0, 1, 2, 2, 2, 2]
    for t in range(10):
        seen = [s for s in range(t + 1) if s < prefix or row[s] == row[t]]
        for h in range(H):
            weights = torch.softmax(k[seen, h // 2] @ q[t, h] / D**0.5, 0)
            assert (found[t, h] - weights @ v[seen, h // 2]).abs().max() < 1e-5


def test_keys_far_from_the_prefix_and_far_to_it_stay_finite() -> None:
    for scale in (-40.0, 40.0):
        q, k, v = 9 * noise(1, 8, 2, 8).abs(), noise(2, 8, 2, 8), noise(3, 8, 2, 8)
        k[:3] = scale
        ours, theirs = ([x.clone().requires_grad_() for x in (q, k, v)] for _ in range(2))
        packed([5]).behind(3)(0, *ours).sum().backward()
        packed_plain([5], 3)(0, *theirs).sum().backward()
        largest = max(y.grad.abs().max() for y in theirs)
        assert all((x.grad - y.grad).abs().max() <= 1e-5 * largest for x, y in zip(ours, theirs))


# the module


def naive_nats(model: Model, prompt: Tensor, rows: list[Row]) -> Tensor:
    """The prompt repeated before every row, each row a pass of its own; sum of −log p."""
    total = torch.zeros(())
    for row in rows:
        ids = torch.tensor((*row.prompt, *row.answer[:-1]))
        stream = torch.cat((prompt, model.model.embed_tokens(ids)))
        hidden = model(None, torch.arange(len(stream)), packed_plain([len(stream)]), embeddings=stream)
        wanted = hidden[-len(row.answer) :]
        total = total + head_loss_plain(wanted, model.lm_head.weight, torch.tensor(row.answer))
    return total


@DTYPES
@pytest.mark.parametrize("sizes", [{}, {"kv_heads": 4, "tie": False}], ids=["grouped", "plain-heads"])
def test_loss_and_gradient_equal_the_naive_form(sizes: dict[str, Any], dtype: torch.dtype) -> None:
    rows = random_rows(1, 7)
    prompted = moved(small_model(dtype, **sizes), TEXT)
    found = answer_nats(prompted, pack(rows))
    found.backward()
    exact = small_model(torch.float32, **sizes)
    for weight, rounded in zip(exact.parameters(), prompted.base.parameters()):
        weight.data = rounded.data.float()
    prompt = prompted.prompt.detach().to(dtype).float().requires_grad_()
    wanted = naive_nats(exact, prompt, rows)
    wanted.backward()
    near(found, wanted, TOLERANCE[dtype])
    near(prompted.prompt.grad, prompt.grad, TOLERANCE[dtype])
    assert all(weight.grad is None for weight in prompted.base.parameters())


def test_the_prompts_tokens_run_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    prompted, rows, seen = moved(small_model(), TEXT), random_rows(2, 6), []
    forward = Model.forward
    monkeypatch.setattr(Model, "forward", lambda self, t, p, a, **k: seen.append(len(p)) or forward(self, t, p, a, **k))
    answer_loss(prompted, rows)
    assert seen == [len(TEXT) + sum(len(row.prompt) + len(row.answer) - 1 for row in rows)]


def test_training_moves_the_prompt_alone_and_learns(tmp_path: Path) -> None:
    model, rows = small_model(torch.bfloat16), random_rows(3, 12)
    prompted = soft_prompt.apply(model, TEXT)
    before, first, base = answer_loss(prompted, rows), prompted.prompt.detach().clone(), bits(model.state_dict())
    plan = TrainPlan(steps=30, learning_rate=1e-1, validate_every=10)
    state = train(prompted, rows, rows, plan, tmp_path, lambda event: None)
    assert state.best_loss < before - 0.1 and bits(model.state_dict()) == base
    assert prompted.prompt.dtype == torch.float32 and (prompted.prompt - first).abs().max() > 0.1
    assert [name for name, weight in prompted.named_parameters() if weight.requires_grad] == ["prompt"]


# the engine


def naive_log_p(prompted: SoftPrompt, request: Request, more: tuple[int, ...]) -> np.ndarray:
    """Log-softmax at every token of `more`, (n, V), from one pass over everything."""
    base, vectors = prompted.base, prompted.prompt.detach()
    ids = torch.tensor((*request.prefix, *request.tokens, *more))
    embedded = base.model.embed_tokens(ids)
    stream = torch.cat((vectors, embedded)) if request.adapter else embedded
    with torch.inference_mode():
        hidden = base(None, torch.arange(len(stream)), packed_plain([len(stream)]), embeddings=stream)
        return base.head(hidden)[-len(more) - 1 :].log_softmax(1).numpy()


@pytest.fixture(scope="module")
def prompted() -> SoftPrompt:
    return moved(small_model(), TEXT)


@pytest.fixture
def engine(prompted: SoftPrompt) -> Engine:
    return engine_of(prompted)


def asked(constraint: Trie | None = None) -> list[Request]:
    """With and without the adapter and a prefix, mixed."""
    generator = np.random.default_rng(0)
    prefix = tuple(generator.integers(3, 40, 9).tolist())
    return [
        Request(i, tuple(generator.integers(3, 40, 1 + 3 * i).tolist()), ((), prefix)[i // 2 % 2],
                (None, "mine")[i % 2], 7, stop=frozenset({END}), constraint=constraint)
        for i in range(8)
    ]  # fmt: skip


def test_logprobs_and_distributions_equal_the_naive_form(engine: Engine, prompted: SoftPrompt) -> None:
    requests = asked()
    more = [tuple(range(3, 4 + i)) for i in range(len(requests))]
    found, whole = engine.logprobs(requests, more), list(engine.distributions(requests, more))
    for request, answer, row, rows in zip(requests, more, found, whole):
        wanted = naive_log_p(prompted, request, answer)[:-1]
        assert np.abs(rows - wanted).max() < SAME
        assert np.abs(row - wanted[np.arange(len(answer)), answer]).max() < SAME


def test_generate_stream_and_next_token_equal_the_naive_form(engine: Engine, prompted: SoftPrompt) -> None:
    requests = asked()
    for request, found in zip(requests, engine.generate(requests)):
        wanted: list[int] = []
        while len(wanted) < 7 and (token := int(naive_log_p(prompted, request, tuple(wanted))[-1].argmax())) != END:
            wanted.append(token)
        assert found == wanted == list(engine.stream(request))
        after = naive_log_p(prompted, Request(0, (*request.prefix, *request.tokens), adapter=request.adapter), ())[-1]
        assert np.abs(next_log_p(engine, (*request.prefix, *request.tokens), request.adapter) - after).max() < SAME


def test_choose_and_best_equal_the_naive_form(engine: Engine, prompted: SoftPrompt) -> None:
    trie = Trie([(5, 6, END), (5, 7, 8, END), (9, END), (5, END), (12, 4, 4, 4, END)])
    requests = asked(trie)
    scores, offsets = engine.choose(requests), np.array([0.0, 3.0, -1.0, 0.5, 9.0])
    for request, row, (index, value) in zip(requests, scores, engine.best(requests, offsets)):
        for answer, found in zip(trie.sequences, row):
            wanted = naive_log_p(prompted, request, answer)[:-1][np.arange(len(answer)), answer].sum()
            assert abs(found - wanted) < SAME * len(answer)
        assert index == (row + offsets).argmax() and abs(value - row[index]) < SAME


def test_without_its_name_the_prompt_is_truly_off(engine: Engine, prompted: SoftPrompt) -> None:
    bare, more = engine_of(prompted.base), [(4, 5)]
    for prefix in ((), tuple(range(10, 30))):
        off, on = Request(0, (3, 4), prefix), Request(0, (3, 4), prefix, "mine")
        changed = engine.logprobs([on], more)[0]
        assert np.array_equal(engine.logprobs([off], more)[0], bare.logprobs([off], more)[0])
        assert np.abs(changed - bare.logprobs([off], more)[0]).max() > 0.05
    assert engine.adapter_tokens("mine") == len(TEXT) and engine.adapter_tokens(None) == 0
    with pytest.raises(RiyazError, match="adapter 'other' is not loaded"):
        engine.logprobs([Request(0, (3,), adapter="other")], more)


def test_a_prompt_is_read_once_for_each_prefix(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, forward = [], Model.forward
    monkeypatch.setattr(Model, "forward", lambda self, t, p, a, **k: seen.append(len(p)) or forward(self, t, p, a, **k))
    for prefix in ((), (5, 6, 7), (), (5, 6, 7)):
        engine.logprobs([Request(0, (8, 9), prefix, "mine")], [(4,)])
    assert seen == [4, 2, 7, 2, 2, 2]


@DTYPES
def test_what_begins_as_a_text_says_what_the_base_says_after_it(dtype: torch.dtype) -> None:
    model, rows = small_model(dtype), random_rows(4, 9)
    engine = engine_of(soft_prompt.apply(model, TEXT))
    answers = [row.answer for row in rows]
    found = engine.logprobs([Request(0, row.prompt, adapter="mine") for row in rows], answers)
    wanted = engine.logprobs([Request(0, row.prompt, prefix=TEXT) for row in rows], answers)
    assert max(np.abs(a - b).max() for a, b in zip(found, wanted)) < NEAR[dtype]
    loss = -sum(part.sum() for part in wanted) / sum(map(len, wanted))
    assert answer_loss(soft_prompt.apply(model, TEXT), rows) == pytest.approx(loss, abs=NEAR[dtype])
