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
from torch import Tensor

from riyaz.adapters import Adapter
from riyaz.engine.runner import Named, TokenRun
from riyaz.engine.sampling import likeliest
from riyaz.engine.torch.runner import TorchRunner
from riyaz.engine.torch.tracing import Tracing
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

    def losses(self, text: Sequence[int], first: int, count: int) -> list[float]:
        """Read the first `count` tokens of a text, all or all but the last; the losses in nats of its tokens from
        number `first`, at least 1, on."""
        if not count:
            return []
        named = Named(np.arange(first - 1, len(text) - 1), np.array(text[first:], np.int64))
        (log_p,) = self.runner.forward([TokenRun(self.sequence, text[:count], named)])
        return [-value for value in log_p.tolist()]

    @torch.inference_mode()
    def with_states(self, text: Sequence[int], first: int, count: int, row: int) -> tuple[list[float], Tensor]:
        """As `losses`, and from the same pass the hidden states (L + 1, C) behind token number `row` after 0, 1, …
        layers, as a head reads them."""
        with Tracing(self.runner.model, row - count) as read:
            losses = self.losses(text, first, count)
        return losses, read.states()

    @torch.inference_mode()
    def log_p(self, states: Tensor) -> np.ndarray:
        """Log-probabilities (L + 1, V) of the next token by hidden states (L + 1, C)."""
        log_p: np.ndarray = self.runner.model.head(states).float().log_softmax(1).numpy()
        return log_p


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
        losses = _Reader(self.model).losses(text, 1, len(text) - 1)
        if not sentence:
            return losses, np.empty((0, self.model.config.vocab_size), np.float32)
        reader = _Reader(self.model)
        _, states = reader.with_states(sentence, len(sentence), len(sentence), len(sentence) - 1)
        return losses, reader.log_p(states)

    def _of_answer(self) -> tuple[list[float], np.ndarray]:
        """The losses in nats of the tokens that are shown, and the lens (L + 1, V) where the answer begins, or that of
        the labels (L + 1, labels). All is of one pass."""
        watched, reader = self.watched, _Reader(self.model)
        text, count = watched.text, len(watched.text) - (not watched.labels)
        losses, states = reader.with_states(text, max(1, watched.first), count, len(watched.sentence) - 1)
        if not watched.labels:
            return losses, reader.log_p(states)
        log_p = _label_log_p(self.model, states.float().numpy(), watched.label)
        return [*losses, -float(log_p[-1, watched.label])], log_p

    def _likeliest(self, log_p: np.ndarray) -> list[Word]:
        """The likeliest of the tokens or labels with these log-probabilities, with probabilities."""
        labels, (places, values) = self.watched.labels, likeliest(log_p, LIKELIEST)
        texts = (labels[place] if labels else self.tokenizer.token_text(place) for place in places.tolist())
        return [Word(text, rounded(math.exp(value))) for text, value in zip(texts, values.tolist())]


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
