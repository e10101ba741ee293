"""Options of drawing the tokens of an answer."""

from dataclasses import dataclass
from typing import Any

from riyaz.config.checking import check_fields, explicit_options
from riyaz.config.option import option


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the tokens of an answer are chosen. None: as the model's own settings say, else the likeliest one."""

    temperature: float | None = option(
        None,
        "0 takes the likeliest token, 1 draws by the probabilities, more is livelier; if not given, the "
        "value of the model's generation_config.json, else 0",
        minimum=0,
    )
    top_k: int | None = option(None, "draw from this many of the likeliest tokens; 0: from all", minimum=0)
    top_p: float | None = option(
        None, "draw from the fewest tokens whose probabilities add up to this", minimum=0, maximum=1
    )
    min_p: float | None = option(
        None, "draw from the tokens with at least this share of the highest probability", minimum=0, maximum=1
    )
    repetition_penalty: float | None = option(
        None, "above 1 makes tokens of the prompt and the answer so far less likely; 1: no penalty", above=0, maximum=10
    )
    seed: int | None = option(None, "seed of the draws: the same seed gives the same answer; 0 if not given")

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        check_fields(self)

    def explicit(self) -> dict[str, Any]:
        """The options that were given: those that are not None."""
        return explicit_options(self)
