"""What a training run records of itself at its validations, for whoever watches it learn: the loss of every token of a
fixed text, the logit lens behind a fixed sentence, and the length of every layer's gradient in that step.

One line of JSON for each, in a file that has a bound: at most MOST lines and two of a fixed text, wherever validations
fall. Nothing of the training is changed: the passes are the engine's, over the weights as they are, and gradients are
read. Where a head of labels answers, the lens is this head's, and the answer is one label.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from riyaz.adapters import Adapter
from riyaz.engine.runner import HiddenLens, Lens, Named, TokenRun
from riyaz.engine.torch.runner import TorchRunner
from riyaz.json_files import Lines, to_document
from riyaz.layers.fast.masters import Masters
from riyaz.layers.swaps.label_head import LabelledModel
from riyaz.layers.swaps.soft_prompt import SoftPrompt
from riyaz.results import Learned, TokenLoss, Word
from riyaz.text.tokenizer import Tokenizer

MOST = 200  # lines, those before the first step and of the last one aside
TOKENS = 48  # of the text, at most
LIKELIEST = 3  # tokens of each layer's lens
DIGITS = 4  # of every number
LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.")
SOFT = "soft"  # what the runner calls the soft prompt of the model


@dataclass(frozen=True)
class Watched:
    """What the lines of a run are about: `text` (T,) are tokens whose losses are recorded, from number `first` on, and
    behind the last token of `sentence` is the lens. Training counts the tokens of the text from number `answer` on;
    None: all. With a head of labels, whose texts are `labels`, the text has no answer: that is the label `label`."""

    text: Sequence[int]
    sentence: Sequence[int]
    first: int = 0
    answer: int | None = None
    labels: Sequence[str] = ()
    label: int = 0

    @classmethod
    def beginning(cls, text: Sequence[int], sentence: Sequence[int], context: int) -> "Watched":
        """The first TOKENS of a text that is read whole, and another sentence; both within a model's context."""
        return cls(text[: min(TOKENS, context)], sentence[:context])

    @classmethod
    def of_answer(cls, prompt: Sequence[int], answer: Sequence[int]) -> "Watched":
        """At most TOKENS around the beginning of an answer: up to half of them of the answer, the rest of the end of
        its prompt, which is read whole and is the sentence."""
        answer = answer[: TOKENS // 2]
        first = max(0, len(prompt) + len(answer) - TOKENS)
        return cls((*prompt, *answer), prompt, first, len(prompt))

    @classmethod
    def of_label(cls, prompt: Sequence[int], labels: Sequence[str], label: int) -> "Watched":
        """The same of an answer that is a label: one token."""
        return cls(prompt, prompt, max(0, len(prompt) + 1 - TOKENS), len(prompt), labels, label)


class _Reader:
    """Reads one sequence of tokens with a model that trains, behind its soft prompt if it has one."""

    def __init__(self, model: Any) -> None:
        base = model.base if isinstance(model, LabelledModel) else model
        self.runner = TorchRunner(base.base if isinstance(base, SoftPrompt) else base)
        if isinstance(base, SoftPrompt):
            self.runner.load(SOFT, Adapter(soft_prompt=base.prompt.detach().float().numpy()))
        self.sequence = self.runner.open(SOFT if isinstance(base, SoftPrompt) else None)

    def losses(self, tokens: Sequence[int], then: Sequence[int]) -> list[float]:
        """Read further tokens; the losses in nats of those in `then`, the last of which follows the last token."""
        if not tokens:
            return []
        named = Named(np.arange(len(tokens) - len(then), len(tokens)), np.array(then, np.int64))
        (log_p,) = self.runner.forward([TokenRun(self.sequence, tokens, named)])
        return [-value for value in log_p.tolist()]

    def behind_layers(self, tokens: Sequence[int]) -> np.ndarray:
        """Read further tokens; log-probabilities (L + 1, V) of the next one if the model ended after 0, 1, … layers."""
        log_p: np.ndarray = self.runner.traced(TokenRun(self.sequence, tokens, Lens(len(tokens) - 1)))[0]
        return log_p

    def states(self, tokens: Sequence[int]) -> np.ndarray:
        """Read further tokens; the hidden states (L + 1, C) behind the last of them, as a head reads them."""
        states: np.ndarray = self.runner.traced(TokenRun(self.sequence, tokens, HiddenLens()))[0]
        return states


class Recorder:
    """Writes the lines of one run. `validations` is how many the run plans: of more than MOST only every second, third,
    … has a line, and the last one where the run's length is no multiple of `validate_every`.
    """

    def __init__(
        self, path: Path, model: Any, tokenizer: Tokenizer, watched: Watched, validate_every: int, validations: int
    ) -> None:
        self.model, self.tokenizer, self.watched = model, tokenizer, watched
        self.lines = Lines(path)
        self.validate_every, self.every = validate_every, validate_every * max(1, math.ceil(validations / MOST))
        self.gradients: list[float] | None = None  # of the step that is validated next

    def stepping(self, step: int, masters: Masters) -> None:
        """Read the gradients of a step, from 1, before the optimiser uses them. Of several processes all call it."""
        if self._is_recorded(step):
            self.gradients = [rounded(value) for value in layer_norms(masters, self.model.config.n_layers)]

    def begin(self) -> None:
        """Write the line before training, unless the file has lines already."""
        if not self.lines.entries():
            self.model.eval()
            self.validated(0)

    def validated(self, step: int) -> None:
        """Write the line of a step; 0 is before training. The model is in evaluation mode."""
        if not self._is_recorded(step):
            return
        watched = self.watched
        losses, log_p = self._of_texts() if watched.answer is None else self._of_answer()
        names = [*map(self.tokenizer.token_text, watched.text), *watched.labels[watched.label :][:1]][watched.first :]
        unknown: list[float | None] = [None] * (len(names) - len(losses))
        text = [TokenLoss(name, loss) for name, loss in zip(names, [*unknown, *map(rounded, losses)], strict=True)]
        answer = None if watched.answer is None else watched.answer - watched.first
        sentence = "".join(map(self.tokenizer.token_text, watched.sentence[-TOKENS:]))
        lens = [self._likeliest(row) for row in log_p]
        self.lines.add(to_document(Learned(step, text, sentence, lens, self.gradients, answer)))
        self.gradients = None

    def _is_recorded(self, step: int) -> bool:
        """Whether a validation has a line: also the last one, which alone is at no multiple of `validate_every`."""
        return step % self.every == 0 or step % self.validate_every != 0

    def _of_texts(self) -> tuple[list[float], np.ndarray]:
        """The losses in nats of the text's tokens but the first, which nothing predicts, and the lens (L + 1, V) behind
        the sentence, (0, V) where there is none."""
        text, sentence = self.watched.text, self.watched.sentence
        losses = _Reader(self.model).losses(text[:-1], text[1:])
        if not sentence:
            return losses, np.empty((0, self.model.config.vocab_size), np.float32)
        return losses, _Reader(self.model).behind_layers(sentence)

    def _of_answer(self) -> tuple[list[float], np.ndarray]:
        """The losses in nats of the tokens that are shown, and the lens (L + 1, V) where the answer begins, or that of
        the labels (L + 1, labels). The prompt is read once."""
        prompt, reader = self.watched.sentence, _Reader(self.model)
        losses = reader.losses(prompt[:-1], prompt[max(1, self.watched.first) :])
        if self.watched.labels:
            log_p = _label_log_p(self.model, reader.states(prompt[-1:]), self.watched.label)
            return [*losses, -float(log_p[-1, self.watched.label])], log_p
        log_p, answer = reader.behind_layers(prompt[-1:]), self.watched.text[len(prompt) :]
        return [*losses, -float(log_p[-1, answer[0]]), *reader.losses(answer[:-1], answer[1:])], log_p

    def _likeliest(self, log_p: np.ndarray) -> list[Word]:
        """The likeliest of the tokens or labels with these log-probabilities, with probabilities."""
        labels, likeliest = self.watched.labels, np.argsort(-log_p, kind="stable")[:LIKELIEST].tolist()
        texts = (labels[place] if labels else self.tokenizer.token_text(place) for place in likeliest)
        return [Word(text, rounded(math.exp(log_p[place]))) for text, place in zip(texts, likeliest)]


def _label_log_p(model: LabelledModel, states: np.ndarray, label: int) -> np.ndarray:
    """Log-probabilities (L + 1, labels) by the head of labels from hidden states (L + 1, C). Those of other questions
    than the label's are −∞."""
    scores = torch.from_numpy(states @ model.rows().T)
    ends = np.cumsum(model.sizes)
    question = np.searchsorted(ends, np.arange(ends[-1]), side="right")  # of each label
    scores.masked_fill_(torch.from_numpy(question != question[label]), -math.inf)
    log_p: np.ndarray = scores.log_softmax(1).numpy()
    return log_p


def layer_norms(masters: Masters, layers: int) -> list[float]:
    """The lengths of the gradients outside the layers (embedding, head, last norm) and of each layer: L + 1. Of several
    processes each adds the part that it steps."""
    squares = [0.0] * (layers + 1)
    for name, part in masters.parts(masters.blocks.grad).items():
        number, begin = LAYER.search(name), part.storage_offset()
        own = part.flatten()[max(0, masters.own.start - begin) : max(0, masters.own.stop - begin)]
        squares[int(number[1]) + 1 if number else 0] += float(torch.linalg.vector_norm(own)) ** 2
    return [math.sqrt(masters.total(square)) for square in squares]


def rounded(value: float) -> float:
    """A number with DIGITS digits."""
    return float(f"{value:.{DIGITS}g}")
