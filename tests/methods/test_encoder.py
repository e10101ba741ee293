"""The method `encoder`: training, resuming to the bit, calibration, the artifact, its export, and what is refused."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
import torch
from fit_context import TASK, fit_context
from refusals import assert_refused
from transformers import AutoModel, AutoTokenizer

from riyaz import artifact as artifacts
from riyaz import export
from riyaz.artifact import CLASSIFIER, ENCODER, ENCODER_WEIGHTS, Artifact
from riyaz.comparison import arm_row
from riyaz.data import Example
from riyaz.engine.native import embedder as native_embedder
from riyaz.engine.native.embedder import NativeEmbedder
from riyaz.engine.torch.embedder import TorchEmbedder
from riyaz.events import Event, Progress
from riyaz.export import encoder as encoder_export
from riyaz.methods import encoder
from riyaz.methods.fitting import encoder_training, pacing
from riyaz.methods.fitting.base import ArmPlan, Context, Fitted
from riyaz.methods.fitting.held_out import HELD_OUT
from riyaz.predictor import open_artifact
from riyaz.sources import open_source

VECTOR = 1e-5  # largest difference of a number of a vector to transformers', both in float32
TEXTS = ["where is my refund", "The card payment was declined!", "naïve CAFÉ, 漢字 😀", "bikes biked biking " * 200, ""]


@pytest.fixture(autouse=True)
def minilm(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny embedder as minilm, and training that suits its size."""
    tiny_bert.keep(own_store)
    monkeypatch.setattr(encoder_training, "RATE", 1e-3)
    monkeypatch.setattr(encoder_training, "BATCH", 8)


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    return in_folder(fit_context(model_folder, tmp_path), tmp_path / "run")


def in_folder(context: Context, folder: Path) -> Context:
    folder.mkdir()
    return replace(context, folder=folder)


def written(fitted: Fitted, folder: Path) -> Path:
    artifacts.write(folder, Artifact("encoder", fitted.text, fitted.weights, task=TASK), fitted.files)
    return folder


def contents(fitted: Fitted) -> dict[str, bytes]:
    return {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in fitted.files.items()}


def test_it_learns_labels_and_says_how_sure_it_is(context: Context, tmp_path: Path) -> None:
    fitted = encoder.fit(context)
    assert fitted.calibrated and fitted.chosen["rows"] == 33
    assert fitted.checks["vectors_equal"]["ok"] and fitted.valid_score is not None and fitted.valid_score > 0.7
    assert [entry["step"] for entry in fitted.curve] == list(range(1, fitted.chosen["steps"] + 1))
    assert (
        fitted.trainable_params
        == sum(
            weight.size for name, weight in tiny_bert.weights().items() if "pooler" not in name and "word" not in name
        )
        + 3 * 64
    ), "all but the vectors of the tokens"
    answers = open_artifact(written(fitted, tmp_path / "artifact")).answers([row.messages for row in context.valid])
    assert [answer.text for answer in answers] == [row.answer for row in context.valid]
    for answer in answers:
        assert answer.probabilities is not None and answer.probabilities.sum() == pytest.approx(1)
        assert answer.confidence == pytest.approx(answer.probabilities.max(), abs=1e-4)
        assert answer.runner_up not in (None, answer.text)
    assert sorted(path.name for path in context.folder.iterdir()) == [HELD_OUT, encoder.WRITTEN]


def stopping_at(count: int) -> Callable[[Event], None]:
    """A listener that stops the fit at so many steps of all its runs."""
    steps = iter(range(1, count))

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and next(steps, None) is None:
            raise KeyboardInterrupt

    return listen


