"""Soft prompts on disk: PEFT as the oracle in both directions, refusals, and artifacts that hold one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_comparison
import tiny_llama
import torch
from peft import PeftModel, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from refusals import assert_refused
from small_llama import attach, label_log_probabilities, moved, next_log_p, random_rows, save_peft, small_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from riyaz import adapters, evaluate, export
from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel, TextPart, WeightsPart
from riyaz.data import Example
from riyaz.data.packing import pack
from riyaz.data.task import Task
from riyaz.engine.opening import open_engine
from riyaz.engine.torch.runner import TOLERANCE as NEAR
from riyaz.families import describe
from riyaz.layers.attention import packed
from riyaz.layers.swaps import lora
from riyaz.layers.swaps.soft_prompt import SoftPrompt
from riyaz.models import load
from riyaz.models.llama import Model
from riyaz.predictor import (
    ClosedPredictor,
    ModelPredictor,
    PromptedModel,
    open_artifact,
    open_model,
    open_target,
    predictor_for,
)
from riyaz.sources import open_source, safetensors
from riyaz.train import answer_nats

LOGITS = 1e-4  # beside PEFT's, float32
TOKENS = torch.arange(5, 35)
TEXT = (7, 30, 11, 5)
TASK = Task("closed", ("billing", "refund"), "accuracy", "Classify the text.", "")
QUESTION = [{"role": "user", "content": "where is my refund?"}]


@pytest.fixture(scope="module", params=[{}, {"tie": False, "attention_bias": True}], ids=["tied", "untied-bias"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("prompt") / "model", seed=3, **request.param)


def open_plain(folder: Path) -> Model:
    return load(open_source(folder), torch.float32)


def open_oracle(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits_of(model: Any) -> Tensor:
    """(T, V) of the rows' tokens."""
    with torch.no_grad():
        return model.head(model(TOKENS, torch.arange(len(TOKENS)), packed([len(TOKENS)])))


def oracle_logits(oracle: Any) -> Tensor:
    """The same of PEFT, whose logits begin with the prompt's own."""
    with torch.no_grad():
        return oracle.eval()(TOKENS[None]).logits[0, -len(TOKENS) :]


def write_with_peft(folder: Path, out: Path, config: Any = None) -> Any:
    """A PEFT prompt of six random vectors, saved; the model."""
    settings = config or PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6)
    torch.manual_seed(4)
    model = get_peft_model(open_oracle(folder), settings)
    model.save_pretrained(out)
    return model


def test_peft_reads_what_save_peft_writes(folder: Path, tmp_path: Path) -> None:
    model = moved(open_plain(folder), TEXT)
    save_peft(model, tmp_path, base=str(folder))
    wanted = logits_of(model)
    assert (oracle_logits(PeftModel.from_pretrained(open_oracle(folder), tmp_path)) - wanted).abs().max() <= LOGITS
    assert (wanted - logits_of(open_plain(folder))).abs().max() > 0.1
    again = attach(open_plain(folder), tmp_path)
    assert torch.equal(logits_of(again), wanted) and not any(p.requires_grad for p in again.parameters())
    engine = open_engine(open_source(folder), "fp32")
    engine.load("mine", adapters.read(tmp_path, describe(open_source(folder))))
    found = next_log_p(engine, TOKENS.tolist(), "mine")
    assert np.abs(found - wanted[-1].log_softmax(0).numpy()).max() < NEAR[torch.float32]


def test_the_configuration_has_the_keys_that_peft_writes(folder: Path, tmp_path: Path) -> None:
    save_peft(moved(open_plain(folder), TEXT), tmp_path, base="x")
    write_with_peft(folder, tmp_path / "peft")
    ours, theirs = (json.loads((at / "adapter_config.json").read_text()) for at in (tmp_path, tmp_path / "peft"))
    alike = {key: value for key, value in theirs.items() if key in ours}
    assert set(ours) <= set(theirs) and alike | {"num_virtual_tokens": 4, "base_model_name_or_path": "x"} == ours


def test_load_peft_reads_what_peft_writes(folder: Path, tmp_path: Path) -> None:
    wanted = oracle_logits(write_with_peft(folder, tmp_path))
    model = attach(open_plain(folder), tmp_path)
    assert isinstance(model, SoftPrompt) and (logits_of(model) - wanted).abs().max() <= LOGITS
    assert adapters.base_of(tmp_path / "adapter_config.json") == str(folder)


