"""`riyaz quantize`: small weights in a file that is served as it is, measured against bf16."""

import math
from pathlib import Path

import comparing
import numpy as np
import pytest
import tiny
from conftest import Finished
from expect import assert_refused

from riyaz.artifact import Artifact
from riyaz.engine.native.load import load_runner
from riyaz.export import quantize as module
from riyaz.export.quantize import quantize
from riyaz.families import describe
from riyaz.predictor import open_target
from riyaz.sources import open_source

HALF_STEP = {"int8": 1 / 127, "int4": 1 / 15}  # of a group's range, by which rounding may move a weight, and f16 scales


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=3)


@pytest.fixture(autouse=True)
def small_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riyaz.evaluate.general_text", lambda path: tiny.CORPUS * 4)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_model_with_small_weights(precision: module.Small, folder: Path, tmp_path: Path) -> None:
    told = comparing.command("quantize", folder, "--precision", precision, "--out", tmp_path / "small", "--json")
    assert told.status == 0, told.err
    document = told.document
    assert document["path"] == str(tmp_path / "small") and document["tokens"] > 100
    assert 0 < document["divergence"] < {"int8": 0.01, "int4": 0.5}[precision]
    assert 0 < abs(document["perplexity"] / document["perplexity_bf16"] - 1) < 0.5
    assert f"KL {document['divergence']:.2g} nats" in told.err
    before, after = describe(open_source(folder)), describe(open_source(tmp_path / "small"))
    for name in before.stored_names:
        values, rounded = before.array(name)[1], after.array(name)[1]
        if values.ndim == 1:
            assert np.array_equal(values, rounded)
        else:
            span = np.abs(values).max() * 2
            assert 0 < np.abs(values - rounded).max() <= HALF_STEP[precision] * span, name
    opened = open_target(tmp_path / "small")
    assert opened.lm is not None and opened.lm.served == f"{precision} as stored"
    assert load_runner(open_source(tmp_path / "small")).nbytes < load_runner(open_source(folder)).nbytes


@pytest.mark.parametrize("method", ["full", "lora", "prompt_tuning", "few_shot"])
def test_an_artifact_with_small_weights(method: str, quick: Finished, tmp_path: Path) -> None:
    artifact, out = quick.artifact(method), tmp_path / "small"
    done = quantize(str(artifact), "int8", out)
    before, after = open_target(artifact), open_target(out)
    assert after.lm is not None and after.lm.served == "int8 as stored" and before.lm is not None
    document = Artifact.read(out)
    assert document.text == Artifact.read(artifact).text and document.method == method
    assert document.weights.kind == Artifact.read(artifact).weights.kind
    row = [{"role": "user", "content": "where is my refund"}]
    assert after.answer(row) in document.task.labels  # type: ignore[union-attr]
    assert math.isfinite(done.perplexity) and done.divergence < 0.05
    moved = tmp_path / "elsewhere"
    out.rename(moved)
    assert open_target(moved).answer(row) == after.answer(row)


def test_what_cannot_be_made_smaller_is_refused(folder: Path, quick: Finished, tmp_path: Path) -> None:
    quantize(str(folder), "int4", tmp_path / "small")
    for precision in ("int4", "int8"):
        with assert_refused("bits each already", f"{precision} would make them no smaller"):
            quantize(str(tmp_path / "small"), precision, tmp_path / "again")  # type: ignore[arg-type]
    with assert_refused("this artifact copies answers and has no model"):
        quantize(str(quick.artifact("nearest")), "int8", tmp_path / "again")
    with assert_refused("already exists"):
        quantize(str(folder), "int8", tmp_path / "small")
    assert not (tmp_path / "again").exists()


def test_a_model_whose_weights_hold_a_nan_leaves_nothing(tmp_path: Path) -> None:
    tiny.write_hf_folder(tmp_path / "model", seed=3)
    path = tmp_path / "model/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(bytes(data))
    with assert_refused("model.norm.weight' holds nan"):
        quantize(str(tmp_path / "model"), "int8", tmp_path / "small")
    assert not (tmp_path / "small").exists()
