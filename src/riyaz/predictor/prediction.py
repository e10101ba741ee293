"""What a predictor answers: a whole text, or its pieces as they are made."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riyaz.retrieval.search import Hit


@dataclass(frozen=True)
class Prediction:
    """An answer; `citations` names the documents that stood in its prompt.

    `log_probability` is that of a label or a span in nats, end token included and before calibration; None for an
    answer that was generated or copied.
    """

    text: str
    log_probability: float | None = None
    citations: tuple[dict, ...] = ()


@dataclass(frozen=True, eq=False)
class Stream:
    """An answer while it is made: an iterator over pieces of its text, which joined are the answer.

    `passages` stand in the prompt and are known before the first piece.
    """

    pieces: Iterator[str]
    passages: "tuple[Hit, ...]" = ()

    def __iter__(self) -> Iterator[str]:
        return self.pieces

    @property
    def citations(self) -> tuple[dict, ...]:
        """The place of each passage in its document."""
        return citations(self.passages)


def citations(passages: "tuple[Hit, ...]") -> tuple[dict, ...]:
    """The place of each passage in its document."""
    if not passages:
        return ()
    from riyaz.retrieval.search import citation

    return tuple(map(citation, passages))
