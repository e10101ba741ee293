"""benchmarks/random_llama.py: llama.cpp's mix in blocks that the `gguf` package reads, and models that are measured."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from load_script import load_script

from riyaz.families import describe
from riyaz.sources import Source, gguf_write, open_source

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def random_llama() -> ModuleType:
    return load_script("benchmarks/random_llama.py")


@pytest.fixture(scope="module")
def source(random_llama: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("random") / "tiny.gguf"
    random_llama.write(path, "tiny")
    return open_source(path)


@pytest.fixture(scope="module")
def scripts() -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)  # training.py imports the modules beside it
        names = ("inference", "inference_sides", "training")
        yield tuple(load_script(f"benchmarks/{name}.py") for name in names)  # type: ignore[misc]


def test_every_matrix_has_unit_size_and_the_values_that_the_gguf_package_reads(source: Source) -> None:
    for tensor in GGUFReader(source.path).tensors:
        values = source.array(tensor.name)
        theirs = dequantize(tensor.data, tensor.tensor_type).reshape(values.shape)
        np.testing.assert_array_equal(values, theirs)
        if values.ndim > 1:
            spread = values.std() * values.shape[1] ** 0.5
            assert 0.97 < spread < 1.03 and abs(values.mean()) < 0.05 * values.std(), tensor.name
        else:
            assert (values == 1).all()


def test_the_types_are_llama_cpps(source: Source, random_llama: ModuleType) -> None:
    types = {name: info.dtype for name, info in source.tensors.items()}
    assert types["token_embd.weight"] == "Q4_K" and types["output.weight"] == "Q6_K"
    # of three layers the last has more bits
    assert [types[f"blk.{layer}.ffn_down.weight"] for layer in range(3)] == ["Q4_K", "Q4_K", "Q6_K"]
    assert source.metadata["general.file_type"] == 15
    config = random_llama.config_of("1.1b")
    assert sum(np.prod(shape) for shape in random_llama.llama.layer_plan(config).values()) == 1_100_048_384


def test_the_same_seed_gives_the_same_bytes_and_the_tokenizer_is_padded(
    random_llama: ModuleType, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = {}
    for name, seed in (("again", "0"), ("other", "1")):
        written[name] = tmp_path / f"{name}.gguf"
        words = ["random_llama.py", "--size", "tiny", "--seed", seed, "--out", str(written[name])]
        monkeypatch.setattr(sys, "argv", words)
        random_llama.main()
    first = source.path.read_bytes()
    assert written["again"].read_bytes() == first != written["other"].read_bytes()
    tokenizer, text = source.tokenizer(), "The baker opens at seven: cafe\u0301 🙂"
    assert tokenizer.vocab_size == describe(source).config.vocab_size == 512
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and max(ids) < 384 and len(ids) < len(text.encode())


def test_one_tensor_is_in_memory_at_a_time(random_llama: ModuleType, tmp_path: Path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(random_llama, "BLOCKS", {kind: lambda *_: drawn.append(1) for kind in ("Q4_K", "Q6_K")})
    monkeypatch.setattr(gguf_write, "write", lambda path, metadata, tensors: path.write_bytes(bytes(len(tensors))))
    random_llama.write(tmp_path / "model.gguf", "tiny")
    assert not drawn and (tmp_path / "model.gguf").stat().st_size == 3 * 9 + 3


def test_both_benchmarks_take_the_file(source: Source, scripts, tmp_path: Path) -> None:
    inference, sides, training = scripts
    piece = next(inference.pieces(source))
    riyaz = sides.Riyaz(str(source.path), "auto")
    assert len(piece) == 512 and riyaz.decode([piece[:128]], 4)["tokens"] == 4 and riyaz.prefill(piece)["tokens"] == 512
    training.prepare(argparse.Namespace(model=str(source.path), even=None, length=None, steps=1), tmp_path)
    rows = json.loads((tmp_path / "mixed.json").read_text())
    assert len(rows) == 24 and describe(open_source(tmp_path / "model")).config.vocab_size == 512


def test_a_missing_folder_is_one_line(random_llama: ModuleType, tmp_path: Path, monkeypatch, capsys) -> None:
    words = ["random_llama.py", "--size", "tiny", "--out", str(tmp_path / "missing" / "m.gguf")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(random_llama, "write", lambda *_: pytest.fail("nothing is drawn first"))
    with pytest.raises(SystemExit) as caught:
        random_llama.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and line == f"error: {tmp_path / 'missing'}: no such folder"


@pytest.mark.parametrize(
    ("words", "said"), [(["--out", "m.bin"], "m.bin"), (["--out", "m.gguf", "--seed", "-1"], "-1")]
)
def test_a_wrong_option_is_named(random_llama: ModuleType, words, said, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["random_llama.py", *words])
    with pytest.raises(SystemExit) as caught:
        random_llama.main()
    assert caught.value.code == 2 and said in capsys.readouterr().err
