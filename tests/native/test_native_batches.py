"""The C++ engine in batches: whatever runs beside a request, its answer is the same to the last bit; adapters too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from native_models import (
    CONTEXT,
    Folders,
    apart,
    folders_in,
    ids,
    lora_of,
    ours,
    read,
    read_all,
    rounded,
    soft_of,
    theirs,
    whole_of,
    with_packed_pairs,
    write,
)

from riyaz.adapters import Adapter, Pair
from riyaz.engine import Request, Sampling
from riyaz.engine.engine import Engine
from riyaz.engine.native.load import load_runner
from riyaz.engine.parts import finished
from riyaz.engine.runner import Best, Hidden, Named, TokenRun, Top, Whole
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError
from riyaz.sources import open_source

END = 2
LOGITS = 1e-4  # nats from the torch runner in float32
# Nats from the torch runner in float32 with the same rounded weights and pairs, as in test_native_engine: the most, and
# the mean. Adapters make the inputs, which are rounded, larger.
NEAR = {"bf16": 0.2, "int8": 0.3, "int4": 0.3}
MEAN = {"bf16": 0.02, "int8": 0.03, "int4": 0.03}
TORCH_MEAN = 0.8  # of the mean by which torch in bfloat16 is off; the most is at most its most
KINDS = ("llama-biases", "qwen2-untied", "qwen3", "gemma3", "mistral", "gpt2")
PRECISIONS = ("fp32", "bf16", "int4")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders_in(tmp_path_factory)


def adapters_of(path: Path, kind: str) -> dict[str, Adapter]:
    """Of all kinds and of different ranks."""
    norms = ("ln_1.weight", "ln_1.bias") if kind == "gpt2" else ("input_layernorm.weight", "model.norm.weight")
    linear = "c_fc.weight" if kind == "gpt2" else "up_proj.weight"
    embedding = "wte.weight" if kind == "gpt2" else "embed_tokens.weight"
    mixed = lora_of(path, 5, 33, ("q_proj", "down_proj", "c_attn", "c_fc"))
    both = Adapter(mixed.pairs, whole_of(path, 6, norms).whole, soft_of(path, 7, 40).soft_prompt)
    return {
        "all": lora_of(path, 1, 4),
        "some": lora_of(path, 2, 16, ("q_proj", "v_proj", "up_proj", "down_proj", "c_attn", "c_proj")),
        "large": lora_of(path, 3, 48, ("gate_proj", "o_proj", "c_fc")),
        "head": lora_of(path, 4, 3, ("lm_head", "o_proj", "c_proj")),
        "norms": whole_of(path, 8, norms),
        "linear": whole_of(path, 9, (linear,)),
        "ends": whole_of(path, 10, (embedding, "lm_head.weight")),
        "embedding": whole_of(path, 11, (embedding,)),
        "soft": soft_of(path, 12, 5),
        "both": both,
    }


def requests(seed: int, count: int, vocabulary: int, adapters: tuple[str | None, ...] = (None,)) -> list[Request]:
    """Prompts of 1 to 90 tokens, some behind one of two shared prefixes, some drawn."""
    generator = np.random.default_rng(seed)
    prefixes = [(), ids(generator, 45, vocabulary), ids(generator, 3, vocabulary)]
    drawing = Sampling(temperature=0.8, top_k=20, seed=3, repetition_penalty=1.2)
    return [
        Request(i, ids(generator, int(generator.integers(1, 91)), vocabulary), prefixes[int(generator.integers(3))],
                adapters[int(generator.integers(len(adapters)))], int(generator.integers(1, 9)),
                drawing if generator.random() < 0.3 else Sampling(), frozenset({END}))
        for i in range(count)
    ]  # fmt: skip


def everything(engine: Engine, asked: list[Request], trie: Trie) -> list[tuple[Any, ...]]:
    """Answers, log-probabilities of a continuation, distributions, scores of a closed set and hidden states; to the
    last bit."""
    more = [tuple(range(5, 6 + request.id % 7)) for request in asked]
    log_p, whole = engine.logprobs(asked, more), engine.distributions(asked, more)
    closed = engine.choose([replace(request, constraint=trie) for request in asked])
    parts = zip(engine.generate(asked), log_p, whole, closed, finished(engine.hidden_states(asked)))
    return [(tokens, *(array.tobytes() for array in arrays)) for tokens, *arrays in parts]


def closed_set(generator: np.random.Generator) -> Trie:
    answers = {ids(generator, int(generator.integers(1, 5)), 9) for _ in range(15)}
    return Trie([(*answer, END) for answer in sorted(answers)])


@pytest.mark.grid
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["llama-biases", "qwen3", "gemma3", "gpt2"])
def test_batches_of_any_composition_change_no_bit(folders: Folders, kind: str, precision: str) -> None:
    engine, generator = Engine(ours(folders(kind), precision)), np.random.default_rng(1)
    trie, names = closed_set(generator), ("all", "large", "norms", "soft", "both")
    adapters = adapters_of(folders(kind), kind)
    for name in names:
        engine.load(name, adapters[name])
    asked = requests(1, 14, engine.runner.vocab_size, (None, *names))
    alone = [everything(engine, [request], trie)[0] for request in asked]
    for count in (2, 5, 9, 14):
        places = generator.permutation(14)[:count]
        found = everything(engine, [asked[i] for i in places], trie)
        for i, each in zip(places, found):
            assert [one == other for one, other in zip(each, alone[i])] == [True] * 5, (count, asked[i])
    fresh = Engine(ours(folders(kind), precision))  # after a restart, with other adapters loaded
    for name in reversed(names):
        fresh.load(name, adapters[name])
    assert everything(fresh, asked[:4], trie) == alone[:4]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("seed", range(3))
def test_runs_of_any_lengths_in_one_forward_change_no_bit(folders: Folders, seed: int, precision: str) -> None:
    """Prompts and single tokens together, long ones in several passes; results of each are as of a forward alone."""
    runner, generator = ours(folders("qwen2"), precision), np.random.default_rng(seed)
    lengths = [int(generator.choice([1, 2, 31, 32, 33, 64, 300, 511, 512, 513, 700, 1100])) for _ in range(7)]
    rows = [ids(generator, length, runner.vocab_size) for length in lengths]
    many = np.random.default_rng(9).integers(700, size=40)
    results = []
    for together in (True, False):
        opened = [runner.open() for _ in rows]
        wants = [Whole(many[many < len(row)]) if len(row) > 600 else Whole(np.array([len(row) - 1])) for row in rows]
        begun = [TokenRun(at, row[: len(row) // 3], None) for at, row in zip(opened, rows) if len(row) > 2][::2]
        run = runner.forward if together else lambda runs: [runner.forward([each])[0] for each in runs]
        run(begun)
        results.append(run([TokenRun(at, row, want) for at, row, want in zip(opened, rows, wants)]))
        for sequence in opened:
            runner.close(sequence)
    assert [one.tobytes() == other.tobytes() for one, other in zip(*results)] == [True] * 7, lengths


# adapters


@pytest.mark.parametrize("kind", KINDS)
def test_every_adapter_equals_torch_and_itself_alone(folders: Folders, kind: str) -> None:
    path, generator = folders(kind), np.random.default_rng(4)
    adapters, oracle, together = adapters_of(path, kind), theirs(path), ours(path)
    rounds, rounded_oracle, half = ours(path, "bf16"), rounded(path, "bf16"), theirs(path, torch.bfloat16)
    vocabulary = together.vocab_size
    rows = [ids(generator, length, vocabulary) for length in (1, 9, 40, 70)]
    before = read_all(together, rows)
    for name, adapter in adapters.items():
        for runner in (together, oracle, rounds):
            runner.load(name, adapter)
        for runner in (rounded_oracle, half):
            runner.load(name, with_packed_pairs(adapter))
    cases = [(name, row) for row in rows for name in (None, *adapters)]
    names, tokens = [name for name, _ in cases], [row for _, row in cases]
    mixed, wanted = read_all(together, tokens, names), read_all(oracle, tokens, names)
    mixed_bf16, *others = (read_all(runner, tokens, names) for runner in (rounds, rounded_oracle, half))
    for name, found, right in zip(names, mixed, wanted):
        assert apart(found, right) <= LOGITS, name
    for name in (None, *adapters):  # all rows together: the mean of a single token's row says little
        own = [i for i, other in enumerate(names) if other == name]
        found, right, torch_bf16 = (np.concatenate([each[i] for i in own]) for each in (mixed_bf16, *others))
        off, torch_off = np.abs(found - right), np.abs(torch_bf16 - right)
        assert off.max() <= min(NEAR["bf16"], torch_off.max()), name
        assert off.mean() <= min(MEAN["bf16"], TORCH_MEAN * torch_off.mean()), name
    for i in range(0, len(cases), 1 + len(adapters)):  # each of them changes the answers
        assert all(apart(mixed[i], other) > 0.05 for other in mixed[i + 1 : i + 1 + len(adapters)])
    for runner, found in ((ours(path), mixed), (ours(path, "bf16"), mixed_bf16)):
        for name, adapter in adapters.items():
            runner.load(name, adapter)
            own = [i for i, other in enumerate(names) if other == name]
            for i in own:
                assert np.array_equal(read(runner, tokens[i], name), found[i]), name
            runner.unload(name)
    assert all(np.array_equal(a, b) for a, b in zip(before, read_all(together, rows)))  # off is truly off


@pytest.mark.parametrize("precision", NEAR)
def test_a_lora_beside_rounded_weights_equals_torch_with_its_packed_pairs(folders: Folders, precision: str) -> None:
    path, generator = folders("llama-biases"), np.random.default_rng(6)
    lora, runner, oracle = lora_of(path, 13, 33, scale=0.5), ours(path, precision), rounded(path, precision)
    runner.load("lora", lora)
    oracle.load("lora", with_packed_pairs(lora))
    for length in (1, 9, 70):  # the last by kernels for many tokens
        row = ids(generator, length, runner.vocab_size)
        found, right = read(runner, row, "lora"), read(oracle, row, "lora")
        assert apart(found, right) <= NEAR[precision] and np.abs(found - right).mean() <= MEAN[precision]
        assert apart(found, read(runner, row)) > 1  # the adapter changes much


def test_a_rank_above_all_widths_has_room(folders: Folders) -> None:
    path, generator = folders("gemma3"), np.random.default_rng(0)
    lora, runner, oracle = lora_of(path, 1, 600, scale=0.06), ours(path, "int4"), rounded(path, "int4")
    runner.load("lora", lora)
    oracle.load("lora", with_packed_pairs(lora))
    row = ids(generator, 45, runner.vocab_size)
    found = read(runner, row, "lora")
    assert apart(found, read(oracle, row, "lora")) <= NEAR["int4"]
    assert np.array_equal(found, read_all(runner, [row[:1], row], ["lora", "lora"])[1])


def test_adapters_in_long_prompts_equal_torch(folders: Folders) -> None:
    path = folders("llama-llama3")
    runner, oracle = ours(path), theirs(path)
    for each in (runner, oracle):
        each.load("lora", lora_of(path, 1, 8))
        each.load("soft", soft_of(path, 2, 600))  # more vectors than a run is cut at
    generator = np.random.default_rng(1)
    rows, names = [ids(generator, count, 512) for count in (1, 700, 1100, 530)], ["soft", "lora", "soft", None]
    assert apart(read_all(runner, rows, names), read_all(oracle, rows, names)) <= LOGITS
    assert runner.adapter_tokens("soft") == 600 and runner.model.cache_bytes == 0


def test_a_soft_prompt_is_read_once_alone_and_behind_forks(folders: Folders) -> None:
    path, last = folders("gemma3"), Whole(np.array([0]))
    runner, oracle = ours(path), theirs(path)
    for each in (runner, oracle):
        each.load("soft", soft_of(path, 2, 37))
    sequence = runner.open("soft")
    assert runner.length(sequence) == 37
    assert runner.forward([TokenRun(sequence, ())]) == [None]  # the vectors alone
    assert runner.length(sequence) == 37
    with pytest.raises(ValueError, match="a run without tokens"):
        runner.forward([TokenRun(sequence, ())])
    behind = runner.open("soft", prefix=sequence)
    forks = [runner.fork(behind, 37), runner.fork(sequence, 30), behind]
    wanted = read(oracle, (5,), "soft")
    found = runner.forward([TokenRun(each, (5,), last) for each in forks])
    assert apart(found[0], wanted) <= LOGITS and apart(found[2], wanted) <= LOGITS
    assert apart(found[1], wanted) > 0.01  # after fewer of the vectors
    for each in (sequence, *forks):
        runner.close(each)
    assert runner.model.cache_bytes == 0
    assert apart(read(runner, (5, 6), None), read(oracle, (5, 6), None)) <= LOGITS


def test_engines_answer_alike_with_adapters_prefixes_and_closed_sets(folders: Folders) -> None:
    path, generator = folders("qwen3-biases"), np.random.default_rng(3)
    adapters, trie = adapters_of(path, "qwen3"), closed_set(generator)
    engine, oracle = Engine(ours(path)), Engine(theirs(path))
    names = ("all", "head", "soft", "both")
    for name in names:
        engine.load(name, adapters[name]), oracle.load(name, adapters[name])
    asked = requests(5, 20, 512, (None, *names))
    assert engine.generate(asked) == oracle.generate(asked)
    more = [ids(generator, 1 + i % 6, 512) for i in range(20)]
    assert apart(engine.logprobs(asked, more), oracle.logprobs(asked, more)) <= LOGITS * 2
    closed = [replace(request, constraint=trie) for request in asked]
    scores, offsets = engine.choose(closed), generator.normal(0, 3, (2, len(trie.sequences)))
    assert apart(scores, oracle.choose(closed)) <= LOGITS * 4
    for row, best in zip(offsets, engine.best_each(closed, offsets)):
        assert [index for index, _ in best] == (scores + row).argmax(1).tolist()
    assert [list(engine.stream(request)) for request in asked] == engine.generate(asked)
    for name in names:
        engine.unload(name)
    with pytest.raises(RiyazError, match="adapter 'all' is not loaded"):
        engine.generate([replace(asked[0], adapter="all")])


def test_an_adapter_that_does_not_fit_changes_nothing(folders: Folders) -> None:
    path, name = folders("llama-llama3"), "model.layers.0.self_attn.q_proj"
    runner, before = ours(path), read(ours(path), (5, 6, 7))
    pair, nothing = Pair(np.ones((2, 64), np.float32), np.ones((64, 2), np.float32), 1.0), np.zeros((3, 2), np.float32)
    wrong = {
        "nope.q_proj": Adapter({name: pair, "nope.q_proj": pair}),
        "has A": Adapter({name: Pair(pair.a[:, :32], pair.b, 1.0)}),
        "norm.weight": Adapter({name: pair}, {"model.norm.weight": np.ones(32, np.float32)}),
        "embed_tokens has A": Adapter({"model.embed_tokens": Pair(pair.a, np.ones((512, 2), np.float32), 1.0)}),
        "soft prompt": Adapter({name: pair}, soft_prompt=nothing),
        "none": Adapter({name: pair}, soft_prompt=np.zeros((CONTEXT, 64), np.float32)),
    }
    for part, adapter in wrong.items():
        with pytest.raises(RiyazError, match=f"'mine' does not fit the model: .*{part if part != 'none' else 'soft'}"):
            runner.load("mine", adapter)
    runner.load("mine", Adapter({name: Pair(pair.a, 0 * pair.b, 1.0)}))
    assert np.array_equal(read(runner, (5, 6, 7), "mine"), before)
    with pytest.raises(RiyazError, match="'mine' is loaded already"):
        runner.load("mine", Adapter())
    runner.unload("mine")
    with pytest.raises(RiyazError, match="adapter 'mine' is not loaded"):
        runner.open("mine")


def test_a_merged_adapter_is_that_adapter_loaded(folders: Folders) -> None:
    for kind in ("gpt2", "gemma3"):
        path = folders(kind)
        adapters = adapters_of(path, kind)
        both = Adapter(lora_of(path, 1, 4).pairs, adapters["norms"].whole)
        runner, merged = ours(path), load_runner(open_source(path), "fp32", both)
        runner.load("mine", both)
        row = ids(np.random.default_rng(0), 40, runner.vocab_size)
        assert apart(read(merged, row), read(runner, row, "mine")) <= LOGITS * 5


def test_an_adapter_that_overflows_is_one_line_and_harms_no_other(folders: Folders) -> None:
    path = folders("qwen3")
    wild = lora_of(path, 1, 48, ("q_proj", "gate_proj", "down_proj"), scale=1e38)
    for precision in ("fp32", "bf16"):
        runner = ours(path, precision)
        runner.load("tame", lora_of(path, 2, 3))
        wanted = read(runner, (5, 6, 7), "tame")
        runner.load("wild", wild)
        for want in (Best(), Top(2), Named(np.array([0]), np.array([4])), Hidden()):
            sequences = runner.open("wild"), runner.open("tame")
            with pytest.raises(RiyazError, match=r"not finite"):
                runner.forward([TokenRun(sequences[0], (5, 6), want), TokenRun(sequences[1], (5,), Best())])
            assert [runner.length(each) for each in sequences] == [0, 0]
            for each in sequences:
                runner.close(each)
        assert np.array_equal(read(runner, (5, 6, 7), "tame"), wanted) and runner.model.cache_bytes == 0


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("part", ["gate_proj", "up_proj"])
def test_an_adapter_may_replace_one_of_gate_and_up(tmp_path: Path, part: str, precision: str) -> None:
    path = write("qwen3", tmp_path)
    runner = ours(path, precision)
    runner.load("one", whole_of(path, 5, (f"model.layers.0.mlp.{part}.weight",)))
    row = ids(np.random.default_rng(3), 40, runner.vocab_size)
    at_once, sequence = read(runner, row, "one"), runner.open("one")
    halves = [runner.forward([TokenRun(sequence, half, Whole(np.arange(20)))])[0] for half in (row[:20], row[20:])]
    assert apart(at_once, np.concatenate(halves)) <= 0.3  # by products with many tokens, and with few