def test_a_stopped_fit_goes_on_to_the_same_bytes(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_training, "CHECKPOINT_STEPS", 5)
    steps: list[Event] = []
    whole = contents(encoder.fit(replace(context, listen=steps.append)))
    stopped = in_folder(context, tmp_path / "stopped")
    for stop in (12, 25, 50):  # steps of this process: in the first fold, in the second, in the last run
        with pytest.raises(KeyboardInterrupt):
            encoder.fit(replace(stopped, listen=stopping_at(stop)))
    again: list[Event] = []
    assert contents(encoder.fit(replace(stopped, listen=again.append))) == whole
    assert len(again) < len(steps) / 2, "it went on where it had been stopped"
    other = in_folder(replace(context, seed=context.seed + 1), tmp_path / "other")
    assert contents(encoder.fit(other)) != whole


def test_slow_steps_shorten_every_run_to_its_share_of_the_limit(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 0.0

    def listen(event: Event) -> None:
        nonlocal seconds
        seconds += isinstance(event, Progress) and event.phase == "train"

    monkeypatch.setattr(pacing.time, "perf_counter", lambda: seconds)  # a step takes one
    fitted = encoder.fit(replace(context, listen=listen, arm=replace(context.arm, train_limit=12.0)))
    assert 4 <= fitted.chosen["steps"] <= 7 < fitted.chosen["recipe_steps"] and seconds <= 14
    assert not list(context.folder.glob("*pace.json"))
    row = arm_row.with_own_steps(ArmPlan("encoder"), fitted.chosen)
    assert row.cut and (row.steps, row.recipe_steps) == (fitted.chosen["steps"], fitted.chosen["recipe_steps"])


def test_torch_c_and_transformers_give_the_artifact_equal_vectors(context: Context, tmp_path: Path) -> None:
    folder = written(encoder.fit(context), tmp_path / "artifact")
    source, plain = open_source(folder), TorchEmbedder(open_source("minilm")).embed(TEXTS)
    theirs = transformers_vectors(folder)
    for embedder in (TorchEmbedder(source), NativeEmbedder(source)):
        assert np.abs(embedder.embed(TEXTS) - theirs).max() <= VECTOR
    assert np.abs(plain - theirs).max() > 0.01  # it was trained; rag's embedder was not
    assert open_source(folder).tensors.keys() == tiny_bert.weights().keys()  # with the pooler, which is not read


def transformers_vectors(folder: Path) -> np.ndarray:
    """Mean pooling over transformers' hidden states, scaled to length one."""
    model, tokenizer = (
        AutoModel.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    vectors: np.ndarray = torch.nn.functional.normalize((hidden * mask).sum(1), dim=1).numpy()
    return vectors


def test_bfloat16_is_stored_as_it_was_trained(context: Context, tmp_path: Path) -> None:
    folder = written(encoder.fit(replace(context, compute="bfloat16")), tmp_path / "artifact")
    source = open_source(folder)
    assert {info.dtype for name, info in source.tensors.items() if "pooler" not in name} == {"BF16"}
    predictor = open_artifact(folder)
    assert [predictor.answer(row.messages) for row in context.train] == [row.answer for row in context.train]


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_code_of_an_export_gives_the_same_answers(
    context: Context, tmp_path: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(native_embedder.native, "isa", lambda: "avx2")  # on which the embedder computes in float32
    monkeypatch.setattr(encoder, "SHARES", (share,))
    monkeypatch.setattr(encoder_export, "hub_name", lambda name: str(own_store / "models" / name))
    artifact = written(encoder.fit(context), tmp_path / "artifact")
    assert (artifact / CLASSIFIER).is_file() == (share < 1)
    result = export.export(str(artifact), "hf", tmp_path / "out")
    assert result.difference < 1e-4 and result.dtype == "float32" and "opened again" in result.line()
    readme = (tmp_path / "out" / "README.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S)[0]
    texts = [text for text in TEXTS if text]
    assert code.count("\n") <= 35 and 'texts = ["your text"]' in code
    code = code.replace('["your text"]', repr(texts))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    said = [line.rsplit(" ", 1) for line in run.stdout.splitlines()]
    answers = open_artifact(artifact).answers([[{"role": "user", "content": text}] for text in texts])
    assert [label for label, _ in said] == [answer.text for answer in answers]
    assert [float(p) for _, p in said] == pytest.approx([answer.confidence for answer in answers], abs=1e-3)
    vectors = TorchEmbedder(open_source(artifact)).embed(TEXTS)
    assert np.abs(transformers_vectors(tmp_path / "out") - vectors).max() <= VECTOR


def test_a_prompt_in_two_groups_is_on_one_side_of_a_fold_once() -> None:
    texts = [("same", "g1"), ("one", "g1"), ("same", "g2"), ("two", "g2"), ("three", "g3"), ("four", "g4")]
    rows = [Example(({"role": "user", "content": text},), ("ab"[place % 2],), group=group)
            for place, (text, group) in enumerate(texts)]  # fmt: skip
    folds = encoder._folds(rows, 0)
    assert sorted(place for _, held in folds for place in held) == [*range(6)], "each is held out once"
    for fitted, held in folds:
        assert not {rows[place].group for place in fitted} & {rows[place].group for place in held}
        assert not {rows[place].prompt for place in fitted} & {rows[place].prompt for place in held} and fitted


def test_the_regression_takes_part_unless_it_makes_held_out_rows_less_likely() -> None:
    generator = np.random.default_rng(0)
    accepted = np.eye(4, dtype=bool)[generator.integers(4, size=400)]
    one, other = (generator.normal(size=(400, 4)) + 2 * accepted for _ in range(2))
    noise = generator.normal(size=(400, 4))
    both, tried = encoder.choose_factors(one, other, accepted)
    assert both.cosine > 0 and both.linear > 0 and [entry["share"] for entry in tried] == list(encoder.SHARES)
    assert tried[0]["log_loss"] < tried[1]["log_loss"]
    alone, tried = encoder.choose_factors(one, noise, accepted)
    assert tried[1]["log_loss"] < tried[0]["log_loss"] - encoder.GAIN
    assert alone.linear == 0 and alone.cosine == pytest.approx(2, rel=0.3), "log p of such scores is twice their values"


def test_an_estimate_leaves_nothing_behind(context: Context) -> None:
    timing = encoder.estimate(context)
    assert timing.fit > 0 and timing.row > 0 and timing.alone > 0 and timing.rss_mb > 0 and timing.disk_mb > 0
    assert not list(context.folder.iterdir())


def test_long_rows_are_trained_on_for_fewer_epochs() -> None:
    few, rows = encoder_training.training_steps(450, 20), 10_000
    assert few == round(encoder_training.EPOCHS * 450 / encoder_training.BATCH)
    many = encoder_training.training_steps(rows, 200)
    assert many == round(encoder_training.LEAST_EPOCHS * rows / encoder_training.BATCH)
    assert encoder_training.training_steps(1, 5) >= 1


def test_what_does_not_belong_together_is_refused(context: Context, tmp_path: Path, own_store: Path) -> None:
    folder = written(encoder.fit(context), tmp_path / "artifact")
    (tmp_path / "broken").mkdir()
    for name, change, refusal in (
        (ENCODER, b'{"cosine": 0}', "the factors are 0"),
        (ENCODER, b"{}", "cosine is missing"),
        (ENCODER_WEIGHTS, b"", "encoder.safetensors"),
        ("config.json", b'{"model_type": "llama"}', "is not an embedder"),
    ):
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != artifacts.NAME}
        document = Artifact.read(folder)
        broken = tmp_path / "broken" / f"{name}-{len(change)}"
        artifacts.write(broken, document, files | {name: change})
        with assert_refused(refusal):
            open_artifact(broken)
    with assert_refused("no language model"):
        export.export(str(folder), "gguf", tmp_path / "gguf")
    with assert_refused("riyaz pull minilm"):
        shutil.rmtree(own_store / "models/minilm")
        encoder.fit(in_folder(context, tmp_path / "without"))
