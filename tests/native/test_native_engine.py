"""The C++ runner against the torch runner: every family and precision, caches, forks, limits and errors."""

import threading
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tiny_llama
from native_models import KINDS, Folders, apart, folders_in, ids, ours, read, read_all, rounded, theirs
from refusals import assert_refused

from riyaz import hardware, native
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.native import formats, plan
from riyaz.engine.native.load import _matrix, pack
from riyaz.engine.native.runner import NativeRunner
from riyaz.engine.runner import Best, Hidden, Named, TokenRun, Top, Whole
from riyaz.errors import RiyazError
from riyaz.families import ModelConfig, bitnet, describe
from riyaz.sources import open_source
from riyaz.sources.tensor_files import float32

LOGITS = 1e-4  # nats by which a log-probability in float32 may differ from the torch runner's
# and in the other precisions, from the torch runner in float32 with the same rounded weights: the most, and the mean.
# Inputs of products are rounded to bf16, and for int8 and int4 to 8 bits, as are weights of int4 where a run is long.
NEAR = {"bf16": 0.1, "int8": 0.3, "int4": 0.3}
MEAN = {"bf16": 0.008, "int8": 0.02, "int4": 0.026}
LENGTHS = (1, 5, 31, 32, 70)  # the last two in tiles, where the CPU has any


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders_in(tmp_path_factory)


@pytest.fixture(scope="module")
def plain(folders: Folders) -> Path:
    """A llama with biases and a head of its own."""
    return folders("llama-biases")


def rows_of(runner: NativeRunner, lengths: tuple[int, ...], seed: int = 0) -> list[tuple[int, ...]]:
    generator = np.random.default_rng(seed)
    return [ids(generator, length, runner.vocab_size) for length in lengths]


# every family


@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_torch_in_every_family(folders: Folders, kind: str) -> None:
    runner = ours(folders(kind))
    rows = rows_of(runner, LENGTHS)
    found = read_all(runner, rows)
    assert found[-1].std() > 0.3  # a model that says something
    assert apart(found, read_all(theirs(folders(kind)), rows)) <= LOGITS


@pytest.mark.grid
@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize("kind", KINDS)
def test_rounded_logits_are_near_torch_with_rounded_weights(folders: Folders, kind: str, precision: str) -> None:
    runner = ours(folders(kind), precision)
    rows = rows_of(runner, LENGTHS)
    found, wanted = read_all(runner, rows), read_all(rounded(folders(kind), precision), rows)
    assert apart(found, wanted) <= NEAR[precision]
    assert np.mean(np.abs(np.concatenate(found) - np.concatenate(wanted))) <= MEAN[precision]


@pytest.mark.parametrize("kind", ["llama-llama3", "gpt2", "gemma3", "mistral"])
def test_long_prompts_equal_torch(folders: Folders, kind: str) -> None:
    runner, oracle = ours(folders(kind)), theirs(folders(kind))
    rounds = ours(folders(kind), "bf16")
    for lengths in ((513, 3), (1030, 1030, 40), (1700,)):  # a run is cut at 512 tokens, a pass at 1024
        rows = rows_of(runner, lengths, seed=len(lengths))
        wanted = read_all(oracle, rows)
        assert apart(read_all(runner, rows), wanted) <= LOGITS
        assert apart(read_all(rounds, rows), wanted) <= 2 * NEAR["bf16"]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_one_by_one_equal_one_run(folders: Folders, kind: str) -> None:
    for precision in ("fp32", "bf16"):
        runner = ours(folders(kind), precision)
        (row,) = rows_of(runner, (40,))
        together, sequence = read(runner, row), runner.open()
        last = Whole(np.array([0]))
        alone = np.concatenate([runner.forward([TokenRun(sequence, (token,), last)])[0] for token in row])
        if precision == "fp32":  # in bf16 a run of 40 tokens may go through tiles
            assert np.array_equal(alone, together)
            continue
        assert apart(alone, together) <= NEAR["bf16"]
        assert np.array_equal(alone[:31], read(runner, row[:31]))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_files_of_llama_cpp_are_served_as_they_are(tmp_path: Path, dtype: str) -> None:
    path = tiny_llama.write_gguf(tmp_path / "tiny.gguf", seed=3, dtype=dtype)
    (row,) = rows_of(ours(path, "auto"), (60,))
    wanted = read(theirs(path), row)
    assert apart(read(ours(path), row), wanted) <= LOGITS
    assert apart(read(ours(path, "auto"), row), wanted) <= NEAR["int4"]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q4_1"])
