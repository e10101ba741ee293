"""Options of `riyaz limits`."""

from dataclasses import dataclass, field
from pathlib import Path

from riyaz.config.checking import Seconds, check_fields
from riyaz.config.options import Precision


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Options of measuring what a model cannot do."""

    suite: tuple[str, ...] = field(
        default=(), metadata={"help": "bias, truth, context, cost, fragile, separated by commas; all if not given"}
    )
    pairs: tuple[str, ...] = field(
        default=(),
        metadata={"help": "pairs of sentences or questions about groups: CrowS-Pairs, StereoSet, WinoBias, Winogender, "
                  "BBQ; several separated by commas"},
    )  # fmt: skip
    questions: tuple[str, ...] = field(
        default=(),
        metadata={"help": "questions with true and false answers: TruthfulQA, HaluEval; several separated by commas"},
    )
    rows: Path | None = field(
        default=None,
        metadata={"help": "your own rows with answers; of an arm of a comparison its validation and test rows if not "
                  "given"},
    )  # fmt: skip
    documents: Path | None = field(
        default=None, metadata={"help": "documents that the rows name by doc_id: a folder, or a file of rows"}
    )
    budget: Seconds = field(
        default=Seconds("10m"), metadata={"help": "wall time of the measurements, such as 90s or 10m", "minimum": 1}
    )
    precision: Precision = field(
        default="auto", metadata={"help": "how weights are held when the model answers; auto: as the file stores them"}
    )
    price_per_hour: float | None = field(
        default=None, metadata={"help": "price of this machine for an hour, in your currency", "minimum": 0}
    )
    price_per_million: float | None = field(
        default=None,
        metadata={"help": "price of a million tokens elsewhere, in your currency, to compare with", "minimum": 0},
    )
    carbon: float | None = field(
        default=None, metadata={"help": "grams of CO2 for a kWh of electricity where this machine stands", "minimum": 0}
    )

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        check_fields(self)
