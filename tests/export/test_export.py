"""Taking results away: PEFT and transformers load what was written and say the same; nothing wrong is kept."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_comparison
import tiny_llama
import torch
from small_llama import attach, save_peft

from riyaz import adapters, export, models
from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel, TextPart, WeightsPart
from riyaz.data import Example
from riyaz.engine import Request
from riyaz.errors import RiyazError
from riyaz.json_files import write_json
from riyaz.layers.swaps import lora
from riyaz.predictor import open_artifact, open_target
from riyaz.results import ArmResult, Comparison
from riyaz.sources import open_source

pytestmark = pytest.mark.usefixtures("own_store")
TOLERANCE = 2e-4  # of a logit: float32, two orders of summation
TOKENS = [5, 77, 301, 12, 9, 140, 33, 400, 7]
TEXT = TextPart(instruction="Answer with one word.", examples="fixed", k=1, examples_file=artifacts.EXAMPLES)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("base") / "tiny-base")


def adapter_files(base: Path, folder: Path, *, rslora: bool = False) -> dict:
    """A LoRA with seeded weights on every linear, as PEFT writes it."""
    model = models.load(open_source(base), torch.float32)
    lora.apply(model, r=4, alpha=8 * math.sqrt(4) if rslora else 8, seed=1)
    generator = torch.Generator().manual_seed(2)
    for _, layer in lora.lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.05, generator=generator)
    folder.mkdir(parents=True)
    save_peft(model, folder, base=base.name, alpha=8)
    if rslora:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": True}))
    return {path.name: path for path in folder.iterdir()}


def make(base: Path, folder: Path, kind: str = "lora", *, rslora: bool = False) -> Path:
    """An artifact with a text part and weights of this kind."""
    source = open_source(base)
    examples = artifacts.examples_bytes([Example(({"role": "user", "content": "a fox?"},), ("yes",), where="t:1")])
    files: dict = {artifacts.EXAMPLES: examples, artifacts.TRAINED: b"0123456789abcdef\n"}
    if kind == "lora":
        files |= adapter_files(base, folder.with_name("parts"), rslora=rslora)
    if kind == "full":
        other = tiny_llama.write_hf_folder(folder.with_name("other"), seed=9, dtype="BF16")
        files |= {path.name: path for path in other.iterdir()}
    known = Artifact(
        method="a method", text=TEXT, weights=WeightsPart(kind), max_new_tokens=8,
        base=BaseModel(source.name, str(base), source.sha256(), 1),
    )  # fmt: skip
    artifacts.write(folder, known, files)
    return folder


def oracle(folder: Path, adapter: Path | None = None) -> np.ndarray:
    """Logits of transformers, with PEFT on top where there is an adapter; float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    with torch.inference_mode():
        return model(torch.tensor([TOKENS])).logits[0].numpy()


@pytest.mark.parametrize(("precision", "served"), [("auto", "bf16"), ("int8", "int8"), ("int4", "int4")])
def test_a_merged_model_names_its_precision(base, tmp_path, precision, served):
    source = make(base, tmp_path / "artifact")
    export.merge(source, tmp_path / "out", precision=precision)
    merged, inside = open_artifact(tmp_path / "out"), open_artifact(source, precision=precision, merged=True)
    assert merged.served == served
    assert merged.lm.runner.nbytes == inside.lm.runner.nbytes, "as it was measured"
    (said,), (measured,) = (each.lm.logprobs([Request(0, TOKENS)], [TOKENS]) for each in (merged, inside))
    assert np.abs(said - measured).max() < 0.05
    export.merge(tmp_path / "out", tmp_path / "again")
    assert open_artifact(tmp_path / "again").served == served, "it is not lost"


def test_a_merged_model_is_served_as_the_help_says(tmp_path):
    base = tiny_llama.write_gguf(tmp_path / "base.gguf", dtype="Q8_0")
    export.merge(make(base, tmp_path / "artifact"), tmp_path / "out")
    assert open_target(base).served == "int8 as stored" and open_artifact(tmp_path / "out").served == "bf16"
    helped = " ".join(tiny_comparison.command("merge", "--help").out.split())
    assert "auto: as the base's config.json names it; if it names none, or the base is GGUF, in bf16" in helped


