"""Wrong answers of a closed set, layer by layer: how long the right label was ahead, where the chosen one took over.

The rule: a label's score behind a layer is the score that would decide if the model ended there. With a head of labels
it is the head's product with the residual stream behind the final norm; without one it is the sum of the logit lens
over all tokens of the label. What is added to the scores after the last layer (calibration, a classifier beside) is
added behind each layer too. Behind the last layer it is therefore the score that chose the answer.

Only two labels are compared: the right one and the chosen one.
Legend: L layers, K labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from riyaz.data import Example
from riyaz.engine.runner import TRACED, HiddenLens, NamedLens, TokenRun
from riyaz.errors import RiyazError
from riyaz.predictor import ClosedPredictor, Prediction, Prepared
from riyaz.scoring import accepted_labels

Tell = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True, eq=False)
class WrongAnswer:
    """One wrong answer: by how much the right label is ahead of the chosen one, in nats, behind 0, 1, … L layers."""

    where: str
    right: str
    chosen: str
    margins: np.ndarray  # (L + 1,)

    @property
    def ahead(self) -> list[int]:
        """The numbers of layers behind which the right label is ahead."""
        return [int(layer) for layer in np.flatnonzero(self.margins > 0)]

    @property
    def lost(self) -> int | None:
        """The number of layers behind which the chosen label leads and stays ahead; 0: from the start. None where it
        does not lead behind the last one: then this pass rounds otherwise than the one that answered."""
        if self.margins[-1] >= 0:
            return None
        ahead = np.flatnonzero(self.margins >= 0)
        return int(ahead[-1]) + 1 if len(ahead) else 0


@dataclass(frozen=True, eq=False)
class WrongAnswers:
    """All wrong answers that were looked at, and how many were not: those whose prompt is too long for one pass, and
    those whose right label the artifact does not know."""

    layers: int
    each: tuple[WrongAnswer, ...]
    too_long: int = 0
    unknown: int = 0

    @property
    def ahead(self) -> list[int]:
        """In how many answers the right label is ahead behind 0, 1, … L layers."""
        return [sum(layer in answer.ahead for answer in self.each) for layer in range(self.layers + 1)]

    @property
    def lost(self) -> list[int]:
        """In how many answers the chosen label takes over behind 0, 1, … L layers, to stay ahead."""
        places = [answer.lost for answer in self.each]
        return [places.count(layer) for layer in range(self.layers + 1)]

    @property
    def never(self) -> int:
        """In how many answers the right label is ahead behind no layer."""
        return sum(not answer.ahead for answer in self.each)

    @property
    def undecided(self) -> int:
        """In how many answers the chosen label does not lead behind the last layer, by rounding."""
        return sum(answer.lost is None for answer in self.each)


def wrong_answers(
    model: ClosedPredictor, rows: Sequence[Example], predictions: Sequence[Prediction], tell: Tell
) -> WrongAnswers:
    """The margins of every wrong answer. `tell` is called with (done, total). Raises RiyazError where every prompt is
    too long for one pass."""
    assert model.lm.runner.family is not None, "a model from files"
    right = accepted_labels(model.task, rows)  # (n, K)
    place = {label: number for number, label in enumerate(model.task.labels)}
    chosen = [place[prediction.text] for prediction in predictions]
    wrong = [row for row in range(len(rows)) if not right[row, chosen[row]]]
    looked: list[WrongAnswer] = []
    too_long = unknown = 0
    for done, row in enumerate(wrong, 1):
        example, labels = rows[row], np.flatnonzero(right[row]).tolist()
        (prepared,) = model.prepare([example.messages], [example.where])
        if not labels:
            unknown += 1
        elif _tokens(model, prepared, [*labels, chosen[row]]) > TRACED:
            too_long += 1
        else:
            scores = label_scores_behind(model, prepared, [*labels, chosen[row]])
            best = int(scores[-1, :-1].argmax())
            margins = scores[:, best] - scores[:, -1]
            looked.append(WrongAnswer(example.where, model.task.labels[labels[best]], predictions[row].text, margins))
        tell(done, len(wrong))
    if too_long and not looked:
        what = f"all {too_long} prompts of wrong answers have more than {TRACED:,} tokens, which is more than one pass"
        raise RiyazError(what, rows[wrong[0]].where, "give shorter rows")
    return WrongAnswers(model.lm.runner.family.config.n_layers, tuple(looked), too_long, unknown)


def label_scores_behind(model: ClosedPredictor, prepared: Prepared, labels: Sequence[int]) -> np.ndarray:
    """The score of each of some labels if the model ended after 0, 1, … L layers: (L + 1, len(labels))."""
    runner, prompt = model.lm.runner, [*prepared.request.prefix, *prepared.request.tokens]

    def traced(tokens: Sequence[int], want: HiddenLens | NamedLens) -> np.ndarray:
        sequence = runner.open(model.adapter)
        try:
            result: np.ndarray = runner.traced(TokenRun(sequence, tokens, want))[0]
            return result
        finally:
            runner.close(sequence)

    if model.head is not None:
        scores = model.head.log_probabilities(traced(prompt, HiddenLens()))  # (L + 1, K)
        return (scores if prepared.beside is None else scores + prepared.beside)[:, list(labels)]
    columns = []
    for label in labels:
        tokens = model.constraint.sequences[label]
        rows = len(prompt) - 1 + np.arange(len(tokens))
        log_p = traced([*prompt, *tokens[:-1]], NamedLens(rows, np.array(tokens)))  # (L + 1, tokens)
        columns.append(log_p.sum(1, dtype=np.float64) + model.offsets[label])
    return np.stack(columns, 1)


def _tokens(model: ClosedPredictor, prepared: Prepared, labels: Sequence[int]) -> int:
    """Tokens of the longest pass that the labels need."""
    own = 0 if model.head is not None else max(len(model.constraint.sequences[label]) for label in labels) - 1
    return model.lm.adapter_tokens(model.adapter) + prepared.request.length + own
