"""Ternary weights in C++: products beside training's own, on every instruction set; models beside the torch engine."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiny_families
import torch
from native_models import CONTEXT, Folders, apart, folders_in, ids, lora_of, read, read_all, soft_of, theirs
from refusals import assert_refused
from transformers import BitNetConfig, BitNetForCausalLM

from riyaz import native
from riyaz.engine.native import formats
from riyaz.engine.native.load import load_runner
from riyaz.engine.native.runner import NativeRunner
from riyaz.engine.runner import Best, TokenRun
from riyaz.families import describe
from riyaz.families.ternary import Scheme
from riyaz.layers.swaps.ternary import activation_codes, ternary_product
from riyaz.sources import open_source
from riyaz.sources.ternary import ternary_codes

# Nats by which log-probabilities differ where no input of a linear is rounded to another code. The last bit of a norm
# moves a few in a thousand to the neighbouring code, which changes what follows by MOST; a SAME share of tokens
# has no such code.
LOGITS, MOST, SAME = 1e-4, 0.1, 0.75
HEAD_MEAN = {"auto": 0.02, "int8": 0.04, "int4": 0.25}  # mean difference by the embedding's own rounding
LENGTHS = (1, 5, 15, 31, 32, 70)
KINDS = ("bitnet", "bitnet+32", "llama-biases", "qwen3", "qwen3+16", "gpt2")
FORMATS = ("ternary", "trits")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    plain = folders_in(tmp_path_factory)

    @cache
    def ternary(kind: str) -> Path:
        """The model of a kind, perhaps with a group behind a plus: its linears are rounded at every forward."""
        name, _, group = kind.partition("+")
        folder = tmp_path_factory.mktemp("ternary") / name
        if name == "bitnet":
            write_bitnet(folder)
        else:
            shutil.copytree(plain(name), folder)
        config = json.loads((folder / "config.json").read_text())
        scheme = Scheme(group=int(group) if group else None)
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": scheme.to_hf()}))
        return folder

    return ternary


def write_bitnet(folder: Path) -> None:
    """A seeded BitNet of transformers, whose norms scale."""
    config = BitNetConfig(
        vocab_size=tiny_families.VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BitNetForCausalLM(config)
        for name, weight in model.named_parameters():
            torch.nn.init.normal_(
                weight, 1 if "norm" in name else 0, 0.2 if "norm" in name else weight.shape[-1] ** -0.5
            )
    model.save_pretrained(folder)


def packed(form: str, codes: np.ndarray, scales: np.ndarray, group: int = 0) -> object:
    matrix = native.extension().Matrix(form, *codes.shape, group)
    assert matrix.fill_ternary(0, codes, scales)
    return matrix


def bytes_of(form: str, codes: np.ndarray, scales: np.ndarray, group: int) -> np.ndarray:
    """The packed bytes by the words of native/kernels/layout.h."""
    rows, cols = (-(-size // 16) * 16 for size in codes.shape)
    base, width = (3, 20) if form == "trits" else (4, 16)
    raised, out = np.zeros((rows, cols + width), np.uint8), []
    raised[: len(codes), : codes.shape[1]] = codes + 1
    lanes = np.zeros((rows, scales.shape[1]), np.float32)
    lanes[: len(codes)] = scales
    for block in range(0, rows, 16):
        for g, begin in enumerate(range(0, cols, group or cols)):
            for word in range(begin, min(begin + (group or cols), cols), width):
                digits = np.zeros((16, width), np.uint8)  # behind a group there are zeros
                own = raised[block : block + 16, word : min(word + width, begin + (group or cols))]
                digits[:, : own.shape[1]] = own
                digits = digits.reshape(16, -1, 4)
                powers = base ** np.arange(digits.shape[1])[:, None]
                out.append((digits * powers).sum(1).astype(np.uint8).tobytes())
            out.append(lanes[block : block + 16, g].tobytes())
    return np.frombuffer(b"".join(out), np.uint8)


# products


@pytest.mark.parametrize("group", [0, 48, 64, 128])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", [(5, 33), (300, 330)])
def test_packed_bytes_are_those_of_the_layout(form: str, group: int, shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(-1, 2, shape, np.int8)
    groups = -(-(-(-shape[1] // 16) * 16) // group) if group else 1
    scales = generator.normal(size=(shape[0], groups)).astype(np.float32)
    matrix = packed(form, codes, scales, group)
    assert np.array_equal(matrix.data, bytes_of(form, codes, scales, group))  # type: ignore[attr-defined]
    other = "trits" if form == "ternary" else "ternary"
    assert np.array_equal(matrix.repacked(other).data, bytes_of(other, codes, scales, group))  # type: ignore[attr-defined]


@pytest.mark.parametrize("isa", native.isas())
@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 15, 16, 40])
def test_products_equal_those_of_training_bit_for_bit(isa: str, tokens: int) -> None:
    generator = np.random.default_rng(tokens)
    weight = generator.normal(size=(37, 330)).astype(np.float32)
    x = (generator.normal(size=(tokens, 330)) * np.exp(generator.normal(size=(tokens, 1)))).astype(np.float32)
    x[0, :] = 0
    made = ternary_codes(weight)
    codes, scales = activation_codes(torch.from_numpy(x))
    wanted = ternary_product(codes, torch.from_numpy(made.codes), torch.from_numpy(made.scales), None) * scales
    for form in FORMATS:
        matrix = packed(form, made.codes, np.full((37, 1), made.scales[0, 0], np.float32))
        assert np.array_equal(native.extension().product(isa, matrix, x), wanted.numpy())


@pytest.mark.parametrize("group", [16, 48, 80, 128, 256])
def test_products_with_scales_of_groups_are_near_training(group: int) -> None:
    generator = np.random.default_rng(group)
    weight, x = (generator.normal(size=(rows, 330)).astype(np.float32) for rows in (37, 20))
    made = ternary_codes(weight, group)
    codes, scales = activation_codes(torch.from_numpy(x))
    wanted = (
        ternary_product(codes, torch.from_numpy(made.codes), torch.from_numpy(made.scales), group) * scales
    ).numpy()
    matrices = [packed(form, made.codes, made.scales, group) for form in FORMATS]
    found = [[native.extension().product(isa, matrix, x) for matrix in matrices] for isa in native.isas()]
    assert apart(found[-1][0], wanted) <= 2e-6 * np.abs(x).sum(1).max()
    assert all(np.array_equal(*both) for both in found)
    assert all(np.array_equal(one, found[-1][0]) for one, _ in found[1:])  # scalar rounds products before it adds them


def test_codes_that_are_none_are_refused() -> None:
    matrix = native.extension().Matrix("trits", 4, 32)
    for codes, scales in ((np.full((4, 32), 2), (4, 1)), (np.zeros((4, 32)), (4, 2))):
        with pytest.raises(ValueError, match=r"a code is not -1, 0 or 1|the scales do not fit"):
            matrix.fill_ternary(0, codes.astype(np.int8), np.ones(scales, np.float32))
    assert not matrix.fill_ternary(0, np.zeros((4, 32), np.int8), np.full((4, 1), np.nan, np.float32))


# models


def rows_of(runner: NativeRunner, lengths: tuple[int, ...] = LENGTHS) -> list[tuple[int, ...]]:
    generator = np.random.default_rng(0)
    return [ids(generator, length, runner.vocab_size) for length in lengths]


def open_runner(path: Path, form: str = "ternary", precision: str = "fp32") -> NativeRunner:
    return load_runner(open_source(path), precision, ternary=form)


def assert_near(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    """Nearly all tokens' log-probabilities are those of the torch engine, the others near them."""
    apart_by = np.concatenate([np.abs(one - other).max(1) for one, other in zip(found, wanted, strict=True)])
    assert found[-1].std() > 0.3  # a model that says something
    assert (apart_by <= LOGITS).mean() >= SAME and apart_by.max() <= MOST, np.sort(apart_by)[-20:]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_torch_in_every_family(folders: Folders, kind: str) -> None:
    runner = open_runner(folders(kind))
    rows = rows_of(runner)
    assert_near(read_all(runner, rows), read_all(theirs(folders(kind)), rows))
    assert formats.served_as(describe(open_source(folders(kind))), "int8") == "ternary"