def test_an_exported_adapter_loads_in_peft_and_says_the_same(base, tmp_path):
    source = make(base, tmp_path / "artifact")
    written = export.export(str(source), "peft", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        adapters.CONFIG, adapters.WEIGHTS, "base", "README.md", "prompt.json", "chat_template.jinja", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert written.path == str(tmp_path / "out") and written.divergence == written.difference == 0
    with_adapter, without = oracle(base, tmp_path / "out"), oracle(base)
    assert np.abs(with_adapter - without).max() > 0.1, "the adapter does something"
    model = models.load(open_source(base), torch.float32)
    attach(model, source)
    ours = model_logits(model)
    assert np.abs(with_adapter - ours).max() < TOLERANCE


def model_logits(model) -> np.ndarray:
    from riyaz.layers.attention import packed

    with torch.inference_mode():
        tokens = torch.tensor(TOKENS)
        return model.head(model(tokens, torch.arange(len(TOKENS)), packed([len(TOKENS)]))).numpy()


def test_rslora_is_exported_with_the_scale_that_every_tool_applies(base, tmp_path):
    source = make(base, tmp_path / "artifact", rslora=True)
    written = export.export(str(source), "peft", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert "use_rslora" not in config and config["lora_alpha"] / config["r"] == 8 / 2  # α/√r
    assert written.difference == 0
    assert np.abs(oracle(base, tmp_path / "out") - oracle(base, source)).max() < TOLERANCE


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merged_model_loads_in_transformers_and_stays_an_artifact(base, tmp_path, dtype):
    source = make(base, tmp_path / "artifact")
    written = export.merge(source, tmp_path / "out", dtype)
    assert (written.format, written.dtype) == ("hf", dtype)
    assert {info.dtype for info in open_source(tmp_path / "out").tensors.values()} == {
        {"float32": "F32", "bfloat16": "BF16"}[dtype]
    }
    wanted = oracle(base, source)
    tolerance = TOLERANCE if dtype == "float32" else 0.1
    assert np.abs(oracle(tmp_path / "out") - wanted).max() < tolerance
    assert (written.difference < TOLERANCE) == (dtype == "float32"), "bfloat16 rounds, and it is said"
    known = Artifact.read(tmp_path / "out")
    assert known.weights.kind == "full" and known.text == TEXT
    assert open_artifact(tmp_path / "out").examples[0].answer == "yes"
    assert (tmp_path / "out" / artifacts.TRAINED).read_text() == "0123456789abcdef\n"


def test_full_weights_are_merged_into_any_type_and_exported_in_their_own(base, tmp_path):
    source = make(base, tmp_path / "artifact", "full")
    exported = export.export(str(source), "hf", tmp_path / "hf")
    assert (exported.dtype, exported.difference) == ("bfloat16", 0)
    assert not (tmp_path / "hf" / "riyaz.json").exists()
    merged = export.merge(source, tmp_path / "merged", "float32")
    assert (merged.dtype, merged.difference) == ("float32", 0)
    assert np.abs(oracle(tmp_path / "hf") - oracle(tmp_path / "other")).max() < TOLERANCE


@pytest.mark.parametrize(("kind", "dtype"), [("F32", "float32"), ("F16", "float32"), ("Q4_1", "float32")])
def test_a_gguf_file_becomes_a_transformers_folder(tmp_path, kind, dtype):
    file = tiny_llama.write_gguf(tmp_path / "model.gguf", dtype=kind)
    written = export.export(str(file), "hf", tmp_path / "out")
    assert (written.dtype, written.difference) == (dtype, 0)
    ours = model_logits(models.load(open_source(file), torch.float32))
    assert np.abs(oracle(tmp_path / "out") - ours).max() < TOLERANCE
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": "the quick brown fox"}]
    rendered = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert rendered == open_source(file).tokenizer().render([messages])[0]


def test_a_lora_exported_as_a_whole_model_is_the_merged_one(base, tmp_path):
    source = make(base, tmp_path / "artifact")
    written = export.export(str(source), "hf", tmp_path / "out")
    assert written.dtype == "float32" and not (tmp_path / "out" / "riyaz.json").exists()
    assert np.abs(oracle(tmp_path / "out") - oracle(base, source)).max() < TOLERANCE


def test_a_comparisons_folder_stands_for_the_arm_it_picked(base, tmp_path):
    make(base, tmp_path / "results" / "arms" / "lora" / "kept" / "artifact")
    write_json(
        tmp_path / "results" / "compare.json", Comparison([ArmResult("lora", "ok")], "lora", None, "certified", "")
    )
    assert export.merge(tmp_path / "results", tmp_path / "out").difference < TOLERANCE
    assert export.export(str(tmp_path / "results"), "peft", tmp_path / "adapter").difference == 0


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("home", "parts", "artifact", "other"))


@pytest.mark.parametrize("kind", ["none", "copy"])
def test_an_artifact_without_weights_has_nothing_to_write(base, tmp_path, kind):
    source = make(base, tmp_path / "artifact", kind)
    why = {"none": "has no weights of its own; its base model is tiny-base", "copy": "has no language model to write"}
    for act in (lambda out: export.merge(source, out), lambda out: export.export(str(source), "hf", out)):
        with pytest.raises(RiyazError, match=why[kind]):
            act(tmp_path / "out")
    assert left(tmp_path) == []


def test_a_plain_model_or_full_weights_are_no_adapter(base, tmp_path):
    for target in (base, make(base, tmp_path / "artifact", "full")):
        with pytest.raises(RiyazError, match="no adapter to export"):
            export.export(str(target), "peft", tmp_path / "out")
    assert left(tmp_path) == []


def test_a_folder_that_holds_something_is_not_written_over(base, tmp_path):
    source = make(base, tmp_path / "artifact")
    for out in (source, tmp_path / "busy"):
        out.mkdir(exist_ok=True)
        (out / "mine.txt").write_text("mine")
        for act in (lambda out: export.merge(source, out), lambda out: export.export(str(source), "hf", out)):
            with pytest.raises(RiyazError, match="already exists"):
                act(out)
    assert left(tmp_path) == ["busy"]
    (tmp_path / "empty").mkdir()
    export.export(str(source), "peft", tmp_path / "empty")
    assert (tmp_path / "empty" / "adapter_config.json").exists()


def test_a_base_that_is_another_model_now_is_refused(base, tmp_path):
    other = tiny_llama.write_hf_folder(tmp_path / "other")
    source = make(other, tmp_path / "artifact")
    tiny_llama.write_hf_folder(other, seed=5)
    with pytest.raises(RiyazError, match="other weights now"):
        export.merge(source, tmp_path / "out")
    assert left(tmp_path) == []


def test_what_does_not_say_the_same_when_opened_again_is_not_kept(base, tmp_path, monkeypatch):
    source = make(base, tmp_path / "artifact")
    save = models.save_hf

    def careless(model, tokenizer, folder):
        with torch.no_grad():
            model.model.norm.weight.mul_(1.1)
        save(model, tokenizer, folder)

    monkeypatch.setattr(models, "save_hf", careless)
    for act in (lambda out: export.merge(source, out), lambda out: export.export(str(source), "hf", out)):
        with pytest.raises(RiyazError, match=r"differs by .* nats per token from its source; nothing was kept"):
            act(tmp_path / "out")
    assert left(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_ctrl_c_leaves_nothing(base, tmp_path, monkeypatch, error):
    source = make(base, tmp_path / "artifact")

    def failing(model, tokenizer, folder):
        (folder / "half.bin").write_text("half")
        raise error

    monkeypatch.setattr(models, "save_hf", failing)
    expected = RiyazError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        export.merge(source, tmp_path / "out")
    assert not isinstance(error, OSError) or "the disk is full" in str(caught.value)
    assert left(tmp_path) == []


def test_the_line_says_what_and_how_far(base, tmp_path):
    written = replace(export.export(str(base), "hf", tmp_path / "out"), path="out")
    assert written.line().startswith("out: hf, float32, 0.")
    assert written.line().endswith("opened again, largest logit difference 0, KL 0 nats per token")
