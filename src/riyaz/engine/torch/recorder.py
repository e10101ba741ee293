"""What a training run records of itself at its validations, for whoever watches it learn: the loss of every token of a
fixed text, the logit lens of a fixed sentence, and the length of every layer's gradient in that step.

One line of JSON for each, in a file that has a bound: at most MOST lines of a fixed text, wherever validations fall.
Nothing of the training is changed: the passes are the engine's, over the weights as they are, and gradients are read.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from riyaz.engine.runner import Lens, Named, TokenRun
from riyaz.engine.torch.runner import TorchRunner
from riyaz.json_files import Lines
from riyaz.layers.fast.masters import Masters
from riyaz.results import Learned, TokenLoss, Word
from riyaz.text.tokenizer import Tokenizer

MOST = 200  # lines, the one before the first step aside
TOKENS = 48  # of the text, at most
LIKELIEST = 3  # tokens of each layer's lens
DIGITS = 4  # of every number
LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.")


class Recorder:
    """Writes the lines of one run. `text` are the tokens whose losses are recorded, `sentence` those behind whose last
    one the lens is; `validations` is how many the run plans: of more than MOST only every second, third, … has a line.
    """

    def __init__(
        self, path: Path, model: Any, tokenizer: Tokenizer, text: Sequence[int], sentence: Sequence[int],
        validate_every: int, validations: int,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer = model, tokenizer
        context = model.config.context
        self.text, self.sentence = [*text][: min(TOKENS, context)], [*sentence][:context]
        self.lines = Lines(path)
        self.every = validate_every * max(1, math.ceil(validations / MOST))
        self.gradients: list[float] | None = None  # of the step that is validated next

    def stepping(self, step: int, masters: Masters) -> None:
        """Read the gradients of a step, from 1, before the optimiser uses them."""
        if step % self.every == 0:
            self.gradients = [rounded(value) for value in layer_norms(masters, self.model.config.n_layers)]

    def validated(self, step: int) -> None:
        """Write the line of a step; 0 is before training. The model is in evaluation mode."""
        if step % self.every:
            return
        runner = TorchRunner(self.model)
        sentence = "".join(map(self.tokenizer.token_text, self.sentence))
        learned = Learned(step, self._losses(runner), sentence, self._lens(runner), self.gradients)
        self.lines.add(asdict(learned))
        self.gradients = None

    def _losses(self, runner: TorchRunner) -> list[TokenLoss]:
        """Each token of the text with its loss in nats; the first one has none, since nothing is before it."""
        tokens = self.text
        losses: list[float | None] = [None] * min(1, len(tokens))
        if len(tokens) > 1:
            (log_p,) = _passed(runner, tokens[:-1], Named(np.arange(len(tokens) - 1), np.array(tokens[1:])))
            losses += [rounded(-value) for value in log_p.tolist()]
        return [TokenLoss(self.tokenizer.token_text(token), loss) for token, loss in zip(tokens, losses)]

    def _lens(self, runner: TorchRunner) -> list[list[Word]]:
        """The likeliest tokens behind the sentence if the model ended after 0, 1, … layers, with probabilities."""
        if not self.sentence:
            return []
        sequence = runner.open()
        try:
            log_p, _ = runner.traced(TokenRun(sequence, self.sentence, Lens(len(self.sentence) - 1)))  # (L + 1, V)
        finally:
            runner.close(sequence)
        rows = []
        for row in log_p:
            likeliest = np.argsort(-row, kind="stable")[:LIKELIEST].tolist()
            rows.append([Word(self.tokenizer.token_text(token), rounded(math.exp(row[token]))) for token in likeliest])
        return rows


def layer_norms(masters: Masters, layers: int) -> list[float]:
    """The lengths of the gradients outside the layers (embedding, head, last norm) and of each layer: L + 1."""
    squares = [0.0] * (layers + 1)
    for name, part in masters.parts(masters.blocks.grad).items():
        number = LAYER.search(name)
        squares[int(number[1]) + 1 if number else 0] += float(torch.linalg.vector_norm(part)) ** 2
    return [math.sqrt(square) for square in squares]


def rounded(value: float) -> float:
    """A number with DIGITS digits."""
    return float(f"{value:.{DIGITS}g}")


def _passed(runner: TorchRunner, tokens: Sequence[int], want: Named) -> list[Any]:
    sequence = runner.open()
    try:
        return runner.forward([TokenRun(sequence, tokens, want, keep=False)])
    finally:
        runner.close(sequence)
