"""Run commands where they have little memory, a small or a read-only folder, or others that work in the same one.

    export PYTHONPATH=tests:tests/helpers:tests/torture
    python tests/torture/surroundings.py --seconds 1800           # a part of `make torture`; as root, on Linux
    python tests/torture/surroundings.py --only quantize --kinds memory --sizes 20

A command ends with 0, or with 2 and one line that says why, and keeps nothing half-written. Then the same command,
where nothing is wrong, must make the result of the reference and leave nothing. Of several processes in one folder one
makes the result; each other one makes it too or says in one line that another works there. A stopped campaign goes on
by the same command.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import campaign
import faults
from campaign import Failure
from verbs import VERBS, Verb

LEAST, MOST = 96 * 2**20, 6 * 2**30  # bytes of address space: Python alone begins with some 90 MB, torch with 3 GB
DISKS = ("16k", "128k", "2m")  # sizes of the small disk
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all")
# the disk is there only for this command: it lists what is left there into the file $2 and goes with the namespace
SMALL = 'mount -t tmpfs -o size=$1 tmpfs . && cd "$PWD" && list=$2 && shift 2 && "$@"; s=$?; find . > "$list"; exit $s'
# the folder is $1, which goes after $2 seconds, so that paths lead to the empty folder below it, and is there again $3
# seconds later; a process that works in it stays in the one that is gone
AWAY = (
    'mount --bind "$1" . && cd "$PWD" || exit 1; '
    '(cd / && sleep "$2" && umount -l "$OLDPWD" && sleep "$3" && mount --bind "$1" "$OLDPWD") & shift 3; '
    '"$@"; s=$?; wait; exit $s'
)
AWAY_SECONDS = 2.0
KINDS = ("memory", "read-only", "disk", "stopped", "two", "five", "away")
CHEAP = ("export", "quantize", "rag-add", "pull", "run", "inside", "limits", "ternarize", "pretrain", "adapt-nearest")
SHARED = ("rag-add", "pull", "pretrain", "run", "export", "adapt-nearest", "compare-openings")  # by several processes
BUSY = ("another riyaz", "another process", "is locked", "database is locked", *campaign.EXISTS)
# libraries that end the process: tokenizers, written in Rust, without memory, and MKL without a working folder
ABORTED = {"memory": (-signal.SIGABRT, "memory allocation of"), "away": (2, "oneMKL FATAL ERROR: Cannot load")}
GENERATE = Verb("generate", ("generate ../inputs/model 'where is my order' --max-tokens 8 --precision fp32",), True)
WHY = {  # a word of the reason that has to be in the line
    "memory": ("memory", "address space"), "read-only": ("permission denied", "read-only", "cannot be"),
    "disk": faults.REASONS, "away": ("no such file", "is gone"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """How one run ended: `kind` with a number (bytes of memory, place of the disk's size, seconds of the stop)."""

    verb: str
    kind: str
    number: int
    outcome: str
    failure: str = ""


def expect_one_line(status: int | None, folder: Path, words: Sequence[str], ending: str = "") -> None:
    """Raises Failure where a command that failed did not end with 2 and one line with one of the words."""
    told = said(folder, ending)
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    if status is None:
        raise Failure("hung", f"ran longer than {campaign.LIMIT} s")
    if status != 2 or "Traceback" in told or len(lines) != 1:
        raise Failure("unclear", f"status {status}: {told[-700:]!r}")
    if not any(word in lines[0].lower() for word in words):
        raise Failure("unclear", f"names no reason: {lines[0]!r}")


def said(folder: Path, ending: str = "") -> str:
    """What the last command printed to stderr; `ending` is the number of one of several."""
    return campaign.beside(folder, f"stderr{ending}").read_text()


def alone(verb: Verb, kind: str, number: int, folder: Path, whole: Path, seconds: float) -> int | None:
    """Run the first command, which takes so many seconds, in its surroundings: its status, after what it left is looked
    at. Raises Failure."""
    listing = campaign.beside(folder, "listing")
    before: tuple[str, ...] = ("prlimit", f"--as={number}")
    if kind == "read-only":
        folder.chmod(0o555)
        before = WITHOUT_RIGHTS
    elif kind == "disk":
        before = ("unshare", "-m", "sh", "-c", f"cd / && cd '{folder}' && {SMALL}", "sh", DISKS[number], str(listing))
    elif kind == "away":
        store = campaign.beside(folder, "store")
        store.mkdir()
        gone = (str(store), f"{seconds * number / 10:.2f}", f"{AWAY_SECONDS}")
        before = ("unshare", "-m", "sh", "-c", f"cd / && cd '{folder}' && {AWAY}", "sh", *gone)
    try:
        status = campaign.attempt(verb.commands[0], folder, campaign.LIMIT, before=before)
    finally:
        folder.chmod(0o755)
    if kind == "away":
        put_back(folder)
    if status == 0:
        return status
    if is_aborted(kind, status, folder):
        return status  # what it left is removed by the same command
    expect_one_line(status, folder, WHY[kind])
    faults.expect_no_half(verb, whole, folder)
    left = listing.read_text().split() if kind == "disk" else [*campaign.listed(folder)]
    if (kind == "read-only" and left) or any(".riyaz-" in name for name in left):
        raise Failure("left", f"left behind: {', '.join(left[:5])}")
    return status


def is_aborted(kind: str, status: int | None, folder: Path) -> bool:
    """Whether a library ended the process, with a line of its own."""
    ended, words = ABORTED.get(kind, (0, ""))
    return status == ended != 0 and words in said(folder)


def put_back(folder: Path) -> None:
    """Make what was mounted at the folder the folder itself. Raises Failure where something lies below the mount, where
    nobody would see it again."""
    if hidden := sorted(campaign.listed(folder)):
        raise Failure("lost", f"written where the folder was away: {', '.join(hidden[:5])}")
    folder.rmdir()
    campaign.beside(folder, "store").rename(folder)


def together(command: str, folder: Path, count: int, stop: tuple[float, float] | None) -> int:
    """Start the command in so many processes; with `stop` the first is stopped after so many seconds and goes on so
    many seconds after the others have begun. How many made the result. Raises Failure."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(count):
            processes.append(campaign.start(command, folder, said=str(number)))
            if stop and number == 0:
                time.sleep(stop[0])
                os.killpg(processes[0].pid, signal.SIGSTOP)
        if stop:
            time.sleep(stop[1])
            os.killpg(processes[0].pid, signal.SIGCONT)
        statuses = [process.wait(campaign.LIMIT) for process in processes]
    except subprocess.TimeoutExpired:
        raise Failure("hung", f"a process of {command!r} runs longer than {campaign.LIMIT} s") from None
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    for process in processes:
        campaign.expect_no_process(process.pid, command)
    for number, status in enumerate(statuses):
        if status != 0:
            expect_one_line(status, folder, BUSY, str(number))
    if 0 not in statuses:
        raise Failure("lost", f"none of {count} processes made the result: {statuses}")
    return statuses.count(0)


def run_case(verb: Verb, kind: str, number: int, seed: int, root: Path) -> Case:
    """One command in its surroundings, then without them, then the comparison. A failed case keeps its folder."""
    whole, seconds = campaign.reference(verb, root)
    draw = random.Random(f"{seed}/{verb.name}/{kind}/{number}")
    folder = root / f"{verb.name}-{kind}-{number}"
    campaign.clear(folder)
    folder.mkdir()
    first, *others = verb.commands
    there = kind in ("stopped", "two", "five")
    try:
        if there:
            stop = (draw.uniform(0.3, 0.9) * seconds[0], float(number)) if kind == "stopped" else None
            made = together(first, folder, {"stopped": 2, "two": 2, "five": 5}[kind], stop)
            outcome = f"{made} made it"
        else:
            status = alone(verb, kind, number, folder, whole, seconds[0])
            outcome = "done" if status == 0 else "aborted" if is_aborted(kind, status, folder) else "told"
        if there or outcome != "done" or kind == "disk":  # the small disk is gone
            campaign.is_there(campaign.attempt(first, folder, campaign.LIMIT), folder, killed=there)
        for command in others:
            campaign.is_there(campaign.attempt(command, folder, campaign.LIMIT), folder, killed=False)
        campaign.keep_printed(verb, folder)
        campaign.expect_same(whole, folder)
    except Failure as failure:
        return Case(verb.name, kind, number, failure.kind, str(failure))
    campaign.clear(folder)
    return Case(verb.name, kind, number, outcome)


def planned(verbs: list[Verb], kinds: list[str], sizes: int, stop: int) -> Iterator[tuple[Verb, str, int]]:
    """Every (verb, kind, number)."""
    steps = [round(LEAST * (MOST / LEAST) ** (step / max(1, sizes - 1))) for step in range(sizes)]
    numbers = {"memory": steps, "disk": range(len(DISKS)), "stopped": [stop], "away": range(1, 10)}
    for kind in kinds:
        for verb in verbs:
            if verb.name in SHARED or kind in ("memory", "read-only", "disk", "away"):
                yield from ((verb, kind, number) for number in numbers.get(kind, [0]))


def summary(cases: list[Case], seed: int, minutes: float) -> str:
    """The one line at the end."""
    kinds = [f"{sum(case.kind == kind for case in cases)} {kind}" for kind in KINDS]
    through = sum(bool(case.failure) for case in cases)
    told, aborted = (sum(case.outcome == outcome for case in cases) for outcome in ("told", "aborted"))
    return (
        f"surroundings: {len({case.verb for case in cases})} verbs, tried {len(cases)} ({', '.join(kinds)}), {told} "
        f"told, {aborted} ended by a library, got through {through}, seed {seed}, {minutes:.1f} min"
    )


def main() -> int:
    """The command line; 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--sizes", type=int, default=6, help="limits of memory, from 96 MB to 6 GB (default: 6)")
    parser.add_argument("--stop", type=int, default=10, help="seconds for which a process is stopped (default: 10)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after so many seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="the verbs whose names begin so")
    parser.add_argument("--folder", type=Path, help="default: build/surroundings-SEED")
    options = parser.parse_args()
    root = (options.folder or campaign.TESTS.parent / f"build/surroundings-{options.seed}").resolve()
    names = {*CHEAP, *SHARED, GENERATE.name}
    verbs = [verb for verb in (*VERBS, GENERATE) if verb.name.startswith(options.only or tuple(names))]
    if not verbs:
        raise SystemExit(f"--only {options.only}: no such verb")
    campaign.prepare(root, verbs)
    began, done = time.monotonic(), []
    plans = planned(verbs, options.kinds.split(","), options.sizes, options.stop)
    run = partial(run_case, seed=options.seed, root=root)
    for case, fresh in campaign.resumed(root, Case, plans, run, options.seconds):
        if fresh and case.failure:
            print(f"FAILED {case.verb} {case.kind} {case.number}\n  {case.failure}", flush=True)
        done.append(case)
    print(summary(done, options.seed, (time.monotonic() - began) / 60))
    return 1 if any(case.failure for case in done) else 0


if __name__ == "__main__":
    with campaign.stoppable():
        sys.exit(main())
