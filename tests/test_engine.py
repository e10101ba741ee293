"""The torch engine against transformers and against reading every sequence anew, on tiny seeded models."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from riyaz.engine import Request
from riyaz.engine import torch_backend as engine
from riyaz.engine.torch_backend import TOLERANCE, Backend
from riyaz.engine.torch.packed import pack
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError
from riyaz.layers import lora
from riyaz.models import load
from riyaz.sources import open_source

END, VOCABULARY, NEW = 2, 512, 12
SAME = TOLERANCE[torch.float32]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=3)


@pytest.fixture(scope="module")
def backend(folder: Path) -> Backend:
    return Backend(load(open_source(folder), torch.float32), {END})


@pytest.fixture(scope="module")
def oracle(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def ids(generator: np.random.Generator, least: int, most: int) -> tuple[int, ...]:
    return tuple(generator.integers(3, VOCABULARY, generator.integers(least, most + 1)).tolist())


def requests(seed: int, count: int = 9) -> list[Request]:
    """Prompts of 1 to 40 tokens, some behind one of two shared prefixes."""
    generator = np.random.default_rng(seed)
    prefixes = [(), ids(generator, 20, 20), ids(generator, 5, 5)]
    return [Request(ids(generator, 1, 40), prefix=prefixes[i % 3]) for i in range(count)]


def log_softmax(model, tokens: tuple[int, ...]) -> np.ndarray:
    """What transformers says of every position, (T, V)."""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].log_softmax(-1).numpy()


def plain_greedy(model, request: Request) -> list[int]:
    """Greedy decoding that reads everything anew for every token."""
    tokens: list[int] = []
    while len(tokens) < NEW:
        token = int(log_softmax(model, (*request.prefix, *request.tokens, *tokens))[-1].argmax())
        if token == END:
            break
        tokens.append(token)
    return tokens


def closed_set(generator: np.random.Generator) -> Trie:
    answers = {tuple(generator.integers(3, 9, generator.integers(1, 6)).tolist()) for _ in range(25)}
    return Trie([(*answer, END) for answer in sorted(answers)])


@pytest.mark.parametrize("seed", range(3))
def test_logprobs_and_distributions_equal_transformers(
    backend: Backend, oracle, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(seed)
    asked = requests(seed)
    more = [ids(generator, 1, 9) for _ in asked]
    monkeypatch.setattr(engine, "WINDOW", 4)
    found = backend.logprobs(asked, more)
    whole = list(backend.distributions(asked, more))
    for request, answer, row, rows in zip(asked, more, found, whole):
        wanted = log_softmax(oracle, (*request.prefix, *request.tokens, *answer))[request.length - 1 : -1]
        assert rows.shape == (len(answer), VOCABULARY)
        assert np.abs(rows - wanted).max() < SAME
        assert np.abs(row - wanted[np.arange(len(answer)), answer]).max() < SAME


def test_next_token_equals_transformers(backend: Backend, oracle) -> None:
    tokens = (1, 7, 300, 41)
    assert np.abs(backend.next_token(tokens) - log_softmax(oracle, tokens)[-1]).max() < SAME


@pytest.mark.parametrize("seed", range(3))
def test_cached_generation_equals_reading_anew(backend: Backend, oracle, seed: int) -> None:
    asked = requests(seed)
    wanted = [plain_greedy(oracle, request) for request in asked]
    assert backend.generate(asked, NEW) == wanted
    assert [list(backend.stream(request, NEW)) for request in asked[:3]] == wanted[:3]


def test_generation_stops_at_any_end_token(folder: Path, oracle) -> None:
    asked = requests(4)
    answers = [plain_greedy(oracle, request) for request in asked]
    ends = {answers[0][0], answers[1][3], answers[2][7]}  # rows end at different steps and leave the batch
    found = Backend(load(open_source(folder), torch.float32), ends | {END}).generate(asked, NEW)
    for answer, tokens in zip(answers, found):
        cut = next((i for i, token in enumerate(answer) if token in ends), len(answer))
        assert tokens == answer[:cut]
    assert {len(tokens) for tokens in found} >= {0, NEW}


@pytest.mark.parametrize("seed", range(4))
def test_choose_gives_the_probability_of_every_answer(backend: Backend, oracle, seed: int) -> None:
    generator = np.random.default_rng(seed)
    trie, prefix = closed_set(generator), ids(generator, 17, 17)
    asked = [Request(ids(generator, 1, 30), prefix=prefix, constraint=trie) for _ in range(3)]
    found = backend.choose(asked)
    for request, row in zip(asked, found):
        for answer, value in zip(trie.sequences, row):
            wanted = log_softmax(oracle, (*request.prefix, *request.tokens, *answer))[request.length - 1 : -1]
            assert abs(wanted[np.arange(len(answer)), answer].sum() - value) < len(answer) * SAME


@pytest.mark.parametrize("seed", range(25))
def test_best_is_the_argmax_of_choose(backend: Backend, seed: int) -> None:
    generator = np.random.default_rng(seed)
    trie = closed_set(generator)
    asked = [Request(ids(generator, 1, 30), constraint=trie) for _ in range(int(generator.integers(1, 6)))]
    scores = backend.choose(asked)
    offsets = generator.normal(size=len(trie.leaf)) * generator.choice([0.0, 1.0, 10.0])
    near_ties = seed % 3 == 0
    if near_ties:  # all answers of row 0 are equal within a millionth
        offsets = -scores[0] + generator.normal(size=len(trie.leaf)) * 1e-6
    for (index, value), row in zip(backend.best(asked, offsets), scores):
        total = row + offsets
        assert total[index] >= total.max() - SAME
        assert index == total.argmax() or near_ties
        assert abs(value - row[index]) < SAME


def test_best_reads_fewer_nodes_than_choose(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    trie = closed_set(generator)
    asked = [Request(ids(generator, 5, 30), constraint=trie) for _ in range(20)]
    read: list[int] = []
    walk = Backend._learn

    def counted(self, search, hidden, rows, nodes) -> None:
        read.append(len(nodes))
        walk(self, search, hidden, rows, nodes)

    monkeypatch.setattr(Backend, "_learn", counted)
    backend.best(asked, np.zeros(len(trie.leaf)))
    pruned = sum(read)
    read.clear()
    backend.choose(asked)
    assert pruned < 0.5 * sum(read)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_answers_do_not_depend_on_the_batch(folder: Path, dtype: torch.dtype, monkeypatch) -> None:
    backend = Backend(load(open_source(folder), dtype), {END})
    generator = np.random.default_rng(5)
    trie = closed_set(generator)
    asked = [Request(r.tokens, prefix=r.prefix, constraint=trie) for r in requests(5, 12)]
    more = [ids(generator, 1, 9) for _ in asked]
    together = backend.logprobs(asked, more), backend.choose(asked)
    monkeypatch.setattr(engine, "BATCH_ROWS", 1)
    monkeypatch.setattr(engine, "HEAD_ROWS", 3)
    alone = backend.logprobs(asked, more), backend.choose(asked)
    assert max(np.abs(a - b).max() for a, b in zip(together[0], alone[0])) < TOLERANCE[dtype]
    assert np.abs(together[1] - alone[1]).max() < TOLERANCE[dtype] * trie.depth.max()


def test_a_prefix_is_read_once_and_forgotten_on_demand(folder: Path, monkeypatch) -> None:
    backend = Backend(load(open_source(folder), torch.float32), {END})
    lengths: list[int] = []
    forward = type(backend.model).forward

    def counted(self, tokens, positions, attend, **more):
        lengths.append(len(positions))
        return forward(self, tokens, positions, attend, **more)

    monkeypatch.setattr(type(backend.model), "forward", counted)
    prefix = tuple(range(10, 60))
    asked = [Request((5, 6, 7), prefix=prefix), Request((8,), prefix=prefix)]
    backend.logprobs(asked, [(9,), (9,)])
    assert lengths == [50, 4]
    backend.logprobs(asked, [(9,), (9,)])
    assert lengths == [50, 4, 4]
    backend.forget()
    backend.logprobs(asked, [(9,), (9,)])
    assert lengths == [50, 4, 4, 50, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_on_or_truly_off(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = tiny.write_hf_folder(tmp_path / "biased", seed=4, attention_bias=True)
    bare = Backend(load(open_source(folder), dtype), {END})
    model = load(open_source(folder), dtype)
    lora.apply(model, r=4, alpha=8, seed=0)
    for _, layer in lora.adapters(model):
        torch.nn.init.normal_(layer.lora_B, std=0.3)
    adapted = Backend(model, {END}, "mine")
    prefix, tokens, more = tuple(range(20, 40)), (5, 6, 7), [(8, 9)]
    on, off = ([Request(tokens, adapter=name, prefix=prefix)] for name in ("mine", None))
    assert np.array_equal(adapted.logprobs(off, more)[0], bare.logprobs(off, more)[0])
    changed = adapted.logprobs(on, more)[0]
    assert np.abs(changed - bare.logprobs(off, more)[0]).max() > 0.1
    pack(model)
    assert np.abs(adapted.logprobs(on, more)[0] - changed).max() < TOLERANCE[dtype]
    assert np.abs(adapted.logprobs(off, more)[0] - bare.logprobs(off, more)[0]).max() < TOLERANCE[dtype]
    assert list(adapted.stream(on[0], 4)) == adapted.generate(on, 4)[0]
    with pytest.raises(RiyazError, match=r"adapter 'other' is not loaded; loaded: mine"):
        adapted.logprobs([Request(tokens, adapter="other")], more)


def test_packed_linears_equal_plain_ones(tmp_path: Path) -> None:
    biased = tiny.write_hf_folder(tmp_path / "biased", seed=4, attention_bias=True)
    plain, packed = (Backend(load(open_source(biased), torch.bfloat16), {END}) for _ in range(2))
    pack(packed.model)
    assert not any(isinstance(module, torch.nn.Linear) for module in packed.model.modules())
    generator = np.random.default_rng(0)
    for asked in requests(6, 3), requests(7, 40):
        more = [ids(generator, 1, 5) for _ in asked]
        for a, b in zip(plain.logprobs(asked, more), packed.logprobs(asked, more)):
            assert np.abs(a - b).max() < TOLERANCE[torch.bfloat16]


def test_progress_adds_up_to_all_requests(backend: Backend) -> None:
    asked, told = requests(8, 30), []
    backend.generate(asked, 2, told.append)
    assert sum(told) == 30


def test_a_stream_leaves_its_caller_as_it_was(backend: Backend) -> None:
    for _ in backend.stream(requests(0)[0], 3):
        assert not torch.is_inference_mode_enabled()
