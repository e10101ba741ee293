"""Results of a run of `riyaz ternarize` as typed values: ternarize.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from riyaz.json_files import OPTIONAL
from riyaz.results.documents import ELSEWHERE, read_document
from riyaz.results.pretraining import RunStatus

TERNARIZE = "ternarize.json"


@dataclass(frozen=True)
class TernarizeRun:
    """ternarize.json: losses in nats per token on the same held-out text, None where not measured yet."""

    status: RunStatus
    command: str
    asked: dict[str, Any]
    sha256: str = ""  # of the model
    text_sha256: str = ""
    norms: bool = False  # whether norms were added
    parameters: int = 0
    plan: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    search: list[dict[str, Any]] = field(default_factory=list)  # losses at the end of the openings, by rate
    rate: float | None = None  # the searched learning rate
    loss_before: float | None = None  # of the model as it was
    loss_rounded: float | None = None  # of the model rounded to ternary weights and not trained
    loss: float | None = None
    seconds: float | None = None
    tokens: int | None = None
    mb: float | None = None  # of the files
    schema: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> "TernarizeRun":
        """The run in a ternarize.json. Raises RiyazError naming the invalid field."""
        return read_document(cls, path, ELSEWHERE)
