"""The kinds of predictors, and which one a task and a text part need.

Every kind says what callers must know of it: `has_model` (else no language model runs), `has_labels` (each answer is a
label of the task), `has_questions` (each answers the questions of the task), `from_set` (no token is drawn, so sampling
changes nothing), `answers_are` (in words). The type checker narrows a Predictor by the first three.
"""

from dataclasses import replace

from riyaz.config import TOOLS
from riyaz.engine.grammar import expect_package, expect_schema
from riyaz.engine.tool_grammar import expect_form
from riyaz.errors import RiyazError
from riyaz.predictor.classifier import ClassifierPredictor
from riyaz.predictor.closed import ClosedPredictor
from riyaz.predictor.copy import CopyPredictor
from riyaz.predictor.decisions import DecisionClassifier, DecisionModel
from riyaz.predictor.free import CHAT_TOKENS, FreePredictor
from riyaz.predictor.prompt import PromptedModel
from riyaz.predictor.span import SpanPredictor

ModelPredictor = FreePredictor | ClosedPredictor | SpanPredictor | DecisionModel
Predictor = ModelPredictor | CopyPredictor | ClassifierPredictor | DecisionClassifier


def predictor_for(
    model: PromptedModel, *, max_new_tokens: int = CHAT_TOKENS, calibrated: bool = False,
    label_offsets: tuple[float, ...] = (), temperature: float | None = None, temperatures: tuple[float, ...] = (),
) -> ModelPredictor:  # fmt: skip
    """A DecisionModel for a task of questions, a ClosedPredictor for a closed one, a SpanPredictor for a text part with
    `span_words` and passages, else a FreePredictor. `temperatures` apply to the first, `calibrated`, `label_offsets`
    and `temperature` to the second, `max_new_tokens` to the others."""
    if model.task is not None and model.task.questions:
        return DecisionModel(**model.parts(), temperatures=temperatures)
    if model.task is not None and model.task.kind == "closed":
        return ClosedPredictor(**model.parts(), calibrated=calibrated, label_offsets=label_offsets,
                               temperature=temperature)  # fmt: skip
    if model.text.span_words and model.text.passages:
        return SpanPredictor(**model.parts(), max_new_tokens=max_new_tokens)
    return FreePredictor(**model.parts(), max_new_tokens=max_new_tokens)


def within(predictor: Predictor, max_new_tokens: int | None) -> Predictor:
    """The predictor whose answers have at most so many tokens; None changes nothing. Raises RiyazError where answers
    are chosen or copied."""
    if max_new_tokens is None:
        return predictor
    if not isinstance(predictor, FreePredictor) or predictor.from_set:
        what = f"answers are {predictor.answers_are}, which no limit cuts"
        raise RiyazError(what, "--max-new-tokens", "leave it out")
    return replace(predictor, max_new_tokens=max_new_tokens)


def keeping_to(predictor: Predictor, schema: str, where: str) -> Predictor:
    """The predictor whose answers keep to a JSON schema's text, or by TOOLS to the tools of each row; it is from
    `where`, and "" changes nothing. Raises RiyazError where answers are chosen or copied, for a schema that cannot be
    followed, and for a model whose calls have no known form."""
    if not schema:
        return predictor
    if not predictor.has_model or predictor.from_set:
        raise RiyazError(f"answers are {predictor.answers_are}, which no schema changes", where, "leave it out")
    if schema == TOOLS:
        expect_package(where)
        expect_form(predictor.tokenizer, where)
    else:
        expect_schema(schema, where)
    return replace(predictor, schema=schema)