def test_the_gradient_of_a_step_is_pefts(folder: Path, tmp_path: Path) -> None:
    oracle = write_with_peft(folder, tmp_path)
    rows = random_rows(5, 4)
    model = attach(open_plain(folder), tmp_path)
    model.prompt.requires_grad_(True)
    (answer_nats(model, pack(rows)) / sum(len(row.answer) for row in rows)).backward()
    width = max(len(row.prompt) + len(row.answer) for row in rows)
    ids, mask = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
    labels = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        end = len(row.prompt) + len(row.answer)
        ids[i, :end], mask[i, :end] = torch.tensor((*row.prompt, *row.answer)), 1
        labels[i, len(row.prompt) : end] = torch.tensor(row.answer)
    oracle.train()(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    wanted = oracle.prompt_encoder["default"].embedding.weight.grad
    assert (model.prompt.grad - wanted).abs().max() <= LOGITS * wanted.abs().max()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A good prompt for `small_model()`, to spoil."""
    save_peft(moved(small_model(), TEXT), tmp_path, base="x")
    return tmp_path


def change_config(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "adapter_config.json").read_text()) | entries
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("entries", "part"),
    [
        ({"peft_type": "P_TUNING"}, "peft_type is 'P_TUNING'"),
        ({"peft_type": "PREFIX_TUNING"}, "peft_type is 'PREFIX_TUNING'"),
        ({"peft_type": None}, "peft_type is None"),
        ({"peft_type": ["LORA"]}, "peft_type is ['LORA']"),
        ({"num_transformer_submodules": 2}, "num_transformer_submodules is 2"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"num_virtual_tokens": 5}, "the configuration says 5 × 32"),
        ({"num_virtual_tokens": None}, "the configuration says None"),
        ({"token_dim": 64}, "the configuration says 4 × 64"),
    ],
    ids=lambda value: f"{value}"[:40],
)
def test_what_is_no_plain_prompt_tuning_is_refused(saved: Path, entries: dict[str, Any], part: str) -> None:
    change_config(saved, **entries)
    with assert_refused(str(saved), part):
        attach(small_model(), saved)


def test_peft_reparametrised_prompts_are_refused(tmp_path: Path) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "model")
    settings = PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=8)
    write_with_peft(folder, tmp_path / "adapter", settings)
    with assert_refused("adapter_config.json", "P_TUNING", "riyaz reads LORA and PROMPT_TUNING"):
        attach(open_plain(folder), tmp_path / "adapter")


def test_a_prompt_for_another_base_is_refused(saved: Path) -> None:
    with assert_refused(str(saved), "it has 4 vectors of size 32, the model takes size 64"):
        attach(small_model(hidden=64), saved)
    with assert_refused(str(saved), "4 vectors of size 32, the model takes size 32 and 4 tokens of context"):
        attach(small_model(context=4), saved)


@pytest.mark.parametrize(
    "tensors",
    [{}, {"prompt": np.zeros((4, 32), np.float32)}, {"prompt_embeddings": np.zeros((4, 32), np.int32)},
     {"prompt_embeddings": np.zeros((4, 32), np.float32), "lm_head": np.zeros((4, 32), np.float32)}],
    ids=["none", "other", "integers", "more"],
)  # fmt: skip
def test_tensors_of_other_kinds_are_refused(saved: Path, tensors: dict[str, np.ndarray]) -> None:
    safetensors.write(saved / "adapter_model.safetensors", tensors)
    with assert_refused(str(saved), "not only prompt_embeddings, in floats"):
        attach(small_model(), saved)


def test_a_prompt_in_bfloat16_is_read(saved: Path) -> None:
    whole = attach(small_model(), saved).prompt
    rounded = ("BF16", tiny_llama.bfloat16(whole.numpy()))
    safetensors.write(saved / "adapter_model.safetensors", {"prompt_embeddings": rounded})
    assert torch.equal(attach(small_model(), saved).prompt, whole.bfloat16().float())


def test_lora_folders_still_find_their_reader(tmp_path: Path) -> None:
    model = small_model()
    lora.apply(model, r=2, alpha=4, seed=0)
    save_peft(model, tmp_path, base="x", alpha=4)
    assert list(lora.lora_layers(attach(small_model(), tmp_path)))


# artifacts


@pytest.fixture
def artifact(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact with a soft prompt for a closed set, answering in float32."""
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    tiny_comparison.serve_in_float32(monkeypatch)
    (tmp_path / "parts").mkdir()
    save_peft(moved(open_plain(folder), TEXT), tmp_path / "parts", base="model")
    source = open_source(folder)
    made = Artifact(
        "a method", TextPart(TASK.instruction), WeightsPart("soft_prompt"), task=TASK, max_new_tokens=8,
        base=BaseModel(source.name, str(folder), source.sha256(), 1),
    )  # fmt: skip
    artifacts.write(tmp_path / "made", made, {path.name: path for path in (tmp_path / "parts").iterdir()})
    return tmp_path / "made"


def told(model: PromptedModel) -> ModelPredictor:
    """The plain model with the artifact's task."""
    return predictor_for(replace(model, task=TASK, text=TextPart(TASK.instruction)))


def test_an_artifact_answers_with_its_prompt_and_its_base_without(artifact: Path, folder: Path) -> None:
    opened, plain = open_artifact(artifact), told(open_model(folder))

    def scores(predictor: Any) -> np.ndarray:
        return label_log_probabilities(predictor, [QUESTION])[0]

    assert np.array_equal(scores(opened.base()), scores(plain))
    assert np.abs(scores(opened) - scores(plain)).max() > 0.05
    rows = [Example(tuple(QUESTION), ("refund",))]
    assert evaluate.prompt_tokens(opened, rows) == evaluate.prompt_tokens(plain, rows) + len(TEXT)


def test_the_prompts_tokens_are_part_of_the_context(artifact: Path) -> None:
    opened = open_artifact(artifact)
    assert isinstance(opened, ClosedPredictor)
    long = [{"role": "user", "content": "a" * 400}]
    needed = opened.prepare([long])[0].request.length + opened.constraint.depth.max()
    opened.lm.context = int(needed) + len(TEXT)
    opened.prepare([long])
    opened.lm.context -= 1
    with assert_refused("row 7", f"does not fit the context of {needed - 1}"):
        opened.prepare([long], ["row 7"])
    opened.base().prepare([long])


def test_an_exported_prompt_loads_in_peft_and_cannot_be_merged(artifact: Path, folder: Path, tmp_path: Path) -> None:
    written = export.export(str(artifact), "peft", tmp_path / "out")
    files = {adapters.CONFIG, adapters.WEIGHTS, "README.md", "prompt.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= files
    assert written.difference == 0
    oracle = PeftModel.from_pretrained(open_oracle(folder), tmp_path / "out")
    ours = logits_of(attach(open_plain(folder), artifact))
    assert (oracle_logits(oracle) - ours).abs().max() <= LOGITS
    for act in (lambda out: export.merge(artifact, out), lambda out: export.export(str(artifact), "hf", out)):
        with assert_refused(str(artifact), "a soft prompt", "cannot be merged", "export it with --format peft"):
            act(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_plain_peft_folder_opens_on_the_base_it_names(artifact: Path, folder: Path, tmp_path: Path) -> None:
    write_with_peft(folder, tmp_path / "peft")
    opened = open_target(tmp_path / "peft")
    assert opened.has_model and opened.lm.adapter_tokens(opened.adapter) == 6
    wanted = oracle_logits(PeftModel.from_pretrained(open_oracle(folder), tmp_path / "peft"))[-1].log_softmax(0)
    found = next_log_p(opened.lm, TOKENS.tolist(), opened.adapter)
    assert np.abs(found - wanted.numpy()).max() < NEAR[torch.float32]


def test_an_artifact_without_its_files_is_refused(artifact: Path) -> None:
    document = json.loads((artifact / artifacts.NAME).read_text())
    del document["checksums"]["adapter_model.safetensors"]
    (artifact / artifacts.NAME).write_text(json.dumps(document))
    with assert_refused("lists no 'adapter_model.safetensors'"):
        Artifact.read(artifact)
