"""Kill commands at random moments, run the same commands until they end, and compare what they made with one run that
nobody killed.

    export PYTHONPATH=tests:tests/helpers
    python tests/torture/campaign.py --kills 8 --seconds 1800      # `make torture`
    python tests/torture/campaign.py --only quantize --kills 40

Every command of `verbs.py` is a real process that SIGKILL ends, alone or with all its workers, at a moment drawn from
the seed. Then the results must be those of the reference: all bytes, but for the times, machines and sentences that
tests/same.py leaves out. Nothing may be left in the folder or in the folder of temporary files, and no process.
A stopped campaign goes on by the same command.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import same
from verbs import SETUP, VERBS, Verb, write_inputs

TESTS = Path(__file__).parents[1]
LIMIT = 300  # seconds of one command
LEAVING = 10  # seconds in which the workers of a killed command end
AGAIN = 0.3  # share of kills after which the next start is killed too
# keys that tests/same.py compares: what measured times and memory lead to, which place was free (whose mark is drawn
# anew), and the commands by which a run went on
MEASURED = re.compile(
    r"/places/\w+/mark: | \S*\.((schedule|turns)(\[\S*)?|place|after_seconds|step_seconds|train_limit|more_mb|more_ms|"
    r"resumed) "
)
TEMPORARY = re.compile(r"(^|/)(\.tmp-|\.lock$|[^/]*\.tmp$)")  # in a store, whose other files are kept on purpose
STARTED: list[subprocess.Popen[bytes]] = []  # that may live
EXISTS = ("already exists", "exists already")  # what a command says whose result is complete


class Failure(Exception):
    """What is wrong with a case: `kind` is lost or left."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


Hit = TypeVar("Hit", bound=Any)  # a dataclass: one case of a campaign


@dataclass(frozen=True)
class Case:
    """How one case ended; `there`: a command that was killed after its result was complete, and said so."""

    verb: str
    number: int
    kills: int
    there: int
    failure: str = ""
    kind: str = ""
    command: str = ""


def start(
    command: str, folder: Path, more: Mapping[str, str] | None = None, before: Sequence[str] = (), said: str = ""
) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own, with a store and a temporary folder of its own beside `folder`, with
    `more` variables in its environment and the words `before` in front of it; `said` ends the names of the two files
    that it prints to."""
    home, temporary = beside(folder, "home"), beside(folder, "tmp")
    home.mkdir(exist_ok=True)
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "RIYAZ_HOME": str(home), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    environment |= more or {}
    with open(beside(folder, f"stdout{said}"), "wb") as out, open(beside(folder, f"stderr{said}"), "wb") as errors:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "riyaz.cli.main", *shlex.split(command)],
            cwd=folder, env=environment, stdout=out, stderr=errors, start_new_session=True,
        )  # fmt: skip
    STARTED[:] = [process, *(each for each in STARTED if each.returncode is None)]
    return process


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGINT and SIGTERM end the campaign, with all processes that it has started and theirs."""

    def stop(number: int, _: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):  # while it ends
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        yield
    finally:
        for process in STARTED:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def beside(folder: Path, name: str) -> Path:
    """The case's file or folder of this name, which is no result."""
    return folder.with_name(f"{folder.name}.{name}")


def expect_no_process(group: int, command: str) -> None:
    """Wait until no process of the command is left. Raises Failure."""
    deadline = time.monotonic() + LEAVING
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        if time.monotonic() > deadline:
            os.killpg(group, signal.SIGKILL)
            raise Failure("left", f"a process of {command!r} lives {LEAVING} s after it")
        time.sleep(0.05)


