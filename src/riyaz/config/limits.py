"""Options of `riyaz limits`."""

from dataclasses import dataclass
from pathlib import Path

from riyaz.config.checking import Seconds, check_fields
from riyaz.config.option import Precision, option


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Options of measuring what a model cannot do."""

    suite: tuple[str, ...] = option((), "bias, truth, context, cost, fragile, separated by commas; all if not given")
    pairs: tuple[str, ...] = option(
        (),
        "pairs of sentences or questions about groups: CrowS-Pairs, StereoSet, WinoBias, Winogender, "
        "BBQ; several separated by commas",
    )
    questions: tuple[str, ...] = option(
        (), "questions with true and false answers: TruthfulQA, HaluEval; several separated by commas"
    )
    rows: Path | None = option(
        None, "your own rows with answers; for an arm of a comparison, its validation and test rows if not given"
    )
    documents: Path | None = option(None, "documents that the rows name by doc_id: a folder, or a file of rows")
    budget: Seconds = option(Seconds("10m"), "wall time of the measurements, such as 90s or 10m", minimum=1)
    precision: Precision = option("auto", "how weights are held when the model answers; auto: as the file stores them")
    price_per_hour: float | None = option(None, "price of this machine per hour, in your currency", minimum=0)
    price_per_million: float | None = option(
        None, "price of a million tokens at another service, in your currency", minimum=0
    )
    carbon: float | None = option(None, "grams of CO2 per kWh of electricity where this machine stands", minimum=0)

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        check_fields(self)
