"""benchmarks/ternary.py: its random models are ones that both engines read, and the last line has the promised keys."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from riyaz.engine.native.load import load_runner
from riyaz.families import describe
from riyaz.sources import open_source

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark with tiny shapes under the names of the true ones."""
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("ternary")
    small = module.Shape(hidden=256, layers=2, heads=4, kv_heads=2, inner=512, vocabulary=320)
    monkeypatch.setattr(module, "SHAPES", {"2b": small, "135m": small})
    return module


@pytest.mark.parametrize("kind", ["TQ2_0", "TQ1_0"])
def test_its_random_blocks_are_ternary_weights(benchmark: ModuleType, tmp_path: Path, kind: str) -> None:
    benchmark.write(tmp_path / "x.gguf", benchmark.SHAPES["2b"], kind)
    for tensor in GGUFReader(tmp_path / "x.gguf").tensors:
        if tensor.name.startswith("blk") and len(tensor.shape) == 2:
            values = dequantize(tensor.data, tensor.tensor_type) / np.float32(np.float16(benchmark.SCALE))
            assert np.unique(values).tolist() == [-1, 0, 1]
            assert np.abs(np.bincount((values + 1).astype(int).ravel()) / values.size - 1 / 3).max() < 0.02
    family = describe(open_source(str(tmp_path / "x.gguf")))
    matrix = family.ternary("model.layers.0.mlp.down_proj.weight")
    assert matrix.group is None and matrix.codes.shape == (256, 512)


@pytest.mark.slow
def test_the_last_line_has_the_promised_keys(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ternary.py", "--rounds", "1", "--report"])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 6 and all(line.count("|") == table[0].count("|") for line in table)
    assert "| riyaz, " in table[0] and "| 0.4 |" in table[2] and "| 29 |" in table[3]
    found = json.loads(lines[-1])
    assert found.keys() == {"2b", "135m", "lora_slowdown", "cpu"}
    assert found["2b"].keys() == {"decode", "prefill", "bandwidth_share", "rss_over_packed"}
    assert found["135m"].keys() == {"decode", "prefill"} and set(found["135m"].values()) == {None}
    assert found["2b"]["rss_over_packed"] > 1 and found["2b"]["bandwidth_share"] > 0


@pytest.mark.slow
def test_memory_is_held_against_what_the_same_process_packed(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.write(tmp_path / "x.gguf", benchmark.SHAPES["2b"], "TQ2_0")
    source = open_source(str(tmp_path / "x.gguf"))
    rss, packed = benchmark.cold(source, 320)
    assert rss > packed and packed in [load_runner(source, ternary=kind).nbytes for kind in ("ternary", "trits")]
    monkeypatch.setattr(benchmark, "cold", lambda source, _: (3.0 * (1000 + benchmark.kept(source)), 1000.0))
    monkeypatch.setattr("sys.argv", ["ternary.py", "--rounds", "1", "--model", "2b"])
    benchmark.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["2b"]["rss_over_packed"] == 3
