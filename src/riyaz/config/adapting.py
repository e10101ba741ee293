"""Options of `riyaz adapt` alone: the artifact from which training goes on."""

from dataclasses import dataclass
from pathlib import Path

from riyaz.config.checking import check_fields
from riyaz.config.option import option
from riyaz.errors import RiyazError


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """What `riyaz adapt` goes on from, and on which rows it measures what that has forgotten."""

    from_: Path | None = option(
        None, "artifact whose LoRA is trained further on these rows: its folder, or COMPARISON/METHOD", common=True
    )
    earlier_test: Path | None = option(
        None,
        "test rows of what the artifact of --from has learned: up to 100 of them are answered before and after",
        common=True,
    )

    def __post_init__(self) -> None:
        """Checks the values. Raises RiyazError naming the flag."""
        check_fields(self)
        if self.earlier_test is not None and self.from_ is None:
            raise RiyazError("there is no earlier task without --from", "--earlier-test", "leave it out, or add --from")
