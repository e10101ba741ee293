"""Ternary models as GGUF: gguf's own reader finds the weights that were written, riyaz the logits; what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
from gguf import GGUFReader
from gguf.quants import dequantize, quantize
from refusals import assert_refused
from tiny_comparison import command

from riyaz.export import export
from riyaz.export.ternary import pack
from riyaz.families import bitnet, describe
from riyaz.families.ternary import Scheme
from riyaz.models import save_hf
from riyaz.models.fresh import fresh
from riyaz.sources import TensorInfo, gguf_ternary, open_source
from riyaz.sources.ternary import Ternary

WIDE = {"hidden": 256, "intermediate": 512, "heads": 4, "kv_heads": 2}


def trained(folder: Path, group: int | None = None, **sizes: Any) -> Path:
    """The tiny llama as a model that was trained ternary."""
    tiny_llama.write_hf_folder(folder, seed=3, **(WIDE | sizes))
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": Scheme(group=group).to_hf()}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def written(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Type and values of every tensor, by gguf's reader."""
    reader = GGUFReader(path)
    return {item.name: (item.tensor_type.name, dequantize(item.data, item.tensor_type)) for item in reader.tensors}


@pytest.mark.parametrize("dtype", ["TQ1_0", "TQ2_0"])
@pytest.mark.parametrize("group", [None, 256])
def test_blocks_are_those_of_ggufs_quantiser(dtype: str, group: int | None) -> None:
    from gguf import GGMLQuantizationType

    generator = np.random.default_rng(0)
    codes = generator.integers(-1, 2, (5, 512), np.int8)
    scales = np.float32(np.float16(generator.random((5, 2) if group else (1, 1)) + 0.1))
    matrix = Ternary(codes, scales, group)
    made = gguf_ternary.blocks_of(dtype, matrix)
    assert np.array_equal(made, quantize(matrix.floats(), GGMLQuantizationType[dtype]))
    layout = {"TQ1_0": gguf_ternary.TQ1_0, "TQ2_0": gguf_ternary.TQ2_0}[dtype]
    again = gguf_ternary.read(TensorInfo("w", dtype, codes.shape, 0, 0), made.reshape(-1).view(layout))
    assert np.array_equal(again.codes, codes) and np.array_equal(again.scales, scales)


@pytest.mark.parametrize("dtype", ["tq2_0", "tq1_0"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_ternary_model_is_written_as_it_is(tmp_path: Path, dtype: str, packed: bool) -> None:
    folder = trained(tmp_path / "trained")
    if packed:
        pack(str(folder), tmp_path / "packed")
        folder = tmp_path / "packed"
    told = command("export", folder, "--format", "gguf", "--dtype", dtype, "--out", tmp_path / "out", "--json")
    assert told.status == 0 and told.document["divergence"] < 1e-3, told.err
    assert "rounds inputs in blocks of 256" in told.err
    before, after = describe(open_source(folder)), describe(open_source(tmp_path / "out"))
    found = written(tmp_path / "out/model.gguf")
    for name in filter(before.is_ternary, before.stored_names):
        one, other = before.ternary(name), after.ternary(name)
        assert np.array_equal(one.codes, other.codes) and other.group is None
        assert other.scales == np.float32(np.float16(one.scales.item()))
        kind, values = found[after.stored_names[name]]
        assert kind == dtype.upper() and np.array_equal(values, after.source.array(after.stored_names[name]))
    assert found["token_embd.weight"][0] == "F16" and found["output_norm.weight"][0] == "F32"


def test_groups_of_whole_blocks_keep_their_scales(tmp_path: Path) -> None:
    export(str(trained(tmp_path / "grouped", group=256)), "gguf", tmp_path / "out")
    before, after = describe(open_source(tmp_path / "grouped")), describe(open_source(tmp_path / "out"))
    for name in filter(before.is_ternary, before.stored_names):
        one, other = before.ternary(name), after.ternary(name)
        assert np.array_equal(one.codes, other.codes) and other.group == 256
        assert np.array_equal(other.scales, one.scales.astype(np.float16))


def test_a_bitnet_says_which_program_computes_its_gate(tmp_path: Path) -> None:
    config = bitnet.BitNetConfig(512, 256, 512, 1, 4, 2, 64, 1e-5, 1e4, 64, True)
    tokenizer = open_source(tiny_llama.write_hf_folder(tmp_path / "plain", seed=3)).tokenizer()
    save_hf(fresh(config, 0, ternary=True), tokenizer, tmp_path / "model")
    made = export(str(tmp_path / "model"), "gguf", tmp_path / "out")
    assert "computes SiLU in every bitnet" in made.notes[0] and made.dtype == "tq2_0"
    assert GGUFReader(tmp_path / "out/model.gguf").fields["general.architecture"].contents() == "bitnet-b1.58"


def test_what_blocks_do_not_hold_is_refused(tmp_path: Path) -> None:
    with assert_refused("a scale for every 128 columns", "one for 256", "--format hf"):
        export(str(trained(tmp_path / "grouped", group=128)), "gguf", tmp_path / "out")
    with assert_refused("is not ternary", "riyaz ternarize"):
        export(str(tiny_llama.write_hf_folder(tmp_path / "plain", seed=3)), "gguf", tmp_path / "out", "tq2_0")
    assert not (tmp_path / "out").exists()
