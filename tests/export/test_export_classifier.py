"""A logistic regression as a folder that answers without riyaz: its script gives riyaz's probabilities."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
from fit_context import TASK, examples
from refusals import assert_refused

from riyaz import artifact as artifacts
from riyaz import export
from riyaz.artifact import Artifact, WeightsPart
from riyaz.classifiers.fitting import fit_classifier
from riyaz.engine import opening
from riyaz.engine.embedder import ModelEmbedder
from riyaz.export import classifier
from riyaz.predictor import open_artifact

ROWS = examples(36, "please")
TEXTS = ("Where is MY refund??", "カードが使えない の card", "", "straße \ud800 order\n\n the order", "money " * 3000)


def written(folder: Path, embedder: ModelEmbedder | None = None) -> Path:
    """The artifact of a regression that reads terms, and vectors of an embedder."""
    folder.mkdir()
    made = fit_classifier(
        [f"{row.prompt} の カード \ud800" for row in ROWS], [row.answer for row in ROWS], TASK.labels, embedder, 0
    )
    artifact = Artifact("linear", weights=WeightsPart("linear"), task=TASK)
    artifacts.write(folder / "artifact", artifact, made.classifier.files(folder))
    return folder / "artifact"


def run(folder: Path, text: str) -> dict:
    """What the exported script says of a text, in a process that cannot import riyaz."""
    code = "import sys, runpy; sys.modules['riyaz'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    arguments = [sys.executable, "-c", code.replace("sys.argv[1]", "sys.argv.pop(1)"), str(folder / classifier.SCRIPT)]
    done = subprocess.run([*arguments, text], capture_output=True, text=True, errors="surrogatepass")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expect_equal(folder: Path, source: Path, texts: tuple[str, ...]) -> None:
    predictor = open_artifact(source)
    for text, wanted in zip(texts, predictor.answers([[{"role": "user", "content": text}] for text in texts])):
        answer = run(folder, text)
        assert answer["label"] == wanted.text, text
        assert wanted.probabilities is not None
        np.testing.assert_allclose(
            list(answer["probabilities"].values()), wanted.probabilities, atol=1e-3
        )  # the embedder rounds
        assert list(answer["probabilities"]) == list(TASK.labels)


def test_the_script_gives_the_same_probabilities(tmp_path: Path) -> None:
    source = written(tmp_path / "made")
    result = export.export(str(source), "numpy", tmp_path / "out")
    assert result.difference == 0 and result.notes == ()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "classify.py", "classifier.json", "classifier.safetensors",
    }  # fmt: skip
    script, readme = ((tmp_path / "out" / name).read_text("utf-8") for name in ("classify.py", "README.md"))
    assert script in readme and "torch" not in script and "riyaz" not in script
    expect_equal(tmp_path / "out", source, TEXTS[:3])
    assert len(script[script.index("FOLDER") :].splitlines()) <= 40, "a script that one reads at a glance"


@pytest.mark.slow
def test_the_vectors_are_those_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = opening.open_embedder(str(tiny_bert.write_folder(tmp_path / "bert")))
    monkeypatch.setattr(opening, "open_embedder", lambda name: embedder)
    source = written(tmp_path / "made", embedder)
    monkeypatch.setattr(classifier, "hub_name", lambda name: str(tmp_path / "bert"))
    export.export(str(source), "numpy", tmp_path / "out")
    expect_equal(tmp_path / "out", source, TEXTS[:1])


def test_other_artifacts_and_formats_are_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "made")
    with assert_refused("this artifact is a logistic regression, which hf cannot hold", "--format numpy"):
        export.export(str(source), "hf", tmp_path / "out")
    copying = Artifact("nearest", weights=WeightsPart("copy"), task=replace(TASK))
    artifacts.write(tmp_path / "copying", copying, {artifacts.EXAMPLES: artifacts.examples_bytes(ROWS)})
    with assert_refused("the format numpy is of logistic regressions, and this artifact is none"):
        export.export(str(tmp_path / "copying"), "numpy", tmp_path / "out")
    with assert_refused("is no artifact", "numpy is the format of an artifact's classifier"):
        export.export(str(tmp_path / "nothing"), "numpy", tmp_path / "out")
    assert not (tmp_path / "out").exists()
