"""Every method on rows that answer three typed questions: one artifact each, which answers all of them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
from fit_context import PLAN, TASK, fit_context
from fit_context import examples as labelled
from scipy.special import log_softmax
from tiny_embedder import BagEmbedder

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel
from riyaz.data import Example
from riyaz.data.questions import TRUE_FALSE, Choice, Question, answer_places, answers_text
from riyaz.data.task import Task
from riyaz.engine import opening
from riyaz.engine.parts import finished
from riyaz.errors import RiyazError
from riyaz.methods import METHODS, linear, nearest
from riyaz.methods.fitting import encoder_training
from riyaz.methods.fitting.base import Context, Fitted, instruction_only
from riyaz.metrics.calibration import fit_temperature
from riyaz.predictor import Decided, Predictor, answered_by, deciding_on, deciding_rows, open_artifact, own_questions
from riyaz.scoring import right_places, score

pytestmark = pytest.mark.usefixtures("in_float32")
QUESTIONS = (
    Question("team", "choice", "Who answers?", tuple(map(Choice, TASK.labels)), "team"),
    Question("urgent", "predicate", "Is it urgent?", TRUE_FALSE, "urgent"),
    Question("mood", "score", "How content?", tuple(map(Choice, ("1", "2", "3"))), "mood"),
)
ASKED = Task("questions", (), "decisions", "Answer questions about the text.", "", QUESTIONS)
SAME = 1e-4  # nats from the training code to the engine, both in float32
MODEL_FREE = ("nearest", "linear", "encoder")


def rows(count: int, ending: str) -> tuple[Example, ...]:
    """Rows whose words say every answer, some of which are missing."""
    made = []
    for i, row in enumerate(labelled(count, ending)):
        urgent, mood = (i // 3) % 2, i % 3
        places = (TASK.labels.index(row.answer), None if i % 5 == 2 else urgent, None if i % 4 == 1 else mood)
        words = f"{row.prompt} {('at once', 'some time')[urgent]} {('awful', 'fine', 'lovely')[mood]}"
        text = answers_text(QUESTIONS, places)
        made.append(replace(row, messages=({"role": "user", "content": words},), answers=(text,)))
    return tuple(made)


@pytest.fixture(autouse=True)
def embedder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BagEmbedder:
    """A tiny embedder in place of minilm, which counts what it reads."""
    bag = BagEmbedder("minilm")
    for module in (linear, nearest):
        monkeypatch.setattr(module, "pulled_embedder", lambda: bag)
    if "encoder" not in request.node.name:
        monkeypatch.setattr(opening, "open_embedder", lambda name: bag)
    return bag


@pytest.fixture
def minilm(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_bert.keep(own_store)
    monkeypatch.setattr(encoder_training, "RATE", 1e-3)
    monkeypatch.setattr(encoder_training, "BATCH", 8)


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    return fit_context(
        model_folder, tmp_path / "run", task=ASKED, train=rows(27, "please"), valid=rows(9, "today"),
        prompt_text=instruction_only(ASKED), precision="fp32",
    )  # fmt: skip


def fitted(context: Context, method: str) -> Fitted:
    context.folder.mkdir(exist_ok=True)
    return METHODS[method].fit(replace(context, arm=replace(PLAN, method=method)))


def written(context: Context, made: Fitted, method: str, folder: Path) -> Path:
    source = context.source
    base = BaseModel(source.name, str(source.path), source.sha256(), 1, context.tokenizer.template)
    document = Artifact(
        method, made.text, made.weights, None if method in MODEL_FREE else base, ASKED, made.calibrated,
        made.temperature, made.temperatures,
    )  # fmt: skip
    artifacts.write(folder, document, made.files)
    return folder


def decided(predictor: Predictor, examples: Sequence[Example]) -> list[np.ndarray]:
    """The probabilities (n, L) of each question's choices, which sum to 1, with answers that fit them."""
    predictions = predictor.answers([row.messages for row in examples])
    for each in predictions:
        assert [answer.question for answer in each.decided] == list(QUESTIONS)
        places = [answer.answer_place for answer in each.decided]
        assert answer_places(QUESTIONS, each.text) == tuple(places) and all(answer.trained for answer in each.decided)
    every = [np.stack([each.decided[place].probabilities for each in predictions]) for place in range(3)]
    assert [part.shape[1] for part in every] == [3, 2, 3]
    assert all(np.allclose(part.sum(1), 1, atol=1e-5) and (part >= 0).all() for part in every)
    return every


