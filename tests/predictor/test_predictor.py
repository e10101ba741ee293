"""Predictors from their parts: what they ask the engine, closed sets, calibration, artifacts of every kind."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_comparison
import tiny_llama
import torch
from refusals import assert_refused
from small_llama import label_log_probabilities, next_log_p, save_peft

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel, TextPart, WeightsPart
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine.engine import Engine
from riyaz.engine.torch import load as torch_load
from riyaz.engine.torch.runner import TorchRunner
from riyaz.layers.swaps import lora
from riyaz.models import load
from riyaz.predictor import (
    CHAT_TOKENS,
    ClosedPredictor,
    CopyPredictor,
    FreePredictor,
    Predictor,
    PromptedModel,
    open_artifact,
    open_model,
    open_target,
    predictor_for,
)
from riyaz.predictor.closed import NULL_CONTEXTS
from riyaz.predictor.prompt import SHORTEST_PREFIX
from riyaz.sources import open_source

TASK = Task("closed", ("billing", "delivery", "refund"), "accuracy", "Classify the text. Answer with one label.", "")
OPEN = Task("short", (), "exact_match", "Answer the question in a few words.", "")
TEXTS = {
    "where is my refund": "refund", "the order did not arrive": "delivery", "my card payment was declined": "billing",
    "I want the money back": "refund", "when does it arrive": "delivery", "please change my bill": "billing",
}  # fmt: skip
EXAMPLES = tuple(
    Example(({"role": "user", "content": text},), (label,), where=f"train.jsonl:{i}")
    for i, (text, label) in enumerate(TEXTS.items(), 1)
)
QUESTIONS = [[{"role": "user", "content": text}] for text in ("where is it?", "\n\nwho pays?", "", "my refund, now")]


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Float32 on one thread, and a store of the tests' own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RIYAZ_HOME", str(tmp_path_factory.mktemp("home")))
    patch.setattr(torch_load.hardware, "cores", lambda: 1)
    tiny_comparison.serve_in_float32(patch)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=1)


@pytest.fixture(scope="module")
def model(folder: Path) -> FreePredictor:
    return open_model(folder)


@pytest.fixture(scope="module")
def classifier(model: FreePredictor) -> ClosedPredictor:
    told = predictor_for(replace(model, text=TextPart(TASK.instruction, list_labels=True), task=TASK))
    assert isinstance(told, ClosedPredictor)
    return told


def base_of(folder: Path) -> BaseModel:
    return BaseModel("tiny", str(folder), open_source(folder).sha256(), 1)


def log_probability(predictor: PromptedModel, messages: list, answer: str) -> float:
    """log p(answer and its end) by one plain pass over the whole conversation."""
    ids = predictor.tokenizer.render(predictor.conversations([messages]))[0]
    more = predictor.tokenizer.answer_ids([answer])[0]
    return sum(float(next_log_p(predictor.lm, [*ids, *more[:i]])[token]) for i, token in enumerate(more))


@pytest.mark.parametrize("examples", ["none", "fixed", "nearest"])
def test_prefix_and_tokens_are_the_rendered_prompt(classifier: ClosedPredictor, examples: str) -> None:
    text = replace(classifier.text, examples=examples, k=2)
    predictor = replace(classifier, text=text, examples=EXAMPLES[:4])
    system = [{"role": "system", "content": "Another start."}, *QUESTIONS[0]]
    requests = [prepared.request for prepared in predictor.prepare([*QUESTIONS, system])]
    rendered = predictor.tokenizer.render(predictor.conversations([*QUESTIONS, system]))
    assert [[*r.prefix, *r.tokens] for r in requests] == rendered
    assert len({r.prefix for r in requests[:1] + requests[3:4]}) == 1
    assert len(requests[0].prefix) >= SHORTEST_PREFIX and requests[-1].prefix == ()
    if examples == "fixed":
        assert len(requests[0].tokens) < 30 < len(requests[0].prefix)


def test_a_model_answers_as_generation_says(model: FreePredictor) -> None:
    together = [p.text for p in replace(model, max_new_tokens=6).answers(QUESTIONS)]
    for messages, text in zip(QUESTIONS, together):
        ids = model.tokenizer.render([messages])[0]
        for _ in range(6):
            token = int(next_log_p(model.lm, ids).argmax())
            if token in model.tokenizer.eos_ids:
                break
            ids.append(token)
        answer = model.tokenizer.decode(ids[len(model.tokenizer.render([messages])[0]) :]).strip()
        assert model.answer(messages, max_tokens=6) == text == answer
    assert model.answers([]) == []


def test_a_closed_set_is_answered_by_its_most_likely_label(classifier: ClosedPredictor) -> None:
    for messages, one, every in zip(
        QUESTIONS, classifier.answers(QUESTIONS), label_log_probabilities(classifier, QUESTIONS)
    ):
        wanted = [log_probability(classifier, messages, label) for label in TASK.labels]
        assert one.text == TASK.labels[int(np.argmax(every))] == TASK.labels[int(np.argmax(wanted))]
        assert np.allclose(every, wanted, atol=1e-3)
        assert one.log_probability == pytest.approx(max(wanted), abs=1e-3)


@pytest.mark.parametrize("examples", ["none", "fixed", "nearest"])
def test_calibration_takes_off_what_the_prompt_says_by_itself(classifier: ClosedPredictor, examples: str) -> None:
    text = replace(classifier.text, examples=examples, k=2)
    predictor = replace(classifier, text=text, examples=EXAMPLES, calibrated=True)
    contexts = [()]
    if examples != "none":
        contexts = [tuple(shown) for shown in predictor._null_contexts()]
        assert len(contexts) == (1 if examples == "fixed" else NULL_CONTEXTS)
    nulls = np.mean(
        [
            np.exp([log_probability(shown, null, label) for label in TASK.labels])
            for context in contexts
            for null in ([{"role": "user", "content": "N/A"}], [{"role": "user", "content": ""}])
            for shown in [replace(predictor, text=replace(text, examples="fixed"), examples=context)]
        ],
        axis=0,
    )
    assert np.allclose(predictor.offsets, -np.log(nulls), atol=1e-3)
    for messages, found in zip(QUESTIONS, predictor.answers(QUESTIONS)):
        raw = [log_probability(predictor, messages, label) for label in TASK.labels]
        assert found.text == TASK.labels[int(np.argmax(raw - np.log(nulls)))]
    assert not classifier.offsets.any()


def test_nearest_examples_stand_before_the_question_the_nearest_last(classifier: ClosedPredictor) -> None:
    predictor = replace(classifier, text=TextPart("Go.", examples="nearest", k=2), examples=EXAMPLES)
    asked = [{"role": "user", "content": "where is the refund of my card payment"}]
    found = predictor.conversations([asked])[0]
    shown = [turn["content"] for turn in found]
    assert shown[1:-1] == ["my card payment was declined", "billing", "where is my refund", "refund"]


def test_a_prompt_longer_than_the_context_is_refused(model: FreePredictor) -> None:
    long = [{"role": "user", "content": "card " * 1000}]
    with assert_refused("rows.jsonl:9", "the prompt has", "with 7 for the answer", "context of 1024"):
        replace(model, max_new_tokens=7).answers([QUESTIONS[0], long], ["rows.jsonl:1", "rows.jsonl:9"])
    with assert_refused("rows.jsonl:2", "with 1000 for the answer"):
        replace(model, max_new_tokens=1000).prepare([QUESTIONS[0]], ["rows.jsonl:2"])


def test_labels_with_equal_tokens_are_refused(classifier: ClosedPredictor) -> None:
    task = replace(TASK, labels=("a", "re\ud800", "re\ud801"))  # no UTF-8 holds half a pair
    with assert_refused("the labels", "have the same tokens"):
        replace(classifier, task=task).prepare([QUESTIONS[0]])


def test_an_artifact_without_weights_answers_as_its_parts(
    folder: Path, classifier: ClosedPredictor, tmp_path: Path
) -> None:
    text = replace(classifier.text, examples="fixed", k=2)
    built = replace(classifier, text=text, examples=EXAMPLES[:2], calibrated=True)
    artifact = Artifact("few_shot", text=text, base=base_of(folder), task=TASK, calibrated=True)
    artifacts.write(tmp_path / "a", artifact, {artifacts.EXAMPLES: artifacts.examples_bytes(EXAMPLES[:2])})
    opened = open_target(tmp_path / "a")
    assert [p.text for p in opened.answers(QUESTIONS)] == [p.text for p in built.answers(QUESTIONS)]
    assert opened.has_model
    bare, given = (p.prepare([QUESTIONS[0]])[0].request for p in (opened.base(), opened))
    assert bare.tokens == given.tokens
    again = open_artifact(tmp_path / "a", base=str(folder))
    assert isinstance(again, ClosedPredictor) and again.calibrated


def test_a_lora_artifact_and_its_base(folder: Path, classifier: ClosedPredictor, tmp_path: Path) -> None:
    source = open_source(folder)
    trained = load(source, torch.float32)
    lora.apply(trained, r=4, alpha=8, seed=0)
    for _, layer in lora.lora_layers(trained):
        torch.nn.init.normal_(layer.lora_B, std=0.3)
    (tmp_path / "peft").mkdir()
    save_peft(trained, tmp_path / "peft", base="tiny", alpha=8)
    artifact = Artifact("lora", text=classifier.text, weights=WeightsPart("lora"), base=base_of(folder), task=TASK)
    artifacts.write(tmp_path / "a", artifact, {path.name: path for path in (tmp_path / "peft").iterdir()})
    opened = open_artifact(tmp_path / "a")
    assert isinstance(opened, ClosedPredictor)

    def scores(predictor: ClosedPredictor) -> np.ndarray:
        return label_log_probabilities(predictor, QUESTIONS)

    assert np.allclose(scores(opened.base()), scores(classifier), atol=1e-4)
    assert np.abs(scores(opened) - scores(classifier)).max() > 0.1
    lora.merge(trained)
    merged = replace(classifier, lm=Engine(TorchRunner(trained)))
    assert np.allclose(scores(opened), scores(merged), atol=1e-3)


@pytest.mark.parametrize("target", ["model", "artifact", "adapter"])
def test_the_weights_are_opened_in_the_precision_that_is_asked_for(folder: Path, tmp_path: Path, target: str) -> None:
    path = folder
    if target != "model":
        trained = load(open_source(folder), torch.float32)
        lora.apply(trained, r=4, alpha=8, seed=0)
        (path := tmp_path / "peft").mkdir()
        save_peft(trained, path, base=str(folder), alpha=8)
    if target == "artifact":
        made = Artifact("lora", weights=WeightsPart("lora"), base=base_of(folder), task=OPEN)
        artifacts.write(path := tmp_path / "a", made, {file.name: file for file in (tmp_path / "peft").iterdir()})
    sizes = {}
    for precision, served in (("fp32", "fp32"), ("bf16", "bf16"), ("auto", "bf16"), ("int8", "int8"), ("int4", "int4")):
        opened: Any = open_target(path, precision=precision)  # type: ignore[arg-type]
        assert opened.lm.served == served
        assert isinstance(opened.answer(QUESTIONS[0], max_tokens=1), str)
        sizes[precision] = opened.lm.runner.nbytes
    assert sizes["fp32"] > sizes["bf16"] > sizes["int8"] > sizes["int4"]
    with assert_refused("unknown precision 'int3'", "auto, fp32, bf16, int8, int4"):
        open_target(path, precision="int3")  # type: ignore[arg-type]


def test_a_full_artifact_and_its_base(folder: Path, classifier: ClosedPredictor, tmp_path: Path) -> None:
    other = tiny_llama.write_hf_folder(tmp_path / "trained", seed=2)
    artifact = Artifact("full", text=classifier.text, weights=WeightsPart("full"), base=base_of(folder), task=TASK)
    artifacts.write(tmp_path / "a", artifact, {path.name: path for path in other.iterdir()})
    opened, wanted = open_artifact(tmp_path / "a"), replace(classifier, lm=open_model(other).lm)
    assert isinstance(opened, ClosedPredictor)
    for found, expected in ((opened, wanted), (opened.base(), classifier)):
        scores, others = (label_log_probabilities(p, QUESTIONS) for p in (found, expected))
        assert np.allclose(scores, others, atol=1e-4)


def test_a_base_whose_chat_template_changed_is_refused(tmp_path: Path) -> None:
    base = tiny_llama.write_hf_folder(tmp_path / "base")
    source = open_source(base)
    made = replace(base_of(base), template=source.tokenizer().template)
    artifacts.write(tmp_path / "a", Artifact("zero_shot", base=made, task=TASK), {})
    assert open_artifact(tmp_path / "a").has_model
    (base / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with assert_refused(str(tmp_path / "a"), "another chat template", "restore"):
        open_artifact(tmp_path / "a")


def test_an_artifact_for_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tiny_llama.write_hf_folder(tmp_path / "other", seed=9)
    artifact = Artifact("zero_shot", base=base_of(folder), task=TASK)
    artifacts.write(tmp_path / "a", artifact, {})
    with assert_refused(str(tmp_path / "a"), "was made for tiny (", "not for other (", "give the model"):
        open_artifact(tmp_path / "a", base=str(other))
    artifacts.write(tmp_path / "b", replace(artifact, base=replace(base_of(folder), path="gone/tiny")), {})
    with assert_refused("unknown model 'tiny'"):
        open_artifact(tmp_path / "b")


def test_the_nearest_answer_is_copied_without_torch(tmp_path: Path) -> None:
    artifact = Artifact("nearest", weights=WeightsPart("copy"), task=TASK)
    artifacts.write(tmp_path / "a", artifact, {artifacts.EXAMPLES: artifacts.examples_bytes(EXAMPLES)})
    opened = open_target(tmp_path / "a")
    assert not opened.has_model
    assert opened.answer([{"role": "user", "content": "a declined payment"}]) == "billing"
    code = (
        "import sys; from riyaz.predictor import open_target; p = open_target(sys.argv[1]); "
        "print(p.answer([{'role': 'user', 'content': 'a declined payment'}]), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True)
    assert done.stdout.split() == ["billing", "False"], done.stderr


@pytest.mark.parametrize("copies", [False, True])
def test_progress_ends_at_all(classifier: ClosedPredictor, copies: bool) -> None:
    told: list[tuple[int, int]] = []
    predictor: Predictor = CopyPredictor(examples=EXAMPLES) if copies else classifier
    predictor.answers(QUESTIONS, progress=lambda *at: told.append(at))
    assert told[-1] == (4, 4)


def test_a_short_context_leaves_half_of_it_to_the_question(folder: Path, tmp_path: Path) -> None:
    assert open_model(folder).max_new_tokens == CHAT_TOKENS
    short = shutil.copytree(folder, tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 200}))
    model = open_model(short)
    assert model.max_new_tokens == 100 and isinstance(model.answer([{"role": "user", "content": "hello"}]), str)