@pytest.mark.parametrize("kind", ["bitnet", "bitnet+80", "gpt2"])
def test_both_packings_give_the_same_numbers_in_batches_and_alone(folders: Folders, kind: str) -> None:
    runner, other = open_runner(folders(kind)), open_runner(folders(kind), "trits")
    assert runner.nbytes > other.nbytes
    rows = rows_of(runner)
    together = read_all(runner, rows)
    assert all(np.array_equal(one, two) for one, two in zip(together, read_all(other, rows), strict=True))
    assert all(np.array_equal(read(runner, row), one) for row, one in zip(rows, together, strict=True))


@pytest.mark.parametrize("precision", HEAD_MEAN)
def test_the_head_has_the_precision_and_the_linears_stay_ternary(folders: Folders, precision: str) -> None:
    source = open_source(folders("bitnet"))
    runner = load_runner(source, precision, ternary="ternary")
    assert runner.nbytes == pytest.approx(formats.packed_bytes(describe(source), precision))
    rows = rows_of(runner)
    found, wanted = read_all(runner, rows), read_all(open_runner(folders("bitnet")), rows)
    assert np.mean(np.abs(np.concatenate(found) - np.concatenate(wanted))) <= HEAD_MEAN[precision]


def test_greedy_text_equals_torch(folders: Folders) -> None:
    """The text of the torch engine in float32, but for ties."""
    for kind in ("bitnet", "qwen3"):
        runner, oracle = open_runner(folders(kind)), theirs(folders(kind))
        prompt = rows_of(runner, (12,))[0]
        sequence, tokens = runner.open(), list(prompt)
        step = prompt
        for _ in range(24):
            (best,) = runner.forward([TokenRun(sequence, tuple(step), Best())])
            wanted = read(oracle, tuple(tokens))[-1]
            assert wanted[best] >= wanted.max() - LOGITS * 2
            step = (best,)
            tokens.append(best)


