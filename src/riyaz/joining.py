"""How a command that torchrun has started several times becomes one run: its processes join, compare themselves, and
one of them tells the user what goes wrong.

The first process is the ordinary command. The others follow what it announces (`Ranks.first`): a dictionary each time,
an empty one at the end. torch is imported inside functions only.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from riyaz.errors import RiyazError
from riyaz.files import write_text
from riyaz.ranks import ALONE, GO_ON, Lost, ProcessError, Ranks, ToldElsewhere, launched

SHARED = "processes"  # file in work/ by which the others see that the folder is the first process's
SEEN = 60.0  # seconds in which a network drive shows a new file
LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"


@contextlib.contextmanager
def joined(go_on: str = GO_ON) -> Iterator[Ranks]:
    """Within the block this process belongs to those that torchrun has started; it is alone where there are none.
    `go_on` says how the run continues when one of them is gone.

    Raises RiyazError where the others do not come, start otherwise or are gone, and ToldElsewhere where another process
    tells the user. When the first process ends without an error, the others hear an empty dictionary.
    """
    rank, count = launched()
    if count == 1:
        yield ALONE
        return
    os.environ.setdefault(LOG_LEVEL, "FATAL")  # torch would tell at length of what is one line here
    from riyaz.layers.fast.group import Group
    from riyaz.layers.fast.meeting import AT_END, LINGER

    who, linger = f"process {rank} of {count}", LINGER
    try:
        group = Group(rank, count)
    except RiyazError as error:
        if isinstance(error, Lost):
            error.goes_on_by(go_on)
        raise ProcessError(who, error) from error
    try:
        yield group
        if not rank:
            group.first({})
        linger = AT_END
    except ToldElsewhere:
        raise
    except BaseException as error:
        if isinstance(error, Lost):
            error.goes_on_by(go_on)
        first = group.meeting.tells()
        if isinstance(error, RiyazError) and rank and first:
            raise ProcessError(who, error) from error
        if isinstance(error, RiyazError) and not first and (rank or isinstance(error, Lost)):
            raise ToldElsewhere from error
        raise
    finally:
        with contextlib.suppress(KeyboardInterrupt):  # by torchrun, which ends all: the error before it is the reason
            group.leave(linger)


def announce_start(ranks: Ranks, work: Path, values: Mapping[str, object]) -> None:
    """In the first process: refuse others that were started with other `values`, or that do not see the folder `work`.
    Raises RiyazError with both values."""
    if ranks.count > 1:
        mark = secrets.token_hex(4)
        write_text(work / SHARED, mark)
        ranks.first({"do": "start", "mark": mark})
        _compare(ranks, work, values, mark)


def join_start(ranks: Ranks, work: Path, values: Mapping[str, object], mark: str) -> None:
    """The same in another process, once it has heard of the mark."""
    until, seen = time.monotonic() + SEEN, ""
    while seen != mark and time.monotonic() < until:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            seen = (work / SHARED).read_text(encoding="utf-8")
        time.sleep(0.05)
    _compare(ranks, work, values, seen)


def _compare(ranks: Ranks, work: Path, values: Mapping[str, object], mark: str) -> None:
    ranks.expect_alike(values)
    ranks.expect_alike({f"the mark in {work}": mark or "missing"}, "give --out a folder that all processes share")
