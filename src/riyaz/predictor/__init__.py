"""A model and its parts, ready to answer.

    predictor = open_target("smollm2-135m")  # or the folder of an artifact
    predictor.answer([{"role": "user", "content": "Where is my card?"}])

Messages become a prepared prompt (`prompt.py`), which a predictor answers: freely, from a closed set, or by a span of
the passages. Two kinds need no language model: they copy an answer, or classify the text. All have the methods
`answer`, `answers` and `stream`, and say of themselves what a caller must know (`kinds.py`), so no caller asks for a
class.
"""

from riyaz.predictor.classifier import ClassifierPredictor
from riyaz.predictor.closed import ClosedPredictor
from riyaz.predictor.copy import CopyPredictor
from riyaz.predictor.decided import Decided
from riyaz.predictor.deciding import deciding
from riyaz.predictor.decisions import DecisionClassifier, DecisionModel
from riyaz.predictor.free import CHAT_TOKENS, FreePredictor
from riyaz.predictor.from_files import (
    ADAPTER,
    Base,
    open_adapter,
    open_artifact,
    open_base,
    open_model,
    open_on,
    open_target,
    source_for,
)
from riyaz.predictor.kinds import ModelPredictor, Predictor, keeping_to, predictor_for, within
from riyaz.predictor.label_head import LabelHead
from riyaz.predictor.own_questions import answered_by, deciding_on, deciding_rows, own_questions
from riyaz.predictor.prediction import AnswerPair, Prediction, Reward, Stream
from riyaz.predictor.prompt import Chooser, Prepared, PromptedModel, PromptText, TooLong
from riyaz.predictor.span import SpanPredictor

__all__ = [
    "ADAPTER", "CHAT_TOKENS", "AnswerPair", "Base", "Chooser", "ClassifierPredictor", "ClosedPredictor",
    "CopyPredictor", "Decided", "DecisionClassifier", "DecisionModel", "FreePredictor", "LabelHead", "ModelPredictor",
    "Prediction", "Predictor", "Prepared", "PromptText", "PromptedModel", "Reward", "SpanPredictor", "Stream",
    "TooLong", "answered_by", "deciding", "deciding_on", "deciding_rows", "keeping_to", "open_adapter", "open_artifact",
    "open_base", "open_model", "open_on", "open_target", "own_questions", "predictor_for", "source_for", "within",
]  # fmt: skip
