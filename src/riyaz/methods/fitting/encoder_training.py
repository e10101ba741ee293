"""The training of a sentence encoder on the labels of a closed set: its rows, a run, and the vectors after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from riyaz.classifiers.fitting import label_words
from riyaz.data import Example
from riyaz.data.rows import Row
from riyaz.data.task import Task
from riyaz.events import Listen
from riyaz.families import describe_embedder
from riyaz.methods.fitting.base import Context
from riyaz.methods.fitting.label_rows import head_labels, head_sizes, label_tokens
from riyaz.methods.fitting.pacing import PACE, within
from riyaz.sources import Source

if TYPE_CHECKING:
    from riyaz.engine.embedder import ModelEmbedder
    from riyaz.models.text_classifier import TextClassifier
    from riyaz.train import TrainPlan, TrainState

BATCH = 32  # rows per step
RATE = 1e-4
DROPOUT = 0.1
TEMPERATURE = 0.05  # by which cosines are divided
EPOCHS, LEAST_EPOCHS = 15, 1
MOST_TOKENS = 500_000  # of a run, unless LEAST_EPOCHS need more
CHECKPOINT_STEPS = 250
SCORED_TOKENS = 2048  # in a forward pass without gradients


@dataclass(frozen=True)
class LabelledTexts:
    """What an encoder is trained on: the rows, whose answer is a label's number behind the vocabulary, the vectors
    (L, C) of the labels' own texts, with which the prototypes begin, and how many labels each of several questions
    has."""

    rows: tuple[Row, ...]
    prototypes: np.ndarray
    sizes: tuple[int, ...] = ()

    @property
    def tokens(self) -> float:
        """The mean tokens of a row."""
        return sum(len(row.prompt) for row in self.rows) / len(self.rows)


def labelled_texts(source: Source, embedder: "ModelEmbedder", task: Task, examples: Sequence[Example]) -> LabelledTexts:
    """The rows of the examples' last turns, and the vectors of the labels' names in words."""
    V = describe_embedder(source).config.vocab_size
    tokens = embedder.framed([example.prompt for example in examples])
    rows = tuple(
        Row(tuple(ids.tolist()), label_tokens(task, example, V), example, bool(task.questions))
        for ids, example in zip(tokens, examples)
    )
    prototypes = embedder.embed([label_words(label) for label in head_labels(task)])
    return LabelledTexts(rows, prototypes, tuple(head_sizes(task)))


def examples_of(rows: Sequence[Row]) -> list[Example]:
    """The examples that the rows were made from."""
    return [row.example for row in rows if row.example is not None]


def training_steps(rows: int, tokens: float) -> int:
    """The steps of a run over so many rows of `tokens` tokens in the mean: EPOCHS, fewer where these are more than
    MOST_TOKENS."""
    epochs = max(LEAST_EPOCHS, min(EPOCHS, MOST_TOKENS / (rows * tokens)))
    return max(1, round(epochs * rows / BATCH))


def build(source: Source, texts: LabelledTexts, compute: str) -> "TextClassifier":
    """The encoder of a source, and prototypes. All weights train but the vectors of the tokens, which are half of them
    and of which few rows move few."""
    import torch

    from riyaz.models import load_embedder
    from riyaz.models.text_classifier import TextClassifier

    encoder = load_embedder(source, torch.float32).requires_grad_(True)
    encoder.embeddings.word_embeddings.requires_grad_(False).to(getattr(torch, compute))
    return TextClassifier(encoder, torch.from_numpy(texts.prototypes), TEMPERATURE, texts.sizes)


def train_plan(context: Context, steps: int) -> "TrainPlan":
    """The settings of a run of so many steps, which ends with its last weights."""
    from riyaz.train import TrainPlan

    return TrainPlan(
        steps=steps, learning_rate=RATE, batch_size=BATCH, final=0.0, dropout=DROPOUT, validate_every=steps,
        checkpoint_every=CHECKPOINT_STEPS, keep_best=False, compute=context.compute, seed=context.seed,
    )  # fmt: skip


def pace_file(context: Context, folder: Path) -> Path:
    """The file with the changes of length of the run that has its checkpoints in `folder`."""
    return context.folder / f"{folder.name}-{PACE}"


def trained(
    context: Context,
    source: Source,
    texts: LabelledTexts,
    rows: Sequence[Row],
    folder: Path,
    steps: int,
    listen: Listen,
    share: float = 0.0,
) -> "tuple[TextClassifier, TrainState]":  # fmt: skip
    """A model trained on these rows, with checkpoints in `folder`, and how its training went; in fewer steps where
    these would take more than a share of the arm's time limit. Raises RiyazError."""
    from riyaz.train import train

    model = build(source, texts, context.compute)
    plan, adjust = within(pace_file(context, folder), train_plan(context, steps), share * context.arm.train_limit)
    state = train(model, rows, (), plan, folder, listen, adjust=adjust)
    return model.eval().float(), state


def text_vectors(model: "TextClassifier", rows: Sequence[Row]) -> np.ndarray:
    """The unit vectors (n, C) float32 of the rows' texts."""
    import torch

    from riyaz.layers.attention import packed
    from riyaz.train import micro_batches

    vectors = []
    with torch.inference_mode():
        for micro in micro_batches(rows, SCORED_TOKENS):
            stream = torch.from_numpy(micro.tokens), torch.from_numpy(micro.positions)
            hidden = model(*stream, packed(micro.lengths).behind(micro.shared))
            vectors.append(hidden[torch.from_numpy(micro.label_index)].float())
    first = np.cumsum([0, *(len(row.answer) for row in rows[:-1])])  # of each row's answers
    every: np.ndarray = torch.cat(vectors).numpy()
    return every[first]
