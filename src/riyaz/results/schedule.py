"""Who did what when: the processes of a comparison on several places, in places.json and in compare.json."""

from dataclasses import dataclass, field
from typing import Literal

from riyaz.json_files import OPTIONAL


@dataclass(frozen=True)
class Turn:
    """One process of an arm at one place. Times are seconds since the command began, with those of earlier commands
    that it goes on from."""

    place: str
    work: Literal["search", "fit", "evaluate"]  # search: of the opening at one learning rate
    arm: str
    part: str
    began: float
    ended: float | None = None  # None: it runs, or its command was killed
    outcome: Literal["", "done", "failed", "lost"] = ""  # lost: the place was, and the arm was given to another one
    rate: float | None = field(default=None, metadata=OPTIONAL)  # of a search
    made_in: str | None = field(default=None, metadata=OPTIONAL)  # the folder that it writes into until it is done
