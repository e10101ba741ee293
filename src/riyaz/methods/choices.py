"""Choosing between text parts on validation rows; the test is never seen here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from riyaz.data import Example
from riyaz.engine.opening import open_engine
from riyaz.errors import RiyazError
from riyaz.events import Progress
from riyaz.methods.base import Context, bare
from riyaz.predictor import ClosedPredictor, ModelPredictor, Prediction, predictor_for
from riyaz.scoring import answer_log_loss, predict_raw_and_calibrated, score

SHORTEST = 8  # tokens of room for an answer
SPARE = 1.25  # room for answers longer than the longest in training
LONGEST_SHARE = 0.95  # of free answers, which that room is made for
ROOMS = (0.75, 0.5, 0.25)  # shares of the training answers that a free answer of an untrained model may be as long as
ROOM_ROWS = 16  # validation rows by which one of them is chosen


@dataclass(frozen=True)
class Choice:
    """The chosen predictor and what every candidate reached."""

    predictor: ModelPredictor
    calibrated: bool  # only a closed set's can be
    score: float  # accuracy of a closed set, else the negative answer log-loss
    record: list[dict[str, Any]]


def choose(context: Context, candidates: Sequence[ModelPredictor]) -> Choice:
    """The best candidate on the validation rows; of equals the first, so cheaper ones come first.

    A closed set is judged by its accuracy, raw and calibrated. Other tasks by the log-loss of the accepted
    answer, which needs no generation and is finer than a match. Candidates too long for the context are left out.
    """
    rows = context.valid[: context.valid_rows]
    best: Choice | None = None
    record: list[dict[str, Any]] = []
    trouble = None
    for done, candidate in enumerate(candidates):
        context.listen(Progress("choose", done, len(candidates)))
        try:
            judged = _judged(context, candidate, rows)
        except RiyazError as error:
            trouble = error
            continue
        for predictor, calibrated, reached in judged:
            text = asdict(predictor.text)
            shown = {key: text[key] for key in ("list_labels", "examples", "k", "passages")}
            record.append(shown | {"calibrated": calibrated, "validation": round(reached, 6)})
            if best is None or reached > best.score:
                best = Choice(predictor, calibrated, reached, record)
    if best is None:
        assert trouble is not None
        raise trouble
    return best


def _judged(
    context: Context, predictor: ModelPredictor, rows: Sequence[Example]
) -> list[tuple[ModelPredictor, bool, float]]:
    """The candidate, whether it is calibrated, and what it reaches; a closed set's raw and calibrated in one pass."""
    if not isinstance(predictor, ClosedPredictor):
        return [(predictor, False, -answer_log_loss(predictor, rows))]
    both = zip((False, True), predict_raw_and_calibrated(predictor, rows))
    return [(replace(predictor, calibrated=on), on, score(context.task, answers, rows).mean) for on, answers in both]


def max_new_tokens(context: Context) -> int:
    """Room for an answer: the longest training answer and a quarter more.

    Of free text the longest but one in twenty: an untrained model fills whatever room it has, and the very longest
    answer would make all of them slow.
    """
    return max(SHORTEST, round(SPARE * _length(context, LONGEST_SHARE if context.task.kind == "free" else 1.0)))


def rooms(context: Context) -> list[int]:
    """Lengths of a free answer to choose between, the longest first; of other tasks the one there is.

    A model that was not trained on the answers has not learned to end: it talks on to the limit, and what it says
    after the usual length is seldom what was asked.
    """
    if context.task.kind != "free":
        return [max_new_tokens(context)]
    return sorted({max(SHORTEST, _length(context, share)) for share in ROOMS}, reverse=True)


def with_room(context: Context, predictor: ModelPredictor) -> tuple[int, dict[str, Any]]:
    """The tokens of room for a free answer that score best on validation, and what each room reached.

    The longest answers are made once: a shorter room gives their beginnings.
    """
    longest, *shorter = rooms(context)
    rows = context.valid[: min(ROOM_ROWS, context.valid_rows)]
    if not shorter or not rows:
        return longest, {}
    prepared = predictor.prepare([row.messages for row in rows], [row.where for row in rows], room=longest)
    answers = predictor.lm.generate([each.request for each in prepared])
    reached = {}
    for room in (longest, *shorter):
        texts = [Prediction(predictor.text_of(ids[:room], room)) for ids in answers]
        reached[room] = score(context.task, texts, rows).mean
    best = max(reached, key=reached.__getitem__)  # of equals the longest
    shown = {str(room): round(points, 6) for room, points in reached.items()}
    return best, {"max_new_tokens": best, "rooms": shown}


def _length(context: Context, share: float) -> int:
    """Tokens that this share of the training answers is not longer than."""
    lengths = sorted(map(len, context.tokenizer.answer_ids([example.answer for example in context.train])))
    return lengths[int(share * (len(lengths) - 1))]


def base_predictor(context: Context) -> ModelPredictor:
    """The untouched model with the task's instruction."""
    model = bare(context.task).read_by(context.tokenizer, open_engine(context.source))
    return predictor_for(model, max_new_tokens=max_new_tokens(context))
