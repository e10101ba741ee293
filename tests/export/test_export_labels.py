"""An artifact that scores its labels by a head: the head goes along, and the README's code gives riyaz's answers."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from refusals import assert_refused
from test_export import make
from test_export_deploy import QUESTION, alone, change, python_block

from riyaz import adapters, export
from riyaz import artifact as artifacts
from riyaz.artifact import LABELS, Artifact, TextPart, WeightsPart
from riyaz.data.task import Task
from riyaz.engine.parts import finished
from riyaz.export.quantize import Small, quantize
from riyaz.families import describe
from riyaz.json_files import from_json
from riyaz.predictor import LabelHead, open_target
from riyaz.sources import open_source, safetensors

TASK = Task("closed", ("delivery", "other", "refund"), "accuracy", "Name the topic.", "")
QUESTIONS = (QUESTION, "has my parcel left?", "a bicycle!")


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def base(tmp_path) -> Path:
    return tiny_llama.write_hf_folder(tmp_path / "tiny-base")


def scoring(base: Path, folder: Path, kind: str) -> Path:
    """An artifact with weights of this kind and a head of three labels, each of which is the answer to a question."""
    make(base, folder, "full" if kind == "full" else "lora")
    made = Artifact.read(folder)
    files = {name: (folder / name).read_bytes() for name in made.checksums}
    if kind == "soft_prompt":
        vectors = np.random.default_rng(3).standard_normal((5, 64)).astype(np.float32)
        adapters.peft_prompt.write(vectors, folder, describe(open_source(base)), base="tiny-base")
        files |= {path.name: path.read_bytes() for path in folder.glob("adapter_*")}
    document = replace(made, weights=WeightsPart(kind), task=TASK, text=TextPart(TASK.instruction))
    artifacts.write(folder, document, files)
    predictor = open_target(folder, str(base), "fp32")
    prepared = predictor.prepare([[{"role": "user", "content": question}] for question in QUESTIONS])
    hidden = finished(predictor.lm.hidden_states([each.request for each in prepared]))  # (3, C)
    apart = hidden - hidden.mean(0)
    LabelHead(apart / np.square(apart).sum(1).min()).write(folder / LABELS)
    files |= {LABELS: (folder / LABELS).read_bytes()}
    artifacts.write(folder, replace(document, weights=WeightsPart(kind, label_head=True), temperature=1.5), files)
    return folder


def probabilities(target: Path, base: str | None = None) -> np.ndarray:
    """The labels' probabilities (3, L) of three questions, whose answers differ."""
    predictor = open_target(target, base, "fp32")
    answers = predictor.answers([[{"role": "user", "content": question}] for question in QUESTIONS])
    assert [answer.text for answer in answers] == [
        TASK.labels[int(np.asarray(answer.probabilities).argmax())] for answer in answers
    ]
    return np.array([answer.probabilities for answer in answers])


def of_readme(folder: Path) -> np.ndarray:
    """The same from the README's code."""
    rows, code = [], python_block(folder)
    for question in QUESTIONS:
        Path("ask.py").write_text(code.replace(QUESTION, question), encoding="utf-8")
        names = runpy.run_path("ask.py")
        rows.append(names["probabilities"].numpy())
        assert names["answer"] == TASK.labels[int(rows[-1].argmax())]
    return np.array(rows)


@pytest.mark.parametrize(
    ("kind", "format"), [("lora", "peft"), ("soft_prompt", "peft"), ("lora", "hf"), ("full", "hf")]
)
def test_the_readmes_code_scores_labels_as_riyaz_does(base, tmp_path, monkeypatch, kind, format):
    artifact = scoring(base, tmp_path / "artifact", kind)
    wanted = probabilities(artifact)
    assert wanted.argmax(1).tolist() == [0, 1, 2]
    monkeypatch.chdir(tmp_path)
    written = export.export("artifact", format, Path("out"), dtype="float32" if format == "hf" else None)
    assert not any("write freely" in note for note in written.notes)
    folder = alone(tmp_path / "out", monkeypatch, base)
    readme = (folder / "README.md").read_text()
    assert f"`{LABELS}` holds one row of numbers for each" in readme
    assert json.loads((folder / "prompt.json").read_text())["labels"] == list(TASK.labels)
    close = 2e-3 if kind == "full" else 1e-4  # a whole model is in bf16, and transformers rounds its products to that
    assert np.abs(of_readme(folder) - wanted).max() < close


@pytest.mark.parametrize("format", ["gguf", "gguf-lora", "mlx"])
def test_a_format_whose_tools_run_no_head_is_refused(base, tmp_path, format):
    artifact = scoring(base, tmp_path / "artifact", "lora")
    with assert_refused("scores its labels by a head", "--format peft or hf"):
        export.export(str(artifact), format, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merged_and_with_small_weights_it_keeps_its_head(base, tmp_path):
    artifact = scoring(base, tmp_path / "artifact", "lora")
    wanted = probabilities(artifact)
    export.merge(artifact, tmp_path / "merged")
    assert np.abs(probabilities(tmp_path / "merged") - wanted).max() < 1e-4
    for source in (artifact, tmp_path / "merged"):
        quantize(str(source), Small("int8"), tmp_path / f"{source.name}-int8")
        assert np.abs(probabilities(tmp_path / f"{source.name}-int8") - wanted).max() < 0.1


def test_a_head_that_does_not_fit_is_one_line(base, tmp_path):
    artifact = scoring(base, tmp_path / "artifact", "lora")
    good = (artifact / LABELS).read_bytes()
    for head, words in (
        (np.zeros((2, 64), np.float32), "no float32 tensor weight of the shape 3 × 64"),
        (np.zeros((3, 64), np.float16), "no float32 tensor weight"),
        (np.full((3, 64), np.nan, np.float32), "NaN or an infinity"),
    ):
        safetensors.write(artifact / LABELS, {"weight": head})
        change_head(artifact)
        with assert_refused(LABELS, words):
            open_target(artifact)
    (artifact / LABELS).write_bytes(good)
    change_head(artifact)
    change(artifact, task=replace(TASK, kind="free"))
    with assert_refused("label_head"):
        open_target(artifact)


def change_head(artifact: Path) -> None:
    """Write the artifact again with the head that now lies in it."""
    text = json.loads((artifact / artifacts.NAME).read_text())
    files = {name: (artifact / name).read_bytes() for name in text["checksums"]}
    del text["format"]
    artifacts.write(artifact, from_json(Artifact, text, "riyaz.json", ""), files)
