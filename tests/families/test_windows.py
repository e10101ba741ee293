"""Families whose layers see a window, beside transformers: logits, gradients, the engine, adapters, both formats."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_window_families
import torch
from plain_layers import geglu_plain, head_loss_plain, packed_plain
from small_llama import bits, engine_of
from tiny_window_families import END, VOCABULARY, WINDOW
from torch import Tensor

from riyaz.data.packing import Row, pack
from riyaz.engine import Request
from riyaz.engine.torch.runner import TOLERANCE
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError
from riyaz.families import describe, gemma3, mistral
from riyaz.layers import attention
from riyaz.layers.attention import packed
from riyaz.layers.functions import geglu
from riyaz.layers.loss import head_loss
from riyaz.layers.swaps import lora, soft_prompt
from riyaz.models import load
from riyaz.sources import open_source
from riyaz.train import answer_nats

LOGITS, GRADIENT, SAME = 1e-4, 2e-5, TOLERANCE[torch.float32]
LENGTHS = [1, WINDOW, WINDOW + 1, 31, 2]


@dataclass(frozen=True)
class Pair:
    """One model, opened by riyaz in float32 and by transformers."""

    folder: Path
    theirs: Any

    def ours(self, dtype: torch.dtype = torch.float32) -> Any:
        return load(open_source(self.folder), dtype)

    def log_softmax(self, tokens: tuple[int, ...]) -> np.ndarray:
        """(T, V) by transformers."""
        return tiny_window_families.logits(self.theirs, torch.tensor(tokens)).log_softmax(-1).numpy()


@pytest.fixture(scope="module", params=tiny_window_families.KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder, model = tmp_path_factory.mktemp(request.param), tiny_window_families.theirs(request.param)
    model.save_pretrained(folder)
    return Pair(folder, model)


@pytest.fixture(params=[3, 512], ids=["small-blocks", "one-block"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(attention, "BLOCK", request.param)
    return request.param


def ids(generator: np.random.Generator, count: int) -> tuple[int, ...]:
    return tuple(generator.integers(3, VOCABULARY, count).tolist())


def forward(model: Any, tokens: Tensor, lengths: list[int]) -> Tensor:
    """Logits (T, V) of rows laid end to end."""
    positions = torch.cat([torch.arange(length) for length in lengths])
    return model.head(model(tokens, positions, packed(lengths)))


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("lengths", "prefix", "window"), [([9], 0, 4), ([3, 20, 1], 0, 5), ([1, 12, 7], 8, 5),
                                                           ([4, 4], 3, 6), ([5, 2], 7, 1)])  # fmt: skip
def test_attention_in_a_window_equals_its_plain_twin(blocks, lengths, prefix, window, dtype, near) -> None:
    generator, T = torch.Generator().manual_seed(0), prefix + sum(lengths)
    inputs = [torch.randn((T, heads, 8), generator=generator).to(dtype) for heads in (4, 2, 2, 4)]
    ours = [x.clone().requires_grad_() for x in inputs[:3]]
    plain = [x.clone().float().requires_grad_() for x in inputs[:3]]
    found = packed(lengths).behind(prefix)(0, *ours, window)
    wanted = packed_plain(lengths, prefix)(0, *plain, window)
    found.backward(inputs[3])
    wanted.backward(inputs[3].float())
    for a, b in zip([found, *(x.grad for x in ours)], [wanted, *(x.grad for x in plain)]):
        assert a.dtype == dtype and (a.float() - b).abs().max() <= near * b.abs().max().clamp(min=1)


def test_a_window_that_nothing_leaves_is_none() -> None:
    q, k, v = (torch.randn(12, 2, 8) for _ in range(3))
    assert torch.equal(packed([5, 4]).behind(3)(0, q, k, v, 8), packed([5, 4]).behind(3)(0, q, k, v))
    assert not torch.equal(packed([5, 4]).behind(3)(0, q, k, v, 7), packed([5, 4]).behind(3)(0, q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_geglu_and_capped_loss_equal_their_plain_twins(dtype: torch.dtype) -> None:
    x, y, weight = (3 * torch.randn(40, 16, generator=torch.Generator().manual_seed(n)) for n in range(3))
    labels, near = torch.arange(40) % 7, 1e-5 if dtype == torch.float32 else 3e-2
    for fast, plain in (
        (geglu, geglu_plain),
        (lambda a, b: head_loss(a, b, labels, 4.0), lambda a, b: head_loss_plain(a, b, labels, 4.0)),
    ):
        ours = [a.to(dtype, copy=True).requires_grad_() for a in (x, weight if plain is not geglu_plain else y)]
        wide = [a.detach().float().clone().requires_grad_() for a in ours]
        found, wanted = fast(*ours), plain(*wide)
        found.sum().backward()
        wanted.sum().backward()
        for a, b in zip([found, *(x.grad for x in ours)], [wanted, *(x.grad for x in wide)]):
            assert (a.float() - b).abs().max() <= near * b.abs().max()


def test_logits_of_rows_beyond_the_window_equal_transformers(pair: Pair, blocks: int) -> None:
    tokens = torch.tensor(ids(np.random.default_rng(0), sum(LENGTHS)))
    found = forward(pair.ours(), tokens, LENGTHS)
    assert found.std() > 0.5
    for ours, row in zip(found.split(LENGTHS), tokens.split(LENGTHS)):
        assert (ours - tiny_window_families.logits(pair.theirs, row)).abs().max() <= LOGITS


def test_bfloat16_is_near_transformers_bfloat16(pair: Pair) -> None:
    tokens = torch.tensor(ids(np.random.default_rng(1), 40))
    wanted = tiny_window_families.logits(pair.theirs, tokens)
    ours = (forward(pair.ours(torch.bfloat16), tokens, [40]).float() - wanted).abs().mean()
    rounded = type(pair.theirs).from_pretrained(pair.folder, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        assert ours <= 1.5 * (tiny_window_families.logits(rounded, tokens).float() - wanted).abs().mean()


def test_the_gradient_of_every_weight_equals_transformers(pair: Pair) -> None:
    generator, model = np.random.default_rng(2), pair.ours().requires_grad_(True)
    common = ids(generator, 9)  # shared by all rows, and more than the window
    rows = [Row((*common, *ids(generator, n)), (*ids(generator, 4), END)) for n in (1, 5, 14)]
    batch = pack(rows)
    assert batch.shared >= 9
    found = answer_nats(model, batch)
    found.backward()
    oracle = type(pair.theirs).from_pretrained(pair.folder, dtype=torch.float32).eval()
    wanted = torch.zeros(())
    for row in rows:
        tokens = torch.tensor([*row.prompt, *row.answer])
        answer = tiny_window_families.logits(oracle, tokens)[len(row.prompt) - 1 : -1]
        wanted = wanted + torch.nn.functional.cross_entropy(answer, torch.tensor(row.answer), reduction="sum")
    wanted.backward()
    assert found.item() == pytest.approx(wanted.item(), abs=LOGITS)
    expected = {name: weight.grad for name, weight in oracle.named_parameters()}
    assert {name for name, _ in model.named_parameters()} == expected.keys()
    for name, weight in model.named_parameters():
        assert (weight.grad - expected[name]).abs().max() <= GRADIENT * expected[name].abs().max(), name


def requests(generator: np.random.Generator, **more: Any) -> list[Request]:
    """Prompts within and beyond the window, behind nothing, behind less than it and behind more."""
    before = [(), ids(generator, 3), ids(generator, 17)]
    lengths = [1, 2, 3, 5, 9, 11, 25, 24]
    return [Request(i, ids(generator, n), prefix=before[i % 3], **more) for i, n in enumerate(lengths)]


def greedy(pair: Pair, request: Request, count: int) -> list[int]:
    """Greedy decoding by transformers that reads everything anew for every token."""
    tokens: list[int] = []
    while len(tokens) < count:
        token = int(pair.log_softmax((*request.prefix, *request.tokens, *tokens))[-1].argmax())
        if token == END:
            break
        tokens.append(token)
    return tokens


def test_cached_generation_equals_transformers(pair: Pair, blocks: int) -> None:
    engine, asked = engine_of(pair.ours()), requests(np.random.default_rng(3), limit=14, stop=frozenset({END}))
    wanted = [greedy(pair, request, 14) for request in asked]
    assert engine.generate(asked) == wanted
    assert list(engine.stream(asked[2])) == wanted[2]


def test_logprobs_and_closed_sets_equal_transformers(pair: Pair, blocks: int) -> None:
    engine, generator = engine_of(pair.ours()), np.random.default_rng(4)
    answers = sorted({ids(generator, n) for n in (1, 2, 4, 9, 9)} | {(5, 6, 7), (5, 6, 8), (5, 6, 8, 9, 9, 9, 9, 9, 3)})
    trie = Trie([(*answer, END) for answer in answers])
    asked = requests(generator, constraint=trie)
    more = [ids(generator, 1 + 3 * i) for i in range(len(asked))]
    rows = engine.logprobs(asked, more)
    for request, answer, row, scores in zip(asked, more, rows, engine.choose(asked)):
        start = (*request.prefix, *request.tokens)
        wanted = pair.log_softmax((*start, *answer))[len(start) - 1 : -1]
        assert np.abs(row - wanted[np.arange(len(answer)), answer]).max() < SAME
        for sequence, score in zip(trie.sequences, scores):
            wanted = pair.log_softmax((*start, *sequence))[len(start) - 1 : -1]
            assert abs(score - wanted[np.arange(len(sequence)), sequence].sum()) < len(sequence) * SAME
    best = engine.best(asked, np.zeros(len(trie.leaf)))
    assert [index for index, _ in best] == engine.choose(asked).argmax(1).tolist()


@pytest.mark.parametrize("count", [2, WINDOW + 4])
def test_a_soft_prompt_equals_transformers_behind_its_vectors(pair: Pair, count: int) -> None:
    model, generator = pair.ours(), np.random.default_rng(5)
    prompted = soft_prompt.apply(model, ids(generator, count))
    with torch.no_grad():
        prompted.prompt += 0.3 * torch.randn(prompted.prompt.shape, generator=torch.Generator().manual_seed(0))
    rows = [ids(generator, n) for n in (1, 8, 19)]
    lengths = [len(row) for row in rows]
    found = forward(prompted, torch.tensor([token for row in rows for token in row]), lengths).split(lengths)
    engine = engine_of(prompted)
    for row, ours in zip(rows, found):
        vectors = pair.theirs.get_input_embeddings()(torch.tensor(row))
        with torch.no_grad():
            wanted = tiny_window_families.logits(pair.theirs, embeddings=torch.cat((prompted.prompt, vectors)))[count:]
        assert (ours - wanted).abs().max() <= LOGITS
        (cached,) = engine.logprobs([Request(0, row[:1], adapter="mine")], [(*row[1:], 5)])
        assert np.abs(cached - wanted.log_softmax(-1).numpy()[range(len(row)), (*row[1:], 5)]).max() < SAME


def test_an_adapter_equals_its_merged_weights(pair: Pair) -> None:
    model, tokens = pair.ours(), torch.tensor(ids(np.random.default_rng(6), 30))
    plain = forward(model, tokens, [30])
    lora.apply(model, r=2, alpha=4, seed=0)
    assert torch.equal(forward(model, tokens, [30]), plain)
    for _, layer in lora.lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.3)
    adapted = forward(model, tokens, [30])
    assert (adapted - plain).abs().max() > 0.1
    lora.merge(model)
    assert (forward(model, tokens, [30]) - adapted).abs().max() < LOGITS
    pair.theirs.load_state_dict(model.state_dict())
    try:
        assert (tiny_window_families.logits(pair.theirs, tokens) - adapted).abs().max() < LOGITS
    finally:
        pair.theirs.load_state_dict(pair.ours().state_dict())


def test_names_shapes_and_configuration_are_those_of_transformers(pair: Pair, tmp_path: Path) -> None:
    from transformers import AutoConfig

    family = describe(open_source(pair.folder))
    module = {"gemma3": gemma3, "mistral": mistral}[family.model_type]
    state = {name: tuple(tensor.shape) for name, tensor in pair.theirs.state_dict().items()}
    if family.config.tie_word_embeddings:
        del state["lm_head.weight"]
    assert module.layer_plan(family.config) == state
    (tmp_path / "config.json").write_text(json.dumps(module.to_hf(family.config)))
    read = AutoConfig.from_pretrained(tmp_path)
    assert module.from_hf(read.to_dict()) == module.from_hf(module.to_hf(family.config)) == family.config
    assert type(read) is type(pair.theirs.config)


def test_gemma_in_gguf_is_the_folder_to_the_bit_and_what_transformers_reads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = tiny_window_families.theirs("gemma3", num_hidden_layers=7, layer_types=None, query_pre_attn_scalar=16)
    theirs.save_pretrained(tmp_path / "hf")
    path = tiny_window_families.write_gguf(tmp_path / "tiny.gguf", theirs)
    folder, file = open_source(tmp_path / "hf"), open_source(path)
    assert describe(folder).config == describe(file).config
    assert describe(file).config.local == (True,) * 5 + (False, True)
    assert bits(load(file, torch.float32).state_dict()) == bits(load(folder, torch.float32).state_dict())
    assert bits(load(file, torch.float32).state_dict()) == bits(theirs.state_dict())
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    assert bits(read.state_dict()) == bits(theirs.state_dict())


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("gemma3", {"model_type": "gemma3"}, "model_type is 'gemma3', riyaz supports only gemma3_text"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ("gemma3", {"layer_types": ["full_attention"]}, "layer_types names 1 layers of 3"),
        ("gemma3", {"layer_types": [["x"]] * 3}, "layer_types is"),
        ("gemma3", {"layer_types": None, "sliding_window_pattern": 0}, "sliding_window_pattern is 0"),
        ("gemma3", {"sliding_window": -1}, "sliding_window is -1"),
        ("gemma3", {"final_logit_softcapping": "x"}, "final_logit_softcapping is 'x'"),
        ("gemma3", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "RoPE scaling 'yarn'"),
        ("gemma3", {"num_hidden_layers": "x"}, "num_hidden_layers is 'x'"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0"),
        ("mistral", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("mistral", {"vocab_size": None}, "vocab_size is missing"),
    ],
)
def test_configurations_that_cannot_be_run_are_one_line(kind: str, changes: dict, said: str) -> None:
    settings = tiny_window_families.theirs(kind).config.to_dict() | changes
    with pytest.raises(RiyazError) as caught:
        {"gemma3": gemma3, "mistral": mistral}[kind].from_hf(settings)
    assert said in str(caught.value) and str(caught.value).isprintable()


def test_mistral_without_a_window_sees_everything(tmp_path: Path) -> None:
    theirs = tiny_window_families.theirs("mistral", sliding_window=None)
    theirs.save_pretrained(tmp_path)
    model, tokens = load(open_source(tmp_path), torch.float32), torch.tensor(ids(np.random.default_rng(7), 40))
    assert model.config.window is None
    assert (forward(model, tokens, [40]) - tiny_window_families.logits(theirs, tokens)).abs().max() <= LOGITS
    assert replace(model.config, window=WINDOW) == mistral.from_hf({**mistral.to_hf(model.config), "sliding_window": 6})
    with pytest.raises(RiyazError, match="must be llama"):
        mistral.from_gguf({}, {})