def best_loss(made: Fitted) -> float:
    """The loss of the validation rows by the weights that were kept, as the training code computed it."""
    (kept,) = [entry for entry in made.curve if entry["step"] == made.chosen["best_step"]]
    return float(kept["valid_loss"])


def accuracy(predictor: Predictor, examples: Sequence[Example]) -> float:
    return score(ASKED, predictor.answers([row.messages for row in examples]), examples).mean


@pytest.mark.parametrize("method", ["linear", "nearest", "encoder", "zero_shot"])
def test_a_method_answers_every_question(
    method: str, context: Context, tmp_path: Path, minilm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fitted(context, method)
    folder = written(context, made, method, tmp_path / "artifact")
    predictor = open_artifact(folder)
    assert (
        predictor.has_questions
        and own_questions(predictor) == QUESTIONS
        and predictor.has_model is (method == "zero_shot")
    )
    p = decided(predictor, context.valid)
    again = decided(open_artifact(folder), context.valid)
    assert all(np.array_equal(one, other) for one, other in zip(p, again, strict=True))
    alone = decided(predictor, context.valid[:1])
    assert all(np.allclose(one[0], other[0], atol=1e-5) for one, other in zip(p, alone, strict=True))
    assert made.valid_score is not None and 0 <= made.valid_score <= 1
    if method != "zero_shot":
        assert accuracy(predictor, context.valid) > 0.7 and made.valid_score > 0.6
    if method in ("nearest", "zero_shot"):
        assert len(made.temperatures) == 3 and all(t > 0 for t in made.temperatures)
    if method == "encoder":
        reads_once(folder, context.valid[:2], monkeypatch)


def reads_once(folder: Path, examples: Sequence[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder, and the one that the regression reads, see each text once for all three questions."""
    assert {f"encoder-{number}.json" for number in range(3)} <= {path.name for path in folder.iterdir()}
    predictor, read = open_artifact(folder), list[str]()
    kind = type(opening.open_embedder(str(folder)))
    plain = kind.embed
    monkeypatch.setattr(kind, "embed", lambda self, texts, *rest: (read.extend(texts), plain(self, texts, *rest))[1])
    predictor.answers([row.messages for row in examples])
    regression = any(json.loads(path.read_text())["linear"] > 0 for path in folder.glob("encoder-*.json"))
    assert len(read) == len(examples) * (2 if regression else 1)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_are_trained_on_all_questions_at_once(
    method: str, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIYAZ_FROZEN", "exact")  # what is served has no codes
    made = fitted(context, method)
    assert all(check["ok"] for check in made.checks.values()), made.checks
    assert len(made.temperatures) == 3 and made.temperature is None and made.weights.label_head
    folder = written(context, made, method, tmp_path / "artifact")
    predictor = open_artifact(folder, precision="fp32")
    assert predictor.has_model and predictor.head is not None and predictor.head.weight.shape[0] == 8
    p = decided(predictor, context.valid)
    scores = predictor.question_scores([row.messages for row in context.valid])
    for part, raw, temperature in zip(p, scores, made.temperatures, strict=True):
        hot = np.exp(raw / temperature)
        assert part == pytest.approx(hot / hot.sum(1, keepdims=True), abs=1e-5)
    for calibrated, loss in ((True, made.valid_loss), (False, best_loss(made))):  # the second in training
        nats = [
            -log_softmax(raw / (t if calibrated else 1.0), axis=1)[row, place]
            for raw, t, places in zip(scores, made.temperatures, right_places(ASKED, context.valid).T)
            for row, place in enumerate(places) if place >= 0
        ]  # fmt: skip
        assert len(nats) == 9 + 7 + 7 and np.mean(nats) == pytest.approx(loss, abs=SAME)
    for raw, temperature, places in zip(scores, made.temperatures, right_places(ASKED, context.valid).T, strict=True):
        known = places >= 0
        right = places[known, None] == np.arange(raw.shape[1])
        assert temperature == pytest.approx(fit_temperature(raw[known], right), rel=1e-3), "on the rows that answer it"
    others = decided(open_artifact(folder, precision="fp32"), context.valid)
    assert all(np.array_equal(one, other) for one, other in zip(p, others, strict=True))


def test_what_is_asked_otherwise_is_answered_in_its_order(context: Context, tmp_path: Path) -> None:
    predictor = open_artifact(written(context, fitted(context, "lora"), "lora", tmp_path / "artifact"))
    talk = context.valid[0].messages
    own = predictor.answers([talk])[0].decided
    turned = replace(QUESTIONS[0], choices=QUESTIONS[0].choices[::-1], instructions="Who?", column="")
    foreign = Question("city", "choice", "Where?", (Choice("Bern", "a capital"), Choice("Oslo")))
    unnamed = replace(QUESTIONS[2], name="")
    asked = (foreign, turned, unnamed, replace(QUESTIONS[2], choices=QUESTIONS[2].choices[::-1]))
    assert answered_by(predictor, asked) == ["base", "training", "training", "base"]
    found = finished(deciding_on(predictor, talk, asked))
    assert [each is not None and each.trained for each in found] == [False, True, True, False]
    for each, question in zip(found, asked, strict=True):
        assert isinstance(each, Decided) and each.question == question
        assert each.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert np.array_equal(found[1].probabilities, own[0].probabilities[::-1])  # type: ignore[union-attr]
    assert np.array_equal(found[2].probabilities, own[2].probabilities)  # type: ignore[union-attr]
    (plain,) = finished(deciding_on(predictor.base(), talk, [foreign]))  # type: ignore[union-attr]
    assert plain is not None and np.array_equal(plain.probabilities, found[0].probabilities)  # type: ignore[union-attr]
    (text,) = predictor.stream(talk).pieces
    assert text == predictor.answer(talk) == answers_text(QUESTIONS, [each.answer_place for each in own])


def test_classifiers_read_a_text_once(context: Context, tmp_path: Path, embedder: BagEmbedder) -> None:
    predictor = open_artifact(written(context, fitted(context, "linear"), "linear", tmp_path / "artifact"))
    talks = [row.messages for row in context.valid]
    embedder.embedded.clear()
    predictor.answers(talks)
    assert embedder.embedded == [row.prompt for row in context.valid], "for three questions"
    foreign = Question("city", "choice", "Where?", (Choice("Bern"), Choice("Oslo")))
    assert answered_by(predictor, [foreign, QUESTIONS[1]]) == ["", "training"]
    each = finished(deciding_rows(predictor, talks[:2], [foreign, QUESTIONS[1]]))
    assert [[one is None for one in row] for row in each] == [[True, False]] * 2
    (nothing,) = finished(deciding_on(predictor, talks[0], [foreign]))
    assert nothing is None


@pytest.mark.parametrize("method", ["linear", "nearest", "lora"])
def test_a_question_that_few_rows_answer_is_learned_from_those(method: str, context: Context, tmp_path: Path) -> None:
    def without_mood(row: Example, place: int) -> Example:
        places = answer_places(QUESTIONS, row.answer)
        return replace(row, answers=(answers_text(QUESTIONS, (*places[:2], place % 3 if place < 4 else None)),))

    train = tuple(without_mood(row, place) for place, row in enumerate(context.train))
    valid = tuple(without_mood(row, 9) for row in context.valid)
    few = replace(context, train=train, valid=valid)
    predictor = open_artifact(written(few, fitted(few, method), method, tmp_path / "artifact"))
    decided(predictor, context.valid)


def test_a_changed_artifact_is_refused(context: Context, tmp_path: Path) -> None:
    folder = written(context, fitted(context, "zero_shot"), "zero_shot", tmp_path / "artifact")
    path = folder / artifacts.NAME
    document = json.loads(path.read_text())
    for temperatures in ([1.0, 1.0], [1.0, 0.0, 1.0]):
        path.write_text(json.dumps(document | {"temperatures": temperatures}))
        with pytest.raises(RiyazError, match="temperatures"):
            open_artifact(folder)
    folder = written(context, fitted(context, "linear"), "linear", tmp_path / "linear")
    (folder / "classifier-1.json").unlink()
    with pytest.raises(RiyazError, match=r"classifier-1\.json"):
        open_artifact(folder)