@pytest.mark.parametrize("kind", ["bitnet", "gpt2"])
def test_adapters_lie_beside_ternary_weights(folders: Folders, kind: str) -> None:
    path = folders(kind)
    runner, oracle = open_runner(path), theirs(path)
    adapters = {"lora": lora_of(path, 1, 4), "soft": soft_of(path, 2, 5), "other": lora_of(path, 3, 8)}
    for name, adapter in adapters.items():
        runner.load(name, adapter), oracle.load(name, adapter)
    rows, names = rows_of(runner, (3, 40, 7, 9)), ["lora", "other", None, "soft"]
    assert_near(read_all(runner, rows, names), read_all(oracle, rows, names))
    with assert_refused("cannot be merged into a ternary model", "keep it as an adapter"):
        load_runner(open_source(path), merged=adapters["lora"])


def test_the_answers_are_right_with_plain_loops(folders: Folders, tmp_path: Path) -> None:
    """As on a CPU without AVX2: in a process of its own, since the instruction set is chosen once."""
    program = (
        "import sys, numpy as np; from riyaz.sources import open_source\n"
        "from riyaz.engine.runner import TokenRun, Whole\n"
        "from riyaz.engine.native.load import load_runner; from riyaz import native\n"
        "assert native.isa() == 'scalar' and 'torch' not in sys.modules\n"
        "runner, tokens = load_runner(open_source(sys.argv[1]), 'fp32'), tuple(range(3, 40))\n"
        "np.save(sys.argv[2], runner.forward([TokenRun(runner.open(), tokens, Whole(np.arange(len(tokens))))])[0])"
    )
    path = folders("bitnet")
    paths = os.pathsep.join(sys.path)
    variables = os.environ | {"RIYAZ_ISA": "scalar", "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", program, str(path), str(tmp_path / "x.npy")], check=True, env=variables)
    assert_near([np.load(tmp_path / "x.npy")], [read(theirs(path), tuple(range(3, 40)))])


def test_the_quicker_packing_is_measured(folders: Folders) -> None:
    runner = open_runner(folders("bitnet"))
    assert runner.model.quicker_ternary() in FORMATS
    assert runner.model.repack_ternary("trits") > 0
    assert runner.model.repack_ternary("trits") == 0 and runner.model.repack_ternary("ternary") < 0
