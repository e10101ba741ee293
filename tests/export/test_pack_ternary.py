"""A ternary-trained model packed, and what is refused of it: other precisions, formats, merging; adapters beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
import torch
from fit_context import PLAN, fit_context
from refusals import assert_refused
from tiny_comparison import command

from riyaz.adapters import read
from riyaz.artifact import Artifact, WeightsPart
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.torch.load import load_runner
from riyaz.evaluate import _can_merge
from riyaz.export import export
from riyaz.export.check import logits
from riyaz.export.quantize import Small, quantize
from riyaz.export.ternary import pack
from riyaz.families import describe
from riyaz.families.ternary import Scheme
from riyaz.layers.swaps.ternary import FrozenTernaryLinear
from riyaz.methods import full, lora, prompt_tuning
from riyaz.models import load
from riyaz.sources import open_source


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny llama as a model that was trained ternary: random masters, and a configuration that says so."""
    folder = tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "trained", seed=3)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": Scheme().to_hf()}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def packed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "out"
    pack(str(trained), out)
    return out


def test_packing_keeps_codes_and_logits(trained: Path, tmp_path: Path) -> None:
    told = command("quantize", trained, "--precision", "ternary", "--out", tmp_path / "out", "--json")
    assert told.status == 0 and told.document["difference"] == 0 and "MB before" in told.err, told.err
    before, after = describe(open_source(trained)), describe(open_source(tmp_path / "out"))
    linears = [name for name in before.stored_names if before.is_ternary(name)]
    assert len(linears) == 14 and before.has_masters and not after.has_masters
    for name in linears:
        one, other = before.ternary(name), after.ternary(name)
        assert np.array_equal(one.codes, other.codes) and np.array_equal(one.scales, other.scales)
        assert after.source.tensors[name].nbytes * 4 == one.codes.size
        assert np.array_equal(after.array(name)[1], one.floats())


def test_groups_of_scales_are_packed_too(tmp_path: Path) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "grouped", seed=3)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": Scheme(group=48).to_hf()}
    (folder / "config.json").write_text(json.dumps(config))
    assert pack(str(folder), tmp_path / "out").difference == 0
    family = describe(open_source(tmp_path / "out"))
    name = next(filter(family.is_ternary, family.stored_names))
    assert family.ternary(name).group == 48 and family.ternary(name).scales.shape == (64, 2)


def test_what_was_not_trained_ternary_is_not_packed(packed: Path, tmp_path: Path) -> None:
    plain = tiny_llama.write_hf_folder(tmp_path / "plain", seed=3)
    told = command("quantize", plain, "--precision", "ternary", "--out", tmp_path / "out")
    assert told.status == 2 and "was not trained ternary" in told.err and "riyaz ternarize" in told.err
    with assert_refused("is packed already", "served as it is stored"):
        pack(str(packed), tmp_path / "out")
    told = command("quantize", plain, "--precision", "ternary", "--group", 64, "--out", tmp_path / "out")
    assert told.status == 2 and "chosen for int4 only" in told.err
    assert not (tmp_path / "out").exists()


def test_other_precisions_and_formats_are_refused(trained: Path, packed: Path, tmp_path: Path) -> None:
    for target in (trained, packed):
        with assert_refused("is ternary", "--precision ternary"):
            quantize(str(target), Small("int4"), tmp_path / "out")
        with assert_refused("is ternary", "q8_0 would round it again", "tq2_0"):
            export(str(target), "gguf", tmp_path / "out", "q8_0")
        with assert_refused("rows of 64 weights", "--format hf"):
            export(str(target), "gguf", tmp_path / "out")
    written = export(str(packed), "hf", tmp_path / "hf")
    assert written.difference == 0 and not describe(open_source(tmp_path / "hf")).has_masters


def test_an_adapter_of_a_ternary_base_is_not_merged(packed: Path, tmp_path: Path, home: Path) -> None:
    fitted = fitted_on(packed, tmp_path / "fit", lora)
    assert fitted.checks["step0_loss"]["ok"] and fitted.checks["weights_moved"]["ok"]
    source = open_source(packed)
    adapter = read(tmp_path / "fit/out", describe(source))
    assert len(adapter.pairs) == 14
    engine = Engine(load_runner(source, "float32"))
    engine.load("lora", adapter)
    request = Request(0, (5, 7, 20), adapter="lora")
    (beside,), (bare,) = (engine.logprobs([r], [(9, 11)]) for r in (request, Request(0, (5, 7, 20))))
    assert not np.allclose(beside, bare)
    with assert_refused("cannot be merged into a ternary model", "-1, 0 and 1", "keep it as an adapter"):
        load_runner(source, "float32", adapter)
    told = command("export", tmp_path / "fit/out", "--format", "hf", "--model", packed, "--out", tmp_path / "merged")
    assert told.status == 2 and "cannot be merged into a ternary model" in told.err, told.err


def fitted_on(model: Path, folder: Path, method: Any) -> Any:
    folder.mkdir()
    return method.fit(fit_context(model, folder, arm=PLAN))


def test_a_soft_prompt_of_a_ternary_base(packed: Path, tmp_path: Path) -> None:
    fitted = fitted_on(packed, tmp_path / "fit", prompt_tuning)
    assert fitted.checks["weights_moved"]["ok"]
    assert read(tmp_path / "fit/out", describe(open_source(packed))).soft_prompt is not None


def test_masters_are_trained_whole_and_packed_weights_are_not(trained: Path, packed: Path, tmp_path: Path) -> None:
    fitted_on(trained, tmp_path / "fit", full)
    family = describe(open_source(tmp_path / "fit/out"))
    assert family.has_ternary and family.has_masters
    with assert_refused("packed ternary weights, which cannot be trained", "the model it was packed from"):
        fitted_on(packed, tmp_path / "again", full)


@pytest.mark.parametrize("ternary", [False, True])
def test_only_an_adapter_of_a_plain_base_is_measured_merged(
    ternary: bool, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(packed if ternary else tiny_llama.write_hf_folder(tmp_path / "plain", seed=3))
    document = Artifact("lora", weights=WeightsPart("lora"))
    monkeypatch.setattr("riyaz.evaluate.source_for", lambda folder: source)
    assert _can_merge(document, tmp_path) is not ternary


def test_a_model_of_packed_weights_holds_codes_only(packed: Path) -> None:
    source = open_source(packed)
    model = load(source, torch.bfloat16)
    kinds = [module for module in model.modules() if isinstance(module, FrozenTernaryLinear)]
    assert len(kinds) == 14 and all(module.scales.dtype == torch.float32 for module in kinds)
    assert logits(model, source.tokenizer()).isfinite().all()