def test_matrices_packed_piece_by_piece_have_the_same_bytes(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file has the rows of q and k in another order."""
    family = describe(open_source(tiny_llama.write_gguf(tmp_path / "tiny.gguf", seed=3, dtype=dtype)))
    names = [name for name in family.stored_names if len(family.source.tensors[family.stored_names[name]].shape) == 2]
    monkeypatch.setattr(formats, "PIECE", 40)  # pieces of 16 rows
    for name in names:
        whole, _ = pack("bf16", float32(*family.array(name)))
        matrix, finite = _matrix(family, name, family.source.tensors[family.stored_names[name]].dtype, "bf16")
        assert finite and np.array_equal(matrix.data, whole.data), name


def test_a_number_that_is_none_is_seen_in_the_first_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_llama.write_gguf(tmp_path / "tiny.gguf", seed=3)
    at = open_source(path).tensors["token_embd.weight"].offset
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(np.float32(np.nan).tobytes())
    monkeypatch.setattr(formats, "PIECE", 40)
    for precision in ("bf16", "int8"):
        with assert_refused("token_embd.weight' holds nan at [0, 0]"):
            ours(path, precision)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_the_number_of_threads_changes_no_answer(
    folders: Folders, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("qwen3", "gpt2-untied"):
        runner = ours(folders(kind), "bf16")
        rows = rows_of(runner, LENGTHS)
        wanted = read_all(runner, rows)
        monkeypatch.setattr(hardware, "threads", lambda: threads)
        found = read_all(ours(folders(kind), "bf16"), rows)
        assert all(np.array_equal(one, other) for one, other in zip(found, wanted))


# sequences


@pytest.mark.parametrize("kind", ["llama-biases", "gemma3", "gpt2"])
def test_a_sequence_goes_on_from_any_length_of_another(folders: Folders, kind: str) -> None:
    runner, oracle = ours(folders(kind)), theirs(folders(kind))
    (tokens,) = rows_of(runner, (70,))
    last, before = Whole(np.array([0])), runner.open()
    runner.forward([TokenRun(before, tokens[:33])])
    behind = runner.open(prefix=before)
    runner.forward([TokenRun(behind, tokens[33:])])
    for length in (0, 3, 32, 33, 34, 64, 70):
        forked = runner.fork(behind, length)
        children = [runner.fork(forked, length + 1) for _ in range(3)]  # their parent's token comes in the same pass
        assert runner.length(forked) == length and runner.length(children[0]) == length + 1
        found = runner.forward(
            [TokenRun(forked, (9,), last), *(TokenRun(child, (5 + i,), last) for i, child in enumerate(children))]
        )
        for i, row in enumerate(found[1:]):
            wanted = read(oracle, (*tokens[:length], 9, 5 + i))
            assert apart(found[0][0], wanted[-2]) <= LOGITS and apart(row[0], wanted[-1]) <= LOGITS
        for sequence in (forked, *children):
            runner.close(sequence)
    wanted = read(oracle, (*tokens, 4))[-1]
    assert apart(runner.forward([TokenRun(behind, (4,), last)])[0][0], wanted) <= LOGITS
    for sequence in (before, behind):
        runner.close(sequence)
    assert runner.model.cache_bytes == 0


def test_a_fork_of_a_run_that_is_cut_and_of_many_passes(plain: Path) -> None:
    runner, oracle = ours(plain), theirs(plain)
    long, other = rows_of(runner, (900, 700))
    last, parent, beside = Whole(np.array([0])), runner.open(), runner.open()
    runner.forward([TokenRun(parent, (7,)), TokenRun(beside, (8,))])
    child = runner.fork(parent, 600)  # in the second piece of the parent's run
    found = runner.forward(
        [TokenRun(parent, long, Best()), TokenRun(beside, other, Best()), TokenRun(child, (5,), last)]
    )
    assert apart(found[2][0], read(oracle, (7, *long[:599], 5))[-1]) <= LOGITS
    assert found[0] == read(oracle, (7, *long))[-1].argmax()
    for sequence in (parent, beside, child):
        runner.close(sequence)
    assert runner.model.cache_bytes == 0


def test_a_fork_that_was_not_run_is_forked_and_shared(plain: Path) -> None:
    runner, oracle = ours(plain), theirs(plain)
    (tokens,) = rows_of(runner, (45,))
    last, parent = Whole(np.array([0])), runner.open()
    runner.forward([TokenRun(parent, tokens)])
    child = runner.fork(parent, 40)
    starts = {runner.fork(child, 12): 12, runner.open(prefix=runner.fork(parent, 35)): 35, child: 40}
    starts[runner.open(prefix=parent)] = 45
    runner.close(parent)
    for row, length in zip(runner.forward([TokenRun(sequence, (9,), last) for sequence in starts]), starts.values()):
        assert apart(row[0], read(oracle, (*tokens[:length], 9))[-1]) <= LOGITS


def test_closing_gives_pages_back_in_any_order(plain: Path) -> None:
    runner, generator = ours(plain, "bf16"), np.random.default_rng(0)
    wanted = read(runner, tuple(range(10, 60)))
    for _ in range(6):
        opened: list[int] = []
        for _ in range(12):
            from_ = generator.choice(opened) if opened and generator.random() < 0.6 else None
            if from_ is None:
                opened.append(runner.open())
            elif generator.random() < 0.5:
                opened.append(runner.open(prefix=int(from_)))
            else:
                opened.append(runner.fork(int(from_), int(generator.integers(runner.length(int(from_)) + 1))))
            runner.forward([TokenRun(opened[-1], ids(generator, int(generator.integers(1, 70)), 512))])
            if generator.random() < 0.2:
                runner.close(opened.pop(int(generator.integers(len(opened)))))
        assert runner.model.cache_bytes > 0
        for at in generator.permutation(len(opened)):
            runner.close(opened[at])
        assert runner.model.cache_bytes == 0
    assert np.array_equal(read(runner, tuple(range(10, 60))), wanted)


# what is wanted


@pytest.mark.parametrize("kind", ["llama-biases", "gemma3-scaled", "gpt2"])
def test_every_kind_of_result_equals_torch(folders: Folders, kind: str) -> None:
    runner, oracle, generator = ours(folders(kind)), theirs(folders(kind)), np.random.default_rng(3)
    vocabulary = runner.vocab_size
    seen = tuple(sorted(set(ids(generator, 30, vocabulary))))
    for length in (1, 20, 150):
        row = ids(generator, length, vocabulary)
        at, names = generator.integers(length, size=70), generator.integers(vocabulary, size=70)
        few = np.array([0, length - 1, 0])
        wants = [Best(), Top(1), Top(7), Top(vocabulary + 5), Top(9, seen, 1.3), Top(vocabulary, seen, 0.5),
                 Named(at, names), Named(at[:1], names[:1]), Named(at[:0], names[:0]), Whole(few), Hidden(),
                 None]  # fmt: skip
        results = []
        for each in (runner, oracle):
            opened = [each.open() for _ in wants]
            results.append(each.forward([TokenRun(s, row, want) for s, want in zip(opened, wants)]))
            for sequence in opened:
                each.close(sequence)
        found, wanted = results
        assert found[0] == wanted[0] == found[1][0][0] and isinstance(found[0], int)
        for one, other in zip(found[1:6], wanted[1:6]):
            assert np.array_equal(one[0], other[0]) and apart(one[1], other[1]) <= LOGITS
        for one, other in zip(found[6:11], wanted[6:11]):
            assert one.dtype == np.float32 and (one.size == 0 or apart(one, other) <= LOGITS)
        assert found[11] is wanted[11] is None
        assert apart(found[6], found[3][1][np.argsort(found[3][0])][names] if length == 1 else wanted[6]) <= LOGITS


@pytest.mark.parametrize(
    "threads", [1, 2, 3]
)  # the tokens that tie are in parts of the vocabulary of one thread or of two
def test_ties_go_to_the_lower_token(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "threads", lambda: threads)
    path = tiny_llama.write_hf_folder(tmp_path / "tied", seed=1)
    arrays = tiny_llama.weights(tiny_llama.Tiny(seed=1))
    embedding = arrays["model.embed_tokens.weight"]
    best = int(read(ours(path), (5, 6))[-1].argmax())
    embedding[[3, 200, 511]] = 1.5 * embedding[best]  # the same logit, larger than all
    tiny_llama.write_safetensors(path / "model.safetensors", arrays)
    runner = ours(path)
    opened = [runner.open(), runner.open()]
    found = runner.forward([TokenRun(opened[0], (5, 6), Best()), TokenRun(opened[1], (5, 6), Top(4))])
    assert found[0] == 3 and found[1][0][:3].tolist() == [3, 200, 511]


# errors and limits


def damaged(tmp_path: Path, name: str, value: float, row: int = 1) -> Path:
    path = tiny_llama.write_hf_folder(tmp_path / "damaged", seed=2)
    arrays = tiny_llama.weights(tiny_llama.Tiny(seed=2))
    arrays[name][row] = value
    tiny_llama.write_safetensors(path / "model.safetensors", arrays)
    return path


@pytest.mark.parametrize("precision", ["fp32", "auto", "int8", "int4"])
@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"]
)
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, name: str, precision: str) -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(RiyazError, match=name) as caught:
            ours(damaged(tmp_path, name, value), precision)
        assert "\n" not in str(caught.value)


def overflowing(path: Path, precision: str) -> Path:
    """A model that overflows from token 77 on, and at no other: 77 alone has a first dimension, whose product with gate
    and up is infinite; where weights have scales in half precision, 77's embedding is."""
    tiny_llama.write_hf_folder(path, seed=2, tie=False)
    arrays = tiny_llama.weights(tiny_llama.Tiny(seed=2, tie=False))
    arrays["model.embed_tokens.weight"][:, 0] = 0
    arrays["model.embed_tokens.weight"][77] = 1 if precision in ("fp32", "bf16") else 1e30
    arrays["model.layers.0.self_attn.o_proj.weight"][0] = 0
    if precision in ("fp32", "bf16"):
        for part in ("gate", "up"):
            arrays[f"model.layers.0.mlp.{part}_proj.weight"][:, 0] = 1e30
    tiny_llama.write_safetensors(path / "model.safetensors", arrays)
    return path


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_what_overflows_is_one_line_and_changes_nothing(tmp_path: Path, precision: str) -> None:
    runner = ours(overflowing(tmp_path / "it", precision), precision)
    (row,), last = rows_of(runner, (40,)), Whole(np.array([0]))
    assert 77 not in row
    sequence, beside = runner.open(), runner.open()
    runner.forward([TokenRun(sequence, row), TokenRun(beside, row)])
    (wanted,) = runner.forward([TokenRun(beside, (5,), last)])
    held = runner.model.cache_bytes
    for want in (Best(), Top(3), Named(np.array([1]), np.array([9])), Whole(np.array([1])), Hidden()):
        for tokens in ((77, 5), (77, *row)):
            with pytest.raises(RiyazError, match="not finite") as caught:
                runner.forward([TokenRun(beside, (6,)), TokenRun(sequence, tokens, want)])
            assert "\n" not in str(caught.value)
            assert [runner.length(each) for each in (sequence, beside)] == [40, 41]
            assert runner.model.cache_bytes == held
    assert np.array_equal(runner.forward([TokenRun(sequence, (5,), last)])[0], wanted)


def test_a_full_cache_is_one_line_and_nothing_is_lost(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = 2 * 2 * 2 * 32 * 32 * 4  # K and V, layers, heads, slots, padded head size, float32
    free = 20 * page + int(formats.packed_bytes(describe(open_source(plain)), "fp32"))
    monkeypatch.setattr(hardware, "memory", lambda: hardware.Memory(free, free))
    runner, oracle = ours(plain), theirs(plain)  # half of what is free beside the weights: 10 pages
    rows = rows_of(runner, (64, 100, 40, 700))
    first, second, third = (runner.open() for _ in range(3))
    runner.forward([TokenRun(first, rows[0]), TokenRun(second, rows[1])])  # 2 + 4 pages
    assert runner.model.cache_bytes == 6 * page
    for more in (rows[3], rows[3] * 2):
        with pytest.raises(RiyazError, match=r"keys and values need .* MB, the limit is 0\.\d MB") as caught:
            runner.forward(
                [TokenRun(first, (5,), Best()), TokenRun(third, more, Best()), TokenRun(second, (6,), Best())]
            )
        assert "\n" not in str(caught.value) and runner.model.cache_bytes == 6 * page
    child = runner.fork(second, 101)  # its parent's last token was to come in the same pass
    with pytest.raises(RiyazError, match="keys and values need"):
        runner.forward([TokenRun(second, (6,), Best()), TokenRun(child, rows[3], Best())])
    assert [runner.length(sequence) for sequence in (first, second, third, child)] == [64, 100, 0, 101]
    runner.close(child)
    last = Whole(np.array([0]))
    found = runner.forward([TokenRun(first, (5,), last), TokenRun(third, rows[2], last), TokenRun(second, (6,), last)])
    for one, row in zip(found, ((*rows[0], 5), rows[2][:1], (*rows[1], 6))):
        assert apart(one[0], read(oracle, row)[-1]) <= LOGITS


def test_what_is_outside_the_model_is_refused(plain: Path) -> None:
    runner = ours(plain)
    sequence = runner.open()
    for tokens in ((512,), (5, -1)):
        with pytest.raises(ValueError, match=f"token {tokens[-1]} is not in the vocabulary"):
            runner.forward([TokenRun(sequence, tokens, Best())])
    with pytest.raises(ValueError, match="a name is not in the vocabulary"):
        runner.forward([TokenRun(sequence, (5,), Named(np.array([0]), np.array([512])))])
    with pytest.raises(ValueError, match="outside its run"):
        runner.forward([TokenRun(sequence, (5,), Named(np.array([1]), np.array([9])))])
    with pytest.raises(ValueError, match="a run without tokens"):
        runner.forward([TokenRun(sequence, (), Best())])
    with pytest.raises(ValueError, match="beyond the context"):
        runner.forward([TokenRun(sequence, (5,) * (runner.context + 1))])
    assert runner.length(sequence) == 0 and runner.model.cache_bytes == 0
    runner.close(sequence)
    with pytest.raises((RiyazError, IndexError)):
        runner.forward([TokenRun(sequence, (5,))])


def test_families_fill_all_slots_and_settings_of_the_model_and_no_other(folders: Folders) -> None:
    extension, slots = native.extension(), {True: set[str](), False: set[str]()}
    configs = [describe(open_source(folders(kind))).config for kind in KINDS]
    configs.append(bitnet.fresh_config(vocab=64, context=32, layers=2, heads=2, width=32))
    assert {type(config) for config in configs} == {*get_args(ModelConfig)}
    for config in configs:
        extension.Model(plan.settings(config, True, "fp32"), 1, 1 << 20)
        for layer, slot in plan.places(config).values():
            slots[layer < config.n_layers].add(slot)
    assert slots == {True: {*extension.LAYER_SLOTS}, False: {*extension.OUTER_SLOTS}}
    with pytest.raises(ValueError, match="an unknown setting"):
        extension.Model(plan.settings(configs[0], True, "fp32") | {"width": 4}, 1, 1 << 20)


def test_the_whole_context_may_be_used(plain: Path) -> None:
    runner = ours(plain, "bf16")
    sequence = runner.open()
    runner.forward([TokenRun(sequence, (5,) * (runner.context - 1))])
    assert isinstance(runner.forward([TokenRun(sequence, (6,), Best())])[0], int)
    with pytest.raises(ValueError, match="beyond the context"):
        runner.forward([TokenRun(sequence, (7,), Best())])


# several engines and threads


def test_two_engines_do_not_disturb_each_other(folders: Folders) -> None:
    kinds, generator = ("qwen2", "gemma3"), np.random.default_rng(5)
    asked = [Request(i, ids(generator, 3 + 9 * i, 64), limit=8) for i in range(6)]
    alone = [Engine(ours(folders(kind), "bf16")).generate(asked) for kind in kinds]
    one, two = (Engine(ours(folders(kind), "bf16")) for kind in kinds)
    streams = [[engine.stream(request) for request in asked] for engine in (one, two)]
    found: list[list[list[int]]] = [[], []]
    for left, right in zip(*streams):
        left, right = iter(left), iter(right)
        found[0].append([]), found[1].append([])
        for _ in range(8):  # a token of one, a token of the other
            found[0][-1].append(next(left)), found[1][-1].append(next(right))
    assert found == alone


def test_an_engine_serves_one_thread_after_the_other(folders: Folders) -> None:
    engine = Engine(ours(folders("qwen3"), "bf16"))
    asked, answers = [Request(i, tuple(range(5, 9 + 30 * i)), limit=8) for i in range(3)], []
    for _ in range(3):
        thread = threading.Thread(target=lambda: answers.append(engine.generate(asked)))
        thread.start()
        thread.join()
    assert answers == [engine.generate(asked)] * 3