def attempt(
    command: str, folder: Path, seconds: float, group: bool = True, more: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> int | None:  # fmt: skip
    """Run the command and kill it after so many seconds, with its workers if `group`: its status, None where it was
    killed. Raises Failure where a process is left."""
    process = start(command, folder, more, before)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    except BaseException:  # the campaign is stopped
        os.killpg(process.pid, signal.SIGKILL)
        raise
    expect_no_process(process.pid, command)
    return status


def is_there(status: int | None, folder: Path, killed: bool) -> bool:
    """Whether the last command said that its result is there already, which only one that was killed may; False where
    it made it. Raises Failure where it did neither."""
    if status == 0:
        return False
    said = beside(folder, "stderr").read_text()
    if status is not None and killed and any(words in said for words in EXISTS):
        return True
    raise Failure("lost", f"ran longer than {LIMIT} s" if status is None else f"status {status}: {said[-600:]}")


def reference(verb: Verb, root: Path) -> tuple[Path, list[float]]:
    """The folder of a run that nobody killed, and the seconds of its commands; made once."""
    folder, known = root / f"{verb.name}-whole", root / f"{verb.name}-whole.json"
    if known.exists():
        return folder, json.loads(known.read_text())
    clear(folder)
    folder.mkdir()
    seconds = []
    for command in verb.commands:
        began = time.monotonic()
        is_there(attempt(command, folder, LIMIT), folder, killed=False)
        seconds.append(time.monotonic() - began)
    keep_printed(verb, folder)
    known.write_text(json.dumps(seconds))
    return folder, seconds


def keep_printed(verb: Verb, folder: Path) -> None:
    """Write the last line that the command printed into the folder, where it is a result."""
    if verb.printed:
        (folder / "printed.json").write_text(beside(folder, "stdout").read_text().splitlines()[-1])


def clear(folder: Path) -> None:
    """Remove the folder of a case and what lies beside it."""
    for path in (folder, *(beside(folder, name) for name in ("home", "tmp", "store"))):
        shutil.rmtree(path, ignore_errors=True)


def listed(folder: Path) -> set[str]:
    """The names of all files and folders below the folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def is_kept(path: Path, there: bool) -> bool:
    """Whether a file may be left: answers to go on with, `there`, and what Python's tempfile writes for an instant to
    see whether it may write in a folder."""
    is_probe = re.fullmatch("[a-z0-9_]{8}", path.name) and path.is_file() and path.stat().st_size <= len("blat")
    return bool(is_probe) or (there and path.name.endswith(".partial"))


def same_rows(whole: Path, folder: Path, name: str) -> bool:
    """Whether two collections hold the same rows: their order changes where a command that was done is given again."""
    dumps = []
    for path in (whole / name, folder / name):
        with contextlib.closing(sqlite3.connect(path)) as collection:
            dumps.append(sorted(collection.iterdump()))
    return dumps[0] == dumps[1]


def expect_same(whole: Path, folder: Path, there: bool = False) -> None:
    """Raises Failure where the case's results are not the reference's, or where more is left than the reference has.
    Where a command was killed after its result was complete (`there`), the answers to go on with may lie beside it:
    the same command with --force would use them, so the refused one leaves them."""
    for name in ("", "tmp"):
        mine, other = (beside(each, name) if name else each for each in (folder, whole))
        if extra := sorted(each for each in listed(mine) - listed(other) if not is_kept(mine / each, there)):
            raise Failure("left", f"left behind in {mine.name}: {', '.join(extra[:5])}")
        if missing := sorted(listed(other) - listed(mine)):
            raise Failure("lost", f"missing in {mine.name}: {', '.join(missing[:5])}")
    if extra := [name for name in sorted(listed(beside(folder, "home"))) if TEMPORARY.search(name)]:
        raise Failure("left", f"left behind in the store: {', '.join(extra[:5])}")
    alike = tuple(f"{name}: " for name in listed(whole) if name.endswith(".sqlite") and same_rows(whole, folder, name))
    lines = same.compare(whole, folder)[0]
    kept = tuple(f"{name}: " for name in listed(folder) - listed(whole))
    wrong = [line for line in lines if not MEASURED.search(line) and not line.startswith((*alike, *kept))]
    if wrong:
        raise Failure("lost", "; ".join(wrong[:5]))


def run_case(verb: Verb, number: int, seed: int, root: Path) -> Case:
    """One case: every command is killed at least once if it runs long enough, then ends. A failed case keeps its
    folder."""
    whole, seconds = reference(verb, root)
    draw = random.Random(f"{seed}/{verb.name}/{number}")
    folder = root / f"{verb.name}-{number}"
    clear(folder)
    folder.mkdir()
    kills = there = 0
    command = ""
    try:
        for command, took in zip(verb.commands, seconds):
            killed = 0
            while (status := attempt(command, folder, draw.uniform(0, took), draw.random() < 0.5)) is None:
                killed += 1
                if draw.random() > AGAIN:
                    status = attempt(command, folder, LIMIT)
                    break
            kills += killed
            there += is_there(status, folder, killed > 0)
        keep_printed(verb, folder)
        expect_same(whole, folder, there > 0)
    except Failure as failure:
        return Case(verb.name, number, kills, there, str(failure), failure.kind, command)
    clear(folder)
    return Case(verb.name, number, kills, there)


def chosen(only: str | None) -> list[Verb]:
    """The verbs of `--only`, by name or by the beginning of one; all if None. Exits where there is none."""
    verbs = [verb for verb in VERBS if only is None or verb.name.startswith(only)]
    if not verbs:
        raise SystemExit(f"--only {only}: no such verb; there are {', '.join(verb.name for verb in VERBS)}")
    return verbs


def prepare(root: Path, verbs: list[Verb]) -> None:
    """Make what the verbs read, once. Raises Failure."""
    if not (root / "ready").exists():
        if root.exists() and any(path.name not in ("inputs", "setup") for path in root.iterdir()):
            raise SystemExit(f"{root}: holds something else; name a new --folder")
        for name in ("inputs", "setup"):  # of a campaign that was stopped before it was ready
            shutil.rmtree(root / name, ignore_errors=True)
        write_inputs(root / "inputs")
        (root / "setup").mkdir()
        (root / "ready").touch()
    commands = [command for verb in verbs for command in verb.commands]
    for name, command in SETUP.items():
        if any(name in each for each in commands) and not (root / "setup" / name).exists():
            is_there(attempt(command, root / "setup", LIMIT), root / "setup", killed=False)


def resumed(
    root: Path, kind: type[Hit], planned: Iterable[tuple[Any, ...]], run: Callable[..., Hit], seconds: float
) -> Iterator[tuple[Hit, bool]]:
    """(each planned case, whether it was run now): those that `state.jsonl` holds are taken from it, the others are run
    and recorded there; none is begun after `seconds`. A case's first fields are what was planned, by name."""
    began, state = time.monotonic(), root / "state.jsonl"
    before = [kind(**json.loads(line)) for line in (state.read_text().splitlines() if state.exists() else ())]
    for plan in planned:
        named = tuple(getattr(part, "name", part) for part in plan)
        case = next((case for case in before if astuple(case)[: len(plan)] == named), None)
        if case is not None:
            yield case, False
            continue
        if time.monotonic() - began > seconds:
            return
        case = run(*plan)
        with open(state, "a") as file:
            file.write(json.dumps(asdict(case)) + "\n")
        yield case, True


def summary(cases: list[Case], seed: int, minutes: float) -> str:
    """The one line at the end."""
    count = {kind: sum(case.kind == kind for case in cases) for kind in ("lost", "left")}
    kills, there = sum(case.kills for case in cases), sum(case.there for case in cases)
    return (
        f"torture: {len({case.verb for case in cases})} verbs, {kills} kills, {count['lost']} lost, "
        f"{count['left']} left behind, {there} complete before the kill, seed {seed}, {minutes:.1f} min"
    )


def main() -> int:
    """The command line; 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=8, help="cases of each verb (default: 8)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after so many seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="the verbs whose names begin so")
    parser.add_argument("--folder", type=Path, help="default: build/torture-SEED; it is removed where all went well")
    options = parser.parse_args()
    verbs = chosen(options.only)
    root = (options.folder or TESTS.parent / f"build/torture-{options.seed}").resolve()
    prepare(root, verbs)
    began, done = time.monotonic(), []
    planned = [(verb, number) for number in range(options.kills) for verb in verbs]  # each once, then each once more
    run = partial(run_case, seed=options.seed, root=root)
    for case, fresh in resumed(root, Case, planned, run, options.seconds):
        if fresh:
            ended = case.kind or "same"
            print(f"{case.verb} {case.number + 1}/{options.kills}: {case.kills} kills, {ended}", flush=True)
        done.append(case)
    failed = [case for case in done if case.failure]
    for case in failed:
        where = root / f"{case.verb}-{case.number}"
        print(f"FAILED {case.verb}, seed {options.seed}, in {where}\n  riyaz {case.command}\n  {case.failure}")
    print(summary(done, options.seed, (time.monotonic() - began) / 60))
    recorded = len((root / "state.jsonl").read_text().splitlines()) if done else 0
    if not failed and len(done) == len(planned) == recorded:
        shutil.rmtree(root)  # it holds no case of another --only or --kills
    return 1 if failed else 0


if __name__ == "__main__":
    with stoppable():
        sys.exit(main())
