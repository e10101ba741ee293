"""`riyaz join`: puts the shards of a file's rows together, as one run without shards would have written them."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json, Quiet
from riyaz.cli.output import Screen
from riyaz.cli.rows_out import writable
from riyaz.cli.shards import AGAIN, ShardFile, machines_note, read_shards
from riyaz.errors import RiyazError

Joiner = Callable[[Screen, Sequence[ShardFile], Path, Path], None]  # gets --out, and the file behind it


def join(
    *shards: Annotated[Path, Parameter(help="the files OUT.I-of-N of all shards, in any order")],
    out: Annotated[Path, Parameter(help="file to write, of the kind that the shards were made for")],
    force: Annotated[bool, Parameter(help="replace the file if it exists")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Put together what run, decide or evaluate --shard I/N has answered."""
    if not shards:
        raise RiyazError("no shard is named", hint="give the files OUT.I-of-N that --shard I/N has written")
    screen = Screen(json, quiet)
    parts = read_shards(shards)
    real = writable(out, [part.path for part in parts], force)
    head = parts[0].head
    if head.verb not in JOINERS:
        raise RiyazError(f"was made by riyaz {head.verb}, whose shards are not joined", str(parts[0].path), AGAIN)
    if note := machines_note(parts):
        screen.talk.print(f"note: {note}", soft_wrap=True)
    JOINERS[head.verb](screen, parts, out, real)


def _join_run(screen: Screen, parts: Sequence[ShardFile], out: Path, real: Path) -> None:
    from riyaz.cli.answered_rows import join_answers

    answered, head = join_answers(parts, real, out), parts[0].head
    for line in answered.warnings():
        screen.talk.print(line, soft_wrap=True)
    screen.talk.print(f"{head.rows:,} rows answered in {out}, from {len(parts):,} shards", soft_wrap=True)
    for line in answered.notes():
        screen.talk.print(line, soft_wrap=True)
    screen.finish({"target": head.target, "file": head.file, "out": str(out), "rows": head.rows})


def _join_decide(screen: Screen, parts: Sequence[ShardFile], out: Path, real: Path) -> None:
    from riyaz.cli.decide import show_decisions
    from riyaz.cli.decided_rows import join_decisions

    began, head = time.monotonic(), parts[0].head
    tally, formulas = join_decisions(parts, real, out)
    document = {"target": head.target, "file": head.file, "out": str(out), "rows": head.rows}
    line = f"{head.rows:,} rows in {out}, from {len(parts):,} shards"
    show_decisions(screen, tally, formulas, line, document, time.monotonic() - began)
    tally.check(out)


def _join_evaluate(screen: Screen, parts: Sequence[ShardFile], out: Path, real: Path) -> None:
    from riyaz.cli.evaluate import join_scores, show_scores

    show_scores(screen, join_scores(parts, real, out))


JOINERS: dict[str, Joiner] = {"run": _join_run, "decide": _join_decide, "evaluate": _join_evaluate}
