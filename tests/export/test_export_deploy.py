"""What was exported works without riyaz and says what riyaz says: base, prompt, README and Modelfile go along."""

import json
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_families
import tiny_llama
from refusals import assert_refused
from test_export import TEXT, adapter_files, make

from riyaz import adapters, export
from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, TextPart
from riyaz.cli import main as cli
from riyaz.data.task import Task
from riyaz.export.modelfile import turns_of
from riyaz.predictor import open_target
from riyaz.sources import catalogue, open_source, origins, store
from riyaz.sources.hub import Reference
from riyaz.text.tokenizer import Tokenizer

QUESTION = "where is my refund?"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def base(tmp_path) -> Path:
    return tiny_llama.write_hf_folder(tmp_path / "tiny-base")


def change(folder: Path, **parts) -> None:
    """Replace parts of an artifact's document."""
    document = replace(Artifact.read(folder), **parts)
    files = {name: (folder / name).read_bytes() for name in document.checksums}
    artifacts.write(folder, document, files)


def python_block(folder: Path) -> str:
    """The Python of a folder's README, with a question in the place of `your text`."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.M | re.S)
    assert code.count('"your text"') == 1
    return code.replace("your text", QUESTION)


def answer_of_readme(folder: Path) -> str:
    Path("ask.py").write_text(python_block(folder), encoding="utf-8")
    return runpy.run_path("ask.py")["answer"]


def riyaz_answer(target: Path, base: Path | None = None) -> str:
    predictor = open_target(target, str(base) if base else None, "fp32")
    (answer,) = predictor.answers([[{"role": "user", "content": QUESTION}]])
    return answer.text


def alone(folder: Path, monkeypatch, base: Path) -> Path:
    """The folder at another place, from which nothing else can be seen, and the base gone from where it was."""
    place = folder.with_name("elsewhere")
    place.mkdir()
    shutil.move(folder, place / folder.name)
    shutil.rmtree(base)
    monkeypatch.chdir(place)
    return Path(folder.name)


@pytest.mark.parametrize("kind", ["lora", "soft_prompt"])
def test_an_exported_adapter_answers_in_peft_as_in_riyaz(base, tmp_path, monkeypatch, kind):
    artifact = make(base, tmp_path / "artifact")
    if kind == "soft_prompt":
        vectors = tiny_llama.np.random.default_rng(3).standard_normal((5, 64)).astype("float32")
        (tmp_path / "soft").mkdir()
        adapters.peft_prompt.write(vectors, tmp_path / "soft", adapters_family(base), base="tiny-base")
        document = replace(Artifact.read(artifact), weights=artifacts.WeightsPart("soft_prompt"))
        kept = [artifact / artifacts.EXAMPLES, *(tmp_path / "soft").iterdir()]
        artifacts.write(artifact, document, {path.name: path.read_bytes() for path in kept})
    wanted = riyaz_answer(artifact)
    assert wanted and wanted != riyaz_answer(base)
    monkeypatch.chdir(tmp_path)
    written = export.export("artifact", "peft", Path("my-adapter"))
    config = json.loads(Path("my-adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./my-adapter/base"
    assert any(note.startswith("./my-adapter/base is the base model, tiny-base") for note in written.notes)
    folder = alone(tmp_path / "my-adapter", monkeypatch, base)
    assert answer_of_readme(folder) == wanted


def adapters_family(base: Path):
    from riyaz.families import describe

    return describe(open_source(base))


def test_a_whole_model_answers_in_transformers_as_in_riyaz(base, tmp_path, monkeypatch):
    artifact = make(base, tmp_path / "artifact")
    wanted = riyaz_answer(artifact)
    monkeypatch.chdir(tmp_path)
    export.export("artifact", "hf", Path("my-model"))
    folder = alone(tmp_path / "my-model", monkeypatch, base)
    assert answer_of_readme(folder) == wanted


def test_riyaz_opens_its_own_export_wherever_it_lies(base, tmp_path, monkeypatch):
    parts = tmp_path / "parts"
    adapter_files(base, parts)
    wanted = riyaz_answer(parts, base)
    export.export(str(parts), "peft", tmp_path / "out", base=str(base))
    export.export(str(parts), "mlx", tmp_path / "mlx", base=str(base))
    folder = alone(tmp_path / "out", monkeypatch, base)
    assert riyaz_answer(folder) == wanted
    shutil.move(tmp_path / "mlx", "mlx")
    assert riyaz_answer(Path("mlx")) == wanted
    other = tiny_llama.write_hf_folder(tmp_path / "other", seed=5)
    with assert_refused("has other weights"):
        riyaz_answer(folder, other)


def test_a_pulled_base_is_named_by_its_repository_and_goes_along_only_on_request(base, tmp_path):
    artifact = make(base, tmp_path / "artifact")
    sha256, commit = open_source(base).sha256(), "a" * 40
    with store.workspace() as space:
        folder = shutil.copytree(base, space / "owner--tiny")
        entry = store.ModelEntry("owner--tiny", folder, "hf", f"hf:Owner/Tiny@{commit}", "MIT", sha256, 1)
        store.add_model(folder, entry)
    assert origins.hub_origin(open_source(base)) == Reference("Owner/Tiny", commit)
    written = export.export(str(artifact), "peft", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("Owner/Tiny", commit)
    assert not written.notes and not (tmp_path / "out" / "base").exists()
    assert riyaz_answer(tmp_path / "out") == riyaz_answer(adapter_only(artifact), base)
    export.export(str(artifact), "mlx", tmp_path / "mlx")
    assert json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())["model"] == "Owner/Tiny"
    export.export(str(artifact), "peft", tmp_path / "with", with_base=True)
    assert open_source(tmp_path / "with" / "base").sha256() == sha256


def adapter_only(artifact: Path) -> Path:
    """The adapter of an artifact in a folder of its own."""
    folder = artifact.with_name("adapter-only")
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(artifact / name, folder / name)
    return folder


@pytest.mark.parametrize("name", ["./my-adapter/base", "my-adapter/base"])
def test_a_base_beside_an_exported_adapter_is_no_repository(base, tmp_path, monkeypatch, name):
    artifact = make(base, tmp_path / "artifact")
    monkeypatch.chdir(tmp_path)
    export.export(str(artifact), "peft", Path("my-adapter"))
    config = Path("my-adapter/adapter_config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": name}))
    monkeypatch.chdir(artifact)
    written = export.export("../my-adapter", "peft", Path("../again"))
    assert json.loads(Path("../again/adapter_config.json").read_text())["base_model_name_or_path"] == "../again/base"
    assert Path("../again/base/config.json").is_file()
    assert any(note.startswith("../again/base is the base model") for note in written.notes)


def test_a_catalogue_model_is_named_by_the_repository_it_was_made_from(tmp_path, monkeypatch):
    file = tiny_llama.write_gguf(tmp_path / "model.gguf", dtype="Q4_1")
    source = open_source(file)
    known = replace(
        catalogue.CATALOGUE["smollm2-135m"], members=(catalogue.Member("x", "model.gguf", 1, source.sha256()),)
    )
    monkeypatch.setitem(catalogue.CATALOGUE, "smollm2-135m", known)
    with store.workspace() as space:
        (space / "smollm2-135m").mkdir()
        stored = Path(shutil.copy(file, space / "smollm2-135m"))
        entry = store.ModelEntry("smollm2-135m", stored, "gguf", "a package", "Apache-2.0", source.sha256(), 1)
        store.add_model(stored.parent, entry)
    artifact = make(file, tmp_path / "artifact")
    written = export.export(str(artifact), "peft", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct" and "revision" not in config
    assert "has weights that are not rounded" in written.notes[0] and "--with-base" in written.notes[0]
    predictor = open_target(tmp_path / "out", None, "fp32")
    assert "is smollm2-135m here, with rounded weights" in predictor.note
    export.export(str(artifact), "peft", tmp_path / "with", with_base=True)  # the file, as transformers reads it
    assert (tmp_path / "with" / "base" / "config.json").is_file()
    assert riyaz_answer(tmp_path / "with") == riyaz_answer(tmp_path / "out")


def test_without_the_base_its_path_is_named_and_a_whole_model_takes_no_base(base, tmp_path, capsys):
    artifact = make(base, tmp_path / "artifact")
    words = ["export", artifact, "--format", "peft", "--out", tmp_path / "out", "--without-base"]
    assert cli.main([str(word) for word in words]) == 0
    assert "note: the adapter names its base by its path on this machine" in capsys.readouterr().err
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base) and not (tmp_path / "out" / "base").exists()
    with assert_refused("hf holds a whole model", "leave it out"):
        export.export(str(artifact), "hf", tmp_path / "hf", with_base=True)


def test_a_lora_for_llama_cpp_goes_with_a_gguf_file_of_its_base(base, tmp_path):
    artifact = make(base, tmp_path / "artifact")
    export.export(str(artifact), "gguf-lora", tmp_path / "out")
    ours, theirs = (open_source(path).tokenizer() for path in (tmp_path / "out" / "base.gguf", base))
    assert ours.encode(QUESTION) == theirs.encode(QUESTION)
    lines = (tmp_path / "out" / "Modelfile").read_text().splitlines()
    assert lines[:2] == ["FROM ./base.gguf", "ADAPTER ./adapter.gguf"]
    file = tiny_llama.write_gguf(tmp_path / "model.gguf")
    export.export(str(make(file, tmp_path / "gguf" / "artifact")), "gguf-lora", tmp_path / "linked")
    assert (tmp_path / "linked" / "base.gguf").samefile(file), "a hard link takes no room"
    export.export(str(artifact), "gguf-lora", tmp_path / "bare", with_base=False)
    assert not (tmp_path / "bare" / "base.gguf").exists()


CLOSED = Task("closed", ("billing", "it's `odd`"), "accuracy", "", "given")


def test_instruction_labels_and_examples_go_along(base, tmp_path, capsys):
    artifact = make(base, tmp_path / "artifact")
    change(artifact, task=CLOSED, text=replace(TEXT, list_labels=True), calibrated=True)
    assert cli.main(["export", str(artifact), "--format", "gguf", "--out", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "note: closed set: riyaz answers with the likeliest of the 2 labels, corrected by" in said
    readme = (tmp_path / "out" / "README.md").read_text()
    for part in ("Answer with one word.", "- `billing`", "- `` it's `odd` ``", "user: a fox?", "assistant: yes"):
        assert part in readme
    assert "## What this folder does not hold\n\n- closed set: riyaz answers" in readme
    prompt = json.loads((tmp_path / "out" / "prompt.json").read_text())
    system = "Answer with one word.\n\nThe labels:\nbilling\nit's `odd`"
    turns = [("system", system), ("user", "a fox?"), ("assistant", "yes")]
    assert [(turn["role"], turn["content"]) for turn in prompt["messages"]] == turns
    assert prompt["labels"] == list(CLOSED.labels) and prompt["max_new_tokens"] == 8
    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert f'SYSTEM """{system}"""\nMESSAGE user """a fox?"""\nMESSAGE assistant """yes"""\n' in modelfile
    for line in ('PARAMETER stop "<|im_end|>"', "PARAMETER num_ctx 1024", "PARAMETER temperature 0",
                 "PARAMETER repeat_penalty 1", "PARAMETER num_predict 8"):  # fmt: skip
        assert f"\n{line}\n" in modelfile


def test_what_no_format_holds_is_said_in_the_readme(base, tmp_path):
    text = TextPart(examples="nearest", k=1, examples_file=artifacts.EXAMPLES)
    artifact = make(base, tmp_path / "artifact")
    change(artifact, text=text)
    notes = export.export(str(artifact), "hf", tmp_path / "out").notes
    assert [note.partition(":")[0] for note in notes] == ["nearest examples"]
    assert json.loads((tmp_path / "out" / "prompt.json").read_text())["messages"] == []
    document = replace(Artifact.read(artifact), text=replace(text, passages=3, span_words=4), task=CLOSED)
    said = export.prompt.not_held(document)
    assert [line.partition(":")[0] for line in said] == ["closed set", "retrieval", "spans", "nearest examples"]


def test_a_modelfile_cannot_hold_three_quotes(base, tmp_path):
    artifact = make(base, tmp_path / "artifact")
    change(artifact, text=replace(TEXT, instruction='Say """yes""".'))
    (note,) = export.export(str(artifact), "gguf", tmp_path / "out").notes
    assert "cannot hold" in note and "MESSAGE" not in (tmp_path / "out" / "Modelfile").read_text()


PLAIN = tiny_llama.CHAT_TEMPLATE
NO_SYSTEM = PLAIN.replace("{{ '<|im_start|>system\n" + tiny_llama.SYSTEM + "<|im_end|>\n' }}", "")
GEMMA = (
    "{{ bos_token }}{% set ns = namespace(first='') %}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{% set ns.first = m['content'] + '\n\n' %}{% else %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + ns.first + m['content'] + '<|im_end|>\n' }}{% set ns.first = '' %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKS = PLAIN.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}")


def go_render(template: str, conversation: list[dict]) -> str:
    """The template as Ollama runs it, for the few actions that ours has."""
    system = next((turn["content"] for turn in conversation if turn["role"] == "system"), "")
    head, body = re.fullmatch(r"(.*?)\{\{ range .Messages }}(.*)\{\{ end }}", template, re.S).groups()
    if match := re.fullmatch(r"\{\{ if .System }}(.*)\{\{ else }}(.*)\{\{ end }}", head, re.S):
        head = match[1].replace("{{ .System }}", system) if system else match[2]
    pattern = r'\{\{ if eq .Role "user" }}(.*)\{\{ else if eq .Role "assistant" }}(.*)\{\{ end }}'
    parts = dict(zip(("user", "assistant"), re.fullmatch(pattern, body, re.S).groups()))
    turns = [turn for turn in conversation if turn["role"] in parts]
    return head + "".join(parts[turn["role"]].replace("{{ .Content }}", turn["content"]) for turn in turns)


@pytest.mark.parametrize("template", [PLAIN, NO_SYSTEM, GEMMA])
def test_ollamas_template_writes_what_the_models_own_writes(tmp_path, template):
    tiny_llama.write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    tokenizer = Tokenizer.from_folder(tmp_path)
    turns = turns_of(tokenizer)
    assert turns.before_user == "<|im_start|>user\n" or template == GEMMA
    talk = [{"role": role, "content": f"{role} says {{{{ 1 }}}}"} for role in ("user", "assistant", "user")]
    for conversation in (talk[:1], talk, [{"role": "system", "content": "Be kind."}, *talk]):
        (wanted,) = tokenizer.render_texts([conversation])
        assert go_render(turns.go(), conversation) == wanted


def test_a_template_that_ollama_cannot_express_is_left_out(tmp_path):
    base = tiny_llama.write_hf_folder(tmp_path / "tiny-base")
    for template in (THINKS, PLAIN.replace("assistant\n' }}", "assistant\n{{ ' }}")):
        (base / "chat_template.jinja").write_text(template)
        assert turns_of(Tokenizer.from_folder(base)) is None
    (note,) = export.export(str(base), "gguf", tmp_path / "out").notes
    assert note.startswith("Ollama's template language cannot express")
    assert "TEMPLATE" not in (tmp_path / "out" / "Modelfile").read_text()


def test_an_instruction_without_a_system_turn_begins_the_question(tmp_path):
    tiny_families.make(tiny_families.FAMILIES["gpt2"], tmp_path / "tiny-base")
    (tmp_path / "tiny-base" / "chat_template.jinja").write_text(
        "{% for m in messages if m['role'] != 'system' %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    artifact = make(tmp_path / "tiny-base", tmp_path / "artifact")
    change(artifact, text=TextPart(instruction="Be short."))
    export.export(str(artifact), "hf", tmp_path / "out")
    prompt = json.loads((tmp_path / "out" / "prompt.json").read_text())
    assert (prompt["messages"], prompt["opening"]) == ([], "Be short.\n\n")
