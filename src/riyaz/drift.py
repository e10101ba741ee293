"""What an adapted model is compared with: the base's loss of general text (forgetting) and its distributions of answers
(drift on the task)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from riyaz.data import Example
from riyaz.data.general_text import BLOCK, general_blocks, general_text, prose_text
from riyaz.engine.request import Request
from riyaz.json_files import from_json, read_json, write_json
from riyaz.metrics.intervals import standard_error
from riyaz.predictor import Predictor, PromptedModel
from riyaz.sources import safetensors
from riyaz.text.tokenizer import Tokenizer

KL_TOKENS = 256  # answer tokens whose distributions are compared with the base's, which take 50 MB


@dataclass(frozen=True)
class BlockLoss:
    """A block of general text: its mean negative log-probability in nats per token, and its tokens."""

    nats: float
    tokens: int


@dataclass(frozen=True)
class BaseFacts:
    """Measurements of the base that every arm is compared with: nats per token of general text, in all and by block,
    the same by block of English prose, and for each row the log-probabilities (answer tokens, vocabulary)."""

    general_nats: float
    answers: tuple[np.ndarray, ...]
    blocks: tuple[BlockLoss, ...] = ()
    prose: tuple[BlockLoss, ...] = ()  # none in the facts of an earlier version

    @classmethod
    def measure(cls, predictor: PromptedModel, rows: Sequence[Example], general: str | None, folder: Path) -> None:
        """Measure the base, given as a predictor with the instruction alone, and write the facts into `folder`."""
        answers: dict[str, Any] = {f"{i:04d}": part for i, part in enumerate(distributions(predictor, rows))}
        safetensors.write(folder / "base_kl.safetensors", answers, {})
        blocks, prose = (block_losses(predictor, text) for text in (general_text(general), prose_text()))
        write_json(folder / "base.json", _General(_mean(blocks), tuple(blocks), tuple(prose)), indent=None)

    @classmethod
    def read(cls, folder: Path) -> "BaseFacts":
        """The facts that `measure` wrote. Raises RiyazError for a damaged file."""
        file = safetensors.read(folder / "base_kl.safetensors")
        path = folder / "base.json"
        general = from_json(_General, read_json(path), str(path))
        return cls(general.general_nats, tuple(file.array(name) for name in sorted(file.tensors)), general.blocks,
                   general.prose)  # fmt: skip


@dataclass(frozen=True)
class _General:
    """base.json."""

    general_nats: float
    blocks: tuple[BlockLoss, ...]
    prose: tuple[BlockLoss, ...] = ()


def against_base(
    kind: str, predictor: Predictor, base: BaseFacts, rows: Sequence[Example], general: str | None
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Forgetting in nats per token of general text and of prose with standard errors, and KL(base ‖ adapted) on the
    task's answers, for an artifact with weights of this kind; and log p of every token of the answers of the first
    rows, none where a head of labels answers."""
    if not predictor.has_model:
        return {"forgetting_nats": 0.0, "kl_task": None}, []
    adapted = distributions(predictor, rows)
    parts = [(np.exp(p) * (p - q)).sum(1) for p, q in zip(base.answers, adapted)]
    drift: dict[str, Any] = {"forgetting_nats": 0.0}
    if kind != "none":
        blocks = block_losses(predictor, general_text(general))
        drift = {"forgetting_nats": _mean(blocks) - base.general_nats, "forgetting_se": _error(blocks, base.blocks)}
        if base.prose:
            prose = block_losses(predictor, prose_text())
            drift |= {"prose_nats": _mean(prose) - _mean(base.prose), "prose_se": _error(prose, base.prose)}
    if predictor.head is not None or predictor.has_questions:  # its answers are no texts
        return {**drift, "kl_task": float(np.concatenate(parts).mean())}, []
    answers = predictor.tokenizer.answer_ids([row.said for row in rows[: len(adapted)]])
    whole = [part[np.arange(len(ids)), ids] for part, ids in zip(adapted, answers) if len(part) == len(ids)]
    return {**drift, "kl_task": float(np.concatenate(parts).mean())}, whole


def _error(blocks: Sequence[BlockLoss], before: Sequence[BlockLoss]) -> float | None:
    """Standard error of the mean difference between the losses of the same blocks; None if they are not the same."""
    tokens = [block.tokens for block in blocks]
    if tokens != [block.tokens for block in before]:
        return None
    return standard_error(np.array([a.nats - b.nats for a, b in zip(blocks, before)]), np.array(tokens, float))


def general_nats(predictor: PromptedModel, path: str | None) -> float:
    """Mean negative log-probability per token of general text in nats, without a prompt.

    `path` names the text; None: the topics of Python's documentation.
    """
    return _mean(block_losses(predictor, general_text(path)))


def block_losses(predictor: PromptedModel, text: str) -> list[BlockLoss]:
    """The losses of evenly spaced blocks of a text, without a prompt."""
    parts = predictor.lm.logprobs(*block_requests(predictor, text))
    return [BlockLoss(-float(part.mean(dtype=np.float64)), len(part)) for part in parts]


def block_requests(predictor: PromptedModel, text: str) -> tuple[list[Request], list[list[int]]]:
    """Every block of a text as a request for its first token, and the tokens that follow it."""
    return requests_of(predictor, text_blocks(predictor.tokenizer, predictor.lm.context, text))


def text_blocks(tokenizer: Tokenizer, context: int, text: str) -> list[list[int]]:
    """The evenly spaced blocks of a text, as a model of this context reads them."""
    blocks = general_blocks(tokenizer.encode(text))
    room = BLOCK if context >= 2 * BLOCK else context // 2  # an adapter does not change it
    return [block[i : i + room] for block in blocks for i in range(0, len(block) - 1, room)]


def requests_of(predictor: PromptedModel, blocks: Sequence[list[int]]) -> tuple[list[Request], list[list[int]]]:
    """Every block as a request for its first token, and the tokens that follow it."""
    begin = predictor.tokenizer.beginning
    requests = [Request(place, (*begin, *block[:1]), adapter=predictor.adapter) for place, block in enumerate(blocks)]
    return requests, [block[1:] for block in blocks]


def _mean(blocks: Sequence[BlockLoss]) -> float:
    """Nats per token of all blocks together."""
    return sum(block.nats * block.tokens for block in blocks) / sum(block.tokens for block in blocks)


def distributions(predictor: PromptedModel, rows: Sequence[Example]) -> list[np.ndarray]:
    """Log-probabilities (answer tokens, vocabulary) for each of the first rows, KL_TOKENS tokens in all at most."""
    answers = predictor.tokenizer.answer_ids([row.said for row in rows])
    total, count = 0, 0
    while count < len(answers) and (count == 0 or total + len(answers[count]) <= KL_TOKENS):
        total += len(answers[count])
        count += 1
    answers = [answer[:KL_TOKENS] for answer in answers[:count]]
    prepared = predictor.prepare([row.messages for row in rows[:count]], room=max(map(len, answers)))
    return list(predictor.lm.distributions([each.request for each in prepared], answers))
