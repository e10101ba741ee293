"""NaN and infinities in weights are named when a model or an adapter is opened; long lists of mismatches are cut."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
import torch
from refusals import assert_refused
from tiny_comparison import command

from riyaz import adapters
from riyaz.adapters import Adapter, Pair, peft
from riyaz.errors import few
from riyaz.families import describe
from riyaz.models import load
from riyaz.sources import open_source

NAME = "model.layers.1.mlp.up_proj.weight"
PLACE = (3, 17)


def spoil(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Tiny models hold this number at one place, and at a later one of the same tensor."""
    healthy = tiny_llama.weights

    def weights(size: tiny_llama.Tiny) -> dict[str, np.ndarray]:
        arrays = healthy(size)
        arrays[NAME][PLACE] = arrays[NAME][-1, -1] = value
        return arrays

    monkeypatch.setattr(tiny_llama, "weights", weights)


@pytest.mark.parametrize("verb", ["generate", "run", "evaluate", "export", "chat"])
def test_every_command_names_the_file_the_tensor_and_the_place(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, np.nan)
    folder = tiny_llama.write_hf_folder(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"question": f"card {i}", "answer": "yes no"[i % 2 :]}) + "\n" for i in range(9))
    )
    asked = {
        "generate": ("generate", folder, "the card"),
        "chat": ("chat", folder),
        "run": ("run", folder, rows, "--out", tmp_path / "answers.jsonl"),
        "evaluate": ("evaluate", folder, "--test", rows),
        "export": ("export", folder, "--format", "hf", "--out", tmp_path / "out"),
    }
    told = command(*asked[verb])
    assert told.status == 2
    assert f"{folder}/model.safetensors: tensor '{NAME}' holds nan at [3, 17]" in told.line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows.jsonl"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_every_type(
    value: float, kind: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, value)
    with assert_refused("model.safetensors", NAME, f"holds {value} at [3, 17]"):
        load(open_source(tiny_llama.write_hf_folder(tmp_path / "hf", dtype=kind)), dtype)
    if np.isnan(value):
        with assert_refused("m.gguf", "'blk.1.ffn_up.weight'", "holds nan at [3, 17]"):
            load(open_source(tiny_llama.write_gguf(tmp_path / "m.gguf", dtype=kind)), dtype)


def test_the_shard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, np.nan)
    with assert_refused("model-2-of-2.safetensors", NAME):
        load(open_source(tiny_llama.shard(tiny_llama.write_hf_folder(tmp_path / "hf"))))


def test_large_numbers_whose_sum_is_none_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 3e38)
    folder = tiny_llama.write_hf_folder(tmp_path / "hf")
    assert not np.isfinite(tiny_llama.weights(tiny_llama.Tiny())[NAME].sum(dtype=np.float32))
    assert load(open_source(folder), torch.float32).get_parameter(NAME)[PLACE] == np.float32(3e38)


@pytest.mark.parametrize("verb", ["generate", "run", "evaluate", "predict", "chat"])
def test_finite_weights_whose_scores_are_not_answer_nothing(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = tiny_llama.weights
    monkeypatch.setattr(tiny_llama, "weights", lambda size: {name: a * 1e15 for name, a in healthy(size).items()})
    folder = tiny_llama.write_hf_folder(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"question": f"card {i}", "answer": "yes no"[i % 2 :]}) + "\n" for i in range(9))
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    asked = {
        "generate": ("generate", folder, "the card"),
        "chat": ("chat", folder),
        "run": ("run", folder, rows, "--out", tmp_path / "answers.jsonl"),
        "evaluate": ("evaluate", folder, "--test", rows),
        "predict": ("predict", "the card", "--model", folder),
    }
    told = command(*asked[verb])
    assert told.status == 2 and "the model's scores of the next token are not finite" in told.line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows.jsonl"]


def test_an_adapter_with_nan_is_named(tmp_path: Path) -> None:
    family = describe(open_source(tiny_llama.write_hf_folder(tmp_path / "model")))
    pair = Pair(np.ones((2, 64), np.float32), np.full((128, 2), np.nan, np.float32), 1.0)
    (tmp_path / "lora").mkdir()
    peft.write(Adapter({NAME.removesuffix(".weight"): pair}), tmp_path / "lora", family, base="tiny")
    with assert_refused("adapter_model.safetensors", "up_proj.lora_B.weight", "holds nan at [0, 0]"):
        adapters.read(tmp_path / "lora", family)


def test_a_long_list_is_cut_and_counted() -> None:
    assert few(["a", "b", "a", "c"]) == "a, b, c"
    assert few("abcde", "; ") == "a; b; c; and 2 more"
    assert len(few(["x" * 999] * 2 + ["y" * 999])) < 350


def test_an_adapter_of_another_model_gives_a_short_line(tmp_path: Path) -> None:
    large = describe(open_source(tiny_llama.write_hf_folder(tmp_path / "large", layers=40)))
    small = describe(open_source(tiny_llama.write_hf_folder(tmp_path / "small")))
    pairs = {
        f"model.layers.{layer}.self_attn.{part}": Pair(np.ones((2, 64), np.float32), np.ones((64, 2), np.float32), 1.0)
        for layer in range(40)
        for part in ("q_proj", "o_proj")
    }
    (tmp_path / "lora").mkdir()
    peft.write(Adapter(pairs), tmp_path / "lora", large, base="tiny")
    with assert_refused("does not fit the base: ", "more"):
        adapters.read(tmp_path / "lora", small)
