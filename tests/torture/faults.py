"""Let every change of a file fail once in a command, run the command again, and compare with one that nothing hit.

    export PYTHONPATH=tests:tests/helpers:tests/torture
    python tests/torture/faults.py --seconds 1800            # a part of `make torture`
    python tests/torture/faults.py --only export --kinds kill,write

`faults.c` is preloaded into the command and counts its changes of files below the case's folder. For each kind and each
n the n-th change fails (ENOSPC, EDQUOT or EIO, drawn from the seed; every second time all later ones fail too), ends
the process, or moves the clock by a day. A command that an error hits says so in one line and ends with 2, or makes the
same result without the file. Then the same command must make the result of the reference and leave nothing.
A stopped campaign goes on by the same command.
"""

import argparse
import errno
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import campaign
from campaign import Failure
from verbs import VERBS, Verb

SOURCE = Path(__file__).with_name("faults.c")
KINDS = {  # what counts as a change (the letters of faults.c), and the errors that are drawn for it
    "write": ("w", (errno.ENOSPC, errno.EDQUOT, errno.EIO)),
    "sync": ("s", (errno.EIO, errno.ENOSPC)),
    "rename": ("m", (errno.ENOSPC, errno.EIO, errno.EDQUOT)),
    "open": ("o", (errno.ENOSPC, errno.EDQUOT, errno.EIO)),
    "read": ("r", (errno.EIO,)),
    "kill": ("wsmod", ()),
    "clock": ("wsmod", ()),
}
TEMPORARY = re.compile(r"^\.(.+)\.riyaz-.*$")  # of riyaz.files.atomic_file: the group is the file's final name
DAY = 86_400  # seconds
STATE, PATH = 8192, 3900  # bytes of the file that faults.c maps, and of each of its two paths
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHEAP = ("export", "quantize", "rag-add", "run", "pull", "limits", "ternarize", "pretrain", "adapt", "compare")
RESUMED = ("run", "limits", "pretrain", "ternarize", "adapt", "compare", "distil", "rag")  # begin results of their own
# SQLite says only that a file cannot be opened, and Python's module does not pass on why
REASONS = (*(os.strerror(number).lower() for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO)), "disk is full",
           "disk i/o", "cannot be opened or written")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """How one fault ended: `kind` at the n-th change of command `place`. `outcome`: told (one line and a status),
    without (the same result without that file), killed, through, or the kind of failure."""

    verb: str
    place: int
    kind: str
    n: int
    outcome: str
    path: str = ""
    failure: str = ""


def library(folder: Path) -> Path:
    """Compile faults.c where that is not done; the library's path."""
    made = folder / "faults.so"
    if not made.exists() or made.stat().st_mtime < SOURCE.stat().st_mtime:
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", str(SOURCE), "-o", str(made), "-ldl"]
        subprocess.run(command, check=True)
    return made


def variables(root: Path, state: Path, n: int, what: str, letters: str, below: Path) -> dict[str, str]:
    """The variables by which faults.c knows what to do."""
    return {
        "LD_PRELOAD": str(library(root)), "FAULT_STATE": str(state), "FAULT_AT": str(n), "FAULT_DO": what,
        "FAULT_ON": letters, "FAULT_BELOW": str(below),
    }  # fmt: skip


def faulted(
    command: str, folder: Path, root: Path, kind: str, n: int, draw: random.Random
) -> tuple[int | None, list[str]]:
    """The command with a fault at its n-th change: (its status, None where it was killed; the letter and the path of
    that change and of the last one that failed)."""
    state = campaign.beside(folder, "fault")
    state.write_bytes(bytes(STATE))
    letters, errors = KINDS[kind]
    what = {"kill": "kill", "clock": f"clock:{draw.choice((-DAY, DAY))}"}.get(kind) or str(draw.choice(errors))
    more = variables(root, state, n, what, letters, folder.parent if kind == "read" else folder)  # inputs are read
    if errors and draw.random() < 0.5:
        more["FAULT_STAYS"] = "1"
    status = campaign.attempt(command, folder, campaign.LIMIT, more=more)
    paths = hit_paths(state)
    state.unlink()
    return status, paths


def counted(state: Path) -> dict[str, int]:
    """The count of each kind of change in the file that faults.c maps, by its letter."""
    held = state.read_bytes()[8:]
    return {letter: int.from_bytes(held[8 * at : 8 * at + 8], "little") for at, letter in enumerate(LETTERS)}


def hit_paths(state: Path) -> list[str]:
    """The letter and the path of the change that was hit, and of the last one; empty where none was."""
    held = state.read_bytes()[8 * (1 + len(LETTERS)) :]
    return [held[at : at + PATH].split(b"\0")[0].decode() for at in (0, PATH)]


def expect_one_line(status: int | None, paths: list[str], folder: Path) -> None:
    """Raises Failure where the command did not end with 2 and one line that names one of the files and the reason: it
    may do without the first where a later one fails too."""
    said = campaign.beside(folder, "stderr").read_text()
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if status is None:
        raise Failure("hung", f"ran longer than {campaign.LIMIT} s")
    if status != 2 or "Traceback" in said or len(lines) != 1:
        raise Failure("unclear", f"status {status}: {said[-500:]!r}")
    if not any(reason in lines[0].lower() for reason in REASONS):
        raise Failure("unclear", f"names no reason: {lines[0]!r}")
    if not any(is_named(Path(path[2:]), lines[0], folder) for path in paths):
        raise Failure("unclear", f"names no file: {lines[0]!r}")


