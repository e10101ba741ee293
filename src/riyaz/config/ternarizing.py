"""Options of `riyaz ternarize`."""

from dataclasses import dataclass

from riyaz.config.checking import Seconds, check_fields
from riyaz.config.option import LARGEST_SEED, option
from riyaz.errors import RiyazError


@dataclass(frozen=True, kw_only=True)
class TernarizeConfig:
    """Options of making a ternary model from a full-precision one."""

    budget: Seconds = option(Seconds("20m"), "wall time of the whole command", minimum=1)
    group: int | None = option(
        None, "columns that share a scale, a multiple of 16; one scale for the whole matrix if not given", minimum=16
    )
    learning_rate: float | None = option(None, "highest learning rate; searched if not given", above=0, below=1)
    seed: int = option(0, "seed of the order of the text", minimum=0, maximum=LARGEST_SEED)
    steps: int | None = option(None, "number of training steps, in place of a budget", minimum=1)

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        check_fields(self)
        if self.group is not None and self.group % 16:
            raise RiyazError(f"{self.group} is no multiple of 16", "--group", "take 128, or leave it out")
