"""What an export carries through beside weights and tokenizer, short contexts, and models that do not fit their
tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_families
import tiny_llama
import torch
from refusals import assert_refused
from small_llama import save_peft
from test_export import left, make
from transformers import AutoTokenizer, GenerationConfig

from riyaz import export, models
from riyaz.cli import main as cli
from riyaz.layers.swaps import soft_prompt
from riyaz.sources import open_source, pull
from riyaz.sources.hub import _chosen

pytestmark = pytest.mark.usefixtures("own_store")
GENERATION = {
    "eos_token_id": [2, 0], "pad_token_id": 2, "bos_token_id": 1, "do_sample": True, "temperature": 0.6, "top_p": 0.9,
    "repetition_penalty": 1.3, "max_length": 77,
}  # fmt: skip
TOOLS, RAG = "{{ 'tools' }}", "{{ 'rag' }}"


@pytest.fixture
def rich(tmp_path) -> Path:
    """A model that says how it is to generate, and has three templates: in a list, in a file, in both."""
    folder = tiny_llama.write_hf_folder(tmp_path / "tiny-base")
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    named = [
        {"name": "default", "template": "old"},
        {"name": "rag", "template": RAG},
        {"name": "../x", "template": "x"},
    ]
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": named}))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(TOOLS)
    return folder


def assert_all_there(folder: Path) -> None:
    found = GenerationConfig.from_pretrained(folder)
    wanted = {**GENERATION, "eos_token_id": [0, 2]}
    assert {key: getattr(found, key) for key in wanted} == wanted
    theirs = AutoTokenizer.from_pretrained(folder).chat_template
    assert theirs == {"default": tiny_llama.CHAT_TEMPLATE, "rag": RAG, "tool_use": TOOLS}


def test_templates_and_how_to_generate_reach_transformers(rich, tmp_path) -> None:
    export.export(str(rich), "hf", tmp_path / "out")
    assert_all_there(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "additional_chat_templates").iterdir()) == [
        "rag.jinja", "tool_use.jinja",
    ]  # fmt: skip
    pulled = pull(str(rich))  # the copy in the store loses none of them
    export.export(pulled.name, "hf", tmp_path / "again")
    assert (tmp_path / "again" / "additional_chat_templates" / "tool_use.jinja").read_text() == TOOLS


def test_a_merged_artifact_carries_them_to_its_own_export(rich, tmp_path) -> None:
    export.merge(make(rich, tmp_path / "artifact"), tmp_path / "merged")
    assert all(path.is_file() for path in (tmp_path / "merged").iterdir())  # an artifact is a flat folder
    export.export(str(tmp_path / "merged"), "hf", tmp_path / "out")
    assert_all_there(tmp_path / "out")


def test_a_model_with_one_template_gets_no_folder_of_them(tmp_path) -> None:
    export.export(str(tiny_llama.write_hf_folder(tmp_path / "tiny-base")), "hf", tmp_path / "out")
    assert not (tmp_path / "out" / "additional_chat_templates").exists()
    assert "chat_template" not in json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())


def test_the_hub_is_asked_for_all_templates() -> None:
    wanted = {"config.json", "model.safetensors", "additional_chat_templates/tool_use.jinja"}
    present = wanted | {"additional_chat_templates/run.py", "additional_chat_templates/a/b.jinja"}
    small, weights = _chosen("hf:a/b", present)
    assert {*small, *weights} == wanted


@pytest.mark.parametrize("format", ["hf", "gguf"])
def test_a_model_of_few_positions_is_asked_no_more_than_it_has(tmp_path, monkeypatch, format) -> None:
    monkeypatch.setattr(tiny_families, "CONTEXT", 64)
    tiny_families.make(tiny_families.FAMILIES["gpt2"], tmp_path / "tiny-base")
    assert export.export(str(tmp_path / "tiny-base"), format, tmp_path / "out").difference == 0


def test_a_soft_prompt_takes_its_places_from_the_probe(tmp_path) -> None:
    tiny_families.make(tiny_families.FAMILIES["gpt2"], tmp_path / "tiny-base")
    base = models.load(open_source(tmp_path / "tiny-base"), torch.float32)
    assert base.config.context == export.check.PROBE_TOKENS == 128
    (tmp_path / "parts").mkdir()
    save_peft(soft_prompt.apply(base, list(range(5, 13))), tmp_path / "parts", base="tiny-base")
    written = export.export(str(tmp_path / "parts"), "peft", tmp_path / "out", base=str(tmp_path / "tiny-base"))
    assert written.difference == 0


def test_the_folder_one_stands_in_is_not_replaced(tmp_path, monkeypatch) -> None:
    model = tiny_llama.write_hf_folder(tmp_path / "tiny-base")
    source = make(model, tmp_path / "artifact")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for out in (Path("."), tmp_path / "empty", Path("../empty")):
        with assert_refused("is the current folder", "--out model"):
            export.export(str(model), "hf", out)
        with assert_refused("is the current folder", "--out model"):
            export.merge(source, out)
    assert not list(Path.cwd().iterdir()) and left(tmp_path) == ["empty", "tiny-base"]
    assert export.export(str(model), "hf", Path("model")).difference == 0


def narrow(folder: Path, rows: int) -> Path:
    """A model of `rows` embedding rows with the tokenizer of 512 ids."""
    tiny_llama.write_hf_folder(folder, vocab=512)
    tiny_llama.write_safetensors(folder / "model.safetensors", tiny_llama.weights(tiny_llama.Tiny(vocab=rows)))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
    return folder


def test_a_tokenizer_with_more_ids_than_the_model_has_rows_is_refused_where_it_is_opened(tmp_path, capsys) -> None:
    folder = narrow(tmp_path / "narrow", 300)
    said = "the model has 300 embedding rows, its tokenizer 512 ids"
    with assert_refused(said, str(folder)):
        open_source(folder).tokenizer()
    for words in (
        ("generate", folder, "hello"),
        ("export", folder, "--format", "hf", "--out", tmp_path / "out"),
        ("pull", folder),
    ):
        assert cli.main([str(word) for word in words]) != 0
        assert said in capsys.readouterr().err
    assert left(tmp_path) == ["narrow"] and not list((tmp_path / "home").glob("models/*"))


def with_token(folder: Path, template: str | None = None, **flags: Any) -> Path:
    """A model of 512 rows whose tokenizer has id 512 too, a control token or a word."""
    tiny_llama.write_hf_folder(folder)
    definition = json.loads((folder / "tokenizer.json").read_text())
    token = {**definition["added_tokens"][0], "id": 512, "content": "<|picture|>", **flags}
    definition["added_tokens"].append(token)
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def test_a_control_token_that_nothing_writes_needs_no_row(tmp_path) -> None:
    tokenizer = open_source(with_token(tmp_path / "unused")).tokenizer()  # as Gemma 3's text models have one
    assert tokenizer.id_limit == 513 and max(tokenizer.encode("a <|picture|>")) < 512
    with assert_refused("the tokenizer has the id 512, the model 512 rows", "--format hf"):  # GGUF has a row per token
        export.export(str(tmp_path / "unused"), "gguf", tmp_path / "out")
    assert export.export(str(tmp_path / "unused"), "hf", tmp_path / "hf").difference == 0
    said = "the model has 512 embedding rows, its tokenizer 513 ids"
    for folder in (
        with_token(tmp_path / "written", "<|picture|>" + tiny_llama.CHAT_TEMPLATE),
        with_token(tmp_path / "word", content="zebra", special=False),
        with_token(tmp_path / "space", content=" ", id=511),  # no control token, and 511 is another's: it loads as 512
    ):
        with assert_refused(said):
            open_source(folder).tokenizer()


def test_rows_of_a_gguf_file_are_counted_too(tmp_path) -> None:
    from dataclasses import replace

    source = open_source(tiny_llama.write_gguf(tmp_path / "model.gguf"))
    assert source.tokenizer().id_limit == 512
    short = replace(source.tensors["token_embd.weight"], shape=(511, 64))
    with assert_refused("the model has 511 embedding rows, its tokenizer 512 ids"):
        replace(source, tensors={**source.tensors, "token_embd.weight": short}).tokenizer()