def is_named(path: Path, line: str, folder: Path) -> bool:
    """Whether a line names a file or a folder above it, below the campaign's folder; the case's own needs no name."""
    parts = [TEMPORARY.sub(r"\1", part).split("-journal")[0] for part in path.relative_to(folder.parent).parts]
    names = "|".join(map(re.escape, parts))
    return path == folder or re.search(rf"[ /'\"]({names})[:/ ;'\"]", line) is not None


def expect_no_half(verb: Verb, whole: Path, folder: Path) -> None:
    """Raises Failure where a file of the result is there and is not the reference's; verbs that go on begin theirs."""
    if verb.name.startswith(RESUMED):
        return
    for path in folder.rglob("*"):
        other = whole / path.relative_to(folder)
        if path.is_file() and other.is_file() and path.stat().st_size != other.stat().st_size:
            raise Failure("half", f"{path.relative_to(folder)} has {path.stat().st_size:,} bytes, not "
                          f"{other.stat().st_size:,}")  # fmt: skip


def run_case(verb: Verb, place: int, kind: str, n: int, seed: int, root: Path) -> Case:
    """One fault, then the same command without it, then the comparison. A failed case keeps its folder."""
    whole, _ = campaign.reference(verb, root)
    draw = random.Random(f"{seed}/{verb.name}/{place}/{kind}/{n}")
    folder = root / f"{verb.name}-{place}-{kind}-{n}"
    campaign.clear(folder)
    folder.mkdir()
    outcome, path, there = "", "", False
    try:
        for number, command in enumerate(verb.commands):
            status = None
            if number == place:
                status, paths = faulted(command, folder, root, kind, n, draw)
                path = paths[0]
                outcome = "through" if not path else "moved" if kind == "clock" else "killed" if kind == "kill" else ""
                if not outcome:
                    outcome = "told" if status else "without"
                    if status:
                        expect_one_line(status, paths, folder)
                        expect_no_half(verb, whole, folder)
                elif kind == "clock" and status != 0:
                    campaign.is_there(status, folder, killed=False)
            if status != 0:
                status = campaign.attempt(command, folder, campaign.LIMIT)
                there |= campaign.is_there(status, folder, killed=number == place)
        campaign.keep_printed(verb, folder)
        campaign.expect_same(whole, folder, there)
    except Failure as failure:
        return Case(verb.name, place, kind, n, failure.kind, path, str(failure))
    campaign.clear(folder)
    return Case(verb.name, place, kind, n, outcome, path)


def changes(verb: Verb, place: int, kind: str, root: Path) -> int:
    """How many changes of the kind the command makes where nothing hits it; those of all kinds are counted at once."""
    known = root / "counts.json"
    counts = json.loads(known.read_text()) if known.exists() else {}
    key, folder = f"{verb.name}/{place}", root / f"{verb.name}-count"
    if key not in counts:
        campaign.clear(folder)
        folder.mkdir()
        for command in verb.commands[:place]:
            campaign.is_there(campaign.attempt(command, folder, campaign.LIMIT), folder, killed=False)
        state, letters = campaign.beside(folder, "fault"), "".join(letters for letters, _ in KINDS.values())
        state.write_bytes(bytes(STATE))
        more = variables(root, state, 0, "0", letters, root)
        campaign.is_there(
            campaign.attempt(verb.commands[place], folder, campaign.LIMIT, more=more), folder, killed=False
        )
        counts[key] = counted(state)
        campaign.clear(folder)
        known.write_text(json.dumps(counts))
    return sum(counts[key][letter] for letter in KINDS[kind][0])


def planned(verbs: list[Verb], kinds: list[str], most: int, seed: int, root: Path) -> Iterator[tuple]:
    """Every (verb, place of the command, kind, n), at most `most` n of each, spread by the seed."""
    for verb in verbs:
        for place in range(len(verb.commands)):
            for kind in kinds:
                count = changes(verb, place, kind, root)
                draw = random.Random(f"{seed}/{verb.name}/{place}/{kind}")
                chosen = range(1, count + 1)
                yield from ((verb, place, kind, n) for n in sorted(draw.sample(chosen, min(most, count))))


def summary(cases: list[Case], seed: int, minutes: float) -> str:
    """The one line at the end."""
    kinds = [f"{sum(case.kind == kind for case in cases)} {kind}" for kind in KINDS]
    without = sum(case.outcome == "without" for case in cases)
    return (
        f"faults: {len({case.verb for case in cases})} verbs, tried {len(cases)} ({', '.join(kinds)}), got through "
        f"{sum(bool(case.failure) for case in cases)}, {without} done without the file, seed {seed}, {minutes:.1f} min"
    )


def main() -> int:
    """The command line; 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10**6, help="n of each kind and command (default: every n)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after so many seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="the verbs whose names begin so")
    parser.add_argument("--folder", type=Path, help="default: build/faults-SEED")
    options = parser.parse_args()
    root = (options.folder or campaign.TESTS.parent / f"build/faults-{options.seed}").resolve()
    verbs = campaign.chosen(options.only) if options.only else [v for v in VERBS if v.name.startswith(CHEAP)]
    campaign.prepare(root, verbs)
    began, done = time.monotonic(), []
    plans = planned(verbs, options.kinds.split(","), options.most, options.seed, root)
    run = partial(run_case, seed=options.seed, root=root)
    for case, fresh in campaign.resumed(root, Case, plans, run, options.seconds):
        if fresh and case.failure:
            where = f"{case.verb} {case.place + 1} {case.kind} {case.n} at {case.path}"
            print(f"FAILED {where}\n  {case.failure}", flush=True)
        done.append(case)
    print(summary(done, options.seed, (time.monotonic() - began) / 60))
    return 1 if any(case.failure for case in done) else 0


if __name__ == "__main__":
    with campaign.stoppable():
        sys.exit(main())
