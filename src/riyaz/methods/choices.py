"""Choosing between text parts on validation rows; the test is never seen here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from riyaz.data import Example
from riyaz.errors import RiyazError
from riyaz.events import Progress
from riyaz.methods.base import Context, bare
from riyaz.predictor import Prediction, Predictor
from riyaz.scoring import answer_log_loss, predict_raw_and_calibrated, score

SHORTEST = 8  # tokens of room for an answer
SPARE = 1.25  # room for answers longer than the longest in training
LONGEST_SHARE = 0.95  # of free answers, which that room is made for
ROOMS = (0.75, 0.5, 0.25)  # shares of the training answers that a free answer of an untrained model may be as long as
ROOM_ROWS = 16  # validation rows by which one of them is chosen


@dataclass(frozen=True)
class Choice:
    """The chosen predictor and what every candidate reached."""

    predictor: Predictor
    score: float  # accuracy of a closed set, else the negative answer log-loss
    record: list[dict[str, Any]]


def choose(context: Context, candidates: Sequence[Predictor]) -> Choice:
    """The best candidate on the validation rows; of equals the first, so cheaper ones come first.

    A closed set is judged by its accuracy, raw and calibrated. Other tasks by the log-loss of the accepted
    answer, which needs no generation and is finer than a match. Candidates too long for the context are left out.
    """
    rows, judge = context.valid[: context.valid_rows], _accuracies if context.task.kind == "closed" else _log_loss
    best: tuple[float, Predictor] | None = None
    record, trouble = [], None
    for done, candidate in enumerate(candidates):
        context.listen(Progress("choose", done, len(candidates)))
        try:
            judged = judge(context, candidate, rows)
        except RiyazError as error:
            trouble = error
            continue
        for predictor, reached in judged:
            text = asdict(predictor.text)
            shown = {key: text[key] for key in ("list_labels", "examples", "k", "passages")}
            record.append(shown | {"calibrated": predictor.calibrated, "validation": round(reached, 6)})
            if best is None or reached > best[0]:
                best = reached, predictor
    if best is None:
        assert trouble is not None
        raise trouble
    return Choice(best[1], best[0], record)


def _accuracies(context: Context, predictor: Predictor, rows: Sequence[Example]) -> list[tuple[Predictor, float]]:
    """Raw and calibrated, from one pass."""
    found = zip((False, True), predict_raw_and_calibrated(predictor, rows))
    return [(replace(predictor, calibrated=on), score(context.task, answers, rows).mean) for on, answers in found]


def _log_loss(context: Context, predictor: Predictor, rows: Sequence[Example]) -> list[tuple[Predictor, float]]:
    loss = answer_log_loss(predictor, rows)
    assert loss is not None
    return [(predictor, -loss)]


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


def with_room(context: Context, predictor: Predictor) -> tuple[Predictor, dict[str, Any]]:
    """The predictor with the room for a free answer that scores best on validation, and what each reached.

    The longest answers are made once: a shorter room gives their beginnings.
    """
    longest, *shorter = rooms(context)
    predictor = replace(predictor, max_new_tokens=longest)
    rows = context.valid[: min(ROOM_ROWS, context.valid_rows)]
    if not shorter or not rows:
        return predictor, {}
    assert predictor.lm is not None
    requests = predictor.prepare_all([row.messages for row in rows], [row.where for row in rows])
    tokens = predictor.lm.generate(requests, longest)
    reached = {}
    for room in (longest, *shorter):
        short = replace(predictor, max_new_tokens=room)
        reached[room] = score(context.task, [Prediction(short.said(ids[:room])) for ids in tokens], rows).mean
    best = max(reached, key=reached.__getitem__)  # of equals the longest
    shown = {str(room): round(found, 6) for room, found in reached.items()}
    return replace(predictor, max_new_tokens=best), {"max_new_tokens": best, "rooms": shown}


def _length(context: Context, share: float) -> int:
    """Tokens that this share of the training answers is not longer than."""
    lengths = sorted(map(len, context.tokenizer.answer_ids([example.answer for example in context.train])))
    return lengths[int(share * (len(lengths) - 1))]


def base_predictor(context: Context) -> Predictor:
    """The untouched model with the task's instruction."""
    from riyaz.engine.torch_load import load

    return replace(
        bare(context.task), tokenizer=context.tokenizer, lm=load(context.source, context.tokenizer.eos_ids),
        max_new_tokens=max_new_tokens(context),
    )  # fmt: skip
