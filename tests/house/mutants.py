"""Changes ten lines of every room of src/riyaz, one at a time, and counts those that a test notices (`make mutants`).

    python tests/house/mutants.py                                      # after `make coverage`, which says what to run
    python tests/house/mutants.py --rooms data,text --processes 1
    python tests/house/mutants.py --from build/before --out before.json         # a folder of coverage_of.py --into
    python tests/house/mutants.py --from build/after --like before.json         # the same changes in another checkout

A room is a folder of the package with its own files. The changes are drawn by hash, so that equal functions get equal
ones, among the lines that a test reaches in its own process. For each the quickest tests are run that reach the line,
in a fork of a process that has imported the large packages and not riyaz. A test that fails fails for the change: it
is run once without, too. Prints a line for each room and one for all; `--out` holds each change and what came of it.
"""

import argparse
import compileall
import ctypes
import hashlib
import importlib
import json
import multiprocessing
import os
import py_compile
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import coverage_of
import mutations
import pytest

HEAVY = """torch transformers.models.llama.modeling_llama peft safetensors.torch tokenizers numpy scipy.stats
pandas pyarrow.parquet matplotlib.pyplot hypothesis httpx starlette.testclient uvicorn jinja2
rich.console cyclopts openpyxl sacrebleu bm25s gguf jsonschema docx"""
CPU, WALL = (20, 5), (300, 20)  # seconds, and times what the tests take: only what never ends takes longer
MEMORY, FILE = 8 << 30, 4 << 30  # bytes of a process, and of what it writes
OUT_OF_TIME = (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL)


@dataclass(frozen=True)
class Mutant:
    """A change of a file of src/riyaz, and the tests that are run for it, with the seconds that they took."""

    file: str
    mutation: mutations.Mutation
    tests: tuple[str, ...]
    seconds: float


def room(file: str) -> str:
    """The folder of a file of src/riyaz."""
    return Path(file).parent.as_posix()


class Reach:
    """Which tests reach a line, and what they take."""

    def __init__(self, folder: Path) -> None:
        from coverage import CoverageData

        self.data = CoverageData(str(folder / "data/coverage"))
        self.data.read()
        self.source = folder / "tree/src/riyaz"
        self.contexts = cache(self._contexts)
        self.tests: dict[str, tuple[float, list[str]]] = {}
        self.fixtures: dict[str, dict[str, float]] = defaultdict(dict)
        for line in coverage_of.noted(folder / "data"):
            if "fixture" in line:
                known = self.fixtures[line["fixture"]]
                known[line["of"]] = max(line["seconds"], known.get(line["of"], 0))
            elif line["ended"] == "passed":
                self.tests[line["test"]] = line["seconds"], line["fixtures"]

    def _contexts(self, file: str) -> dict[int, list[str]]:
        """The tests that reach each line of a file."""
        return self.data.contexts_by_lineno(str(self.source / file))

    def shared(self, test: str) -> dict[tuple[str, str], float]:
        """The fixtures that a test shares with others, and their seconds."""
        found = {}
        for name in self.tests[test][1]:
            places = [place for place in self.fixtures.get(name, ()) if test.startswith(place)]
            if places:
                found[name, max(places, key=len)] = self.fixtures[name][max(places, key=len)]
        return found

    def quickest(self, tests: Iterable[str], seconds: float, most: int) -> tuple[tuple[str, ...], float]:
        """The quickest tests of these, at least one, and what they take together: a case of each function, then a
        second one of each …"""
        alone = {test: self.tests[test][0] + sum(self.shared(test).values()) for test in tests if test in self.tests}
        turn: Counter[str] = Counter()
        order = []
        for test in sorted(alone, key=lambda test: (alone[test], test)):
            function = test.partition("[")[0]
            turn[function] += 1
            order.append((turn[function], alone[test], test))
        chosen: list[str] = []
        made: dict[tuple[str, str], float] = {}
        total = 0.0
        for _, _, test in sorted(order):
            shared = self.shared(test)
            took = self.tests[test][0] + sum(shared[each] for each in shared.keys() - made.keys())
            if len(chosen) == most or (chosen and total + took > seconds):
                continue
            chosen.append(test)
            made |= shared
            total += took
        return tuple(chosen), total


def drawn(files: Sequence[tuple[str, list[mutations.Mutation]]], seed: int) -> list[tuple[str, mutations.Mutation]]:
    """The changes of a room in the order in which they are taken: of each kind one, then of each a second one …"""
    ranked = sorted(
        (hashlib.sha256(f"{seed} {file} {each.key}".encode()).hexdigest(), file, each)
        for file, found in files
        for each in found
    )
    turn: Counter[str] = Counter()
    order = []
    for rank, file, each in ranked:
        turn[each.kind] += 1
        order.append((turn[each.kind], rank, file, each))
    return [(file, each) for _, _, file, each in sorted(order)]


def chosen(reach: Reach, options: argparse.Namespace) -> list[Mutant]:
    """The mutants of all rooms, or those of `--like`."""
    rooms: dict[str, list[tuple[str, list[mutations.Mutation]]]] = defaultdict(list)
    for path in sorted(reach.source.rglob("*.py")):
        file = path.relative_to(reach.source).as_posix()
        rooms[room(file)].append((file, mutations.mutations(path.read_text(encoding="utf-8"))))
    like = {(each["file"], each["key"]) for each in json.loads(options.like.read_text())} if options.like else None
    found = []
    for name in sorted(rooms.keys() & set(options.rooms or rooms)):
        lines: set[tuple[str, int]] = set()
        for file, each in drawn(rooms[name], options.seed):
            if (
                (len(lines) == options.each or (file, each.line) in lines)
                if like is None
                else (file, each.key) not in like
            ):
                continue
            contexts = reach.contexts(file)
            tests, seconds = reach.quickest(
                {test for line in each.lines for test in contexts.get(line, ())}, options.seconds, options.most
            )
            if tests or like is not None:
                lines.add((file, each.line))
                found.append(Mutant(file, each, tests, seconds))
    return found


class Watch:
    """A plugin of pytest: only the named tests, and the first that fails is written down."""

    def __init__(self, tests: Sequence[str], told: Path) -> None:
        self.tests, self.told = set(tests), told

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self.tests]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.told.write_text(report.nodeid)


class Worker:
    """What one process has for itself: a copy of the source, a folder, what it knows of tests without a change."""

    def __init__(self, folder: Path, own: Path, heavy: Sequence[str]) -> None:
        self.tree = folder / "tree"
        self.own = own / str(os.getpid())
        self.source = self.own / "src"
        shutil.copytree(self.tree / "src", self.source, ignore=shutil.ignore_patterns("__pycache__"))
        # bytes of a change may be as many as before, in the same second: hashes decide whether they are compiled again
        compileall.compile_dir(self.source, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        self.passes: dict[tuple[str, ...], bool] = {}
        ctypes.CDLL(None).prctl(
            36, 1
        )  # PR_SET_CHILD_SUBREAPER: what a test leaves behind becomes a child of this process
        for name in heavy:
            try:
                importlib.import_module(name)
            except ImportError:
                print(f"without {name}: forks import it, if they need it", file=sys.stderr)
        assert not any(name.split(".")[0] == "riyaz" for name in sys.modules)

    def tried(self, mutant: Mutant) -> dict[str, Any]:
        """What came of a mutant, and by which test."""
        path = self.source / "riyaz" / mutant.file
        whole = path.read_text(encoding="utf-8")
        tests, spoiled = list(mutant.tests), []
        result, by = "survived", ""
        while tests:
            path.write_text(mutations.mutated(whole, mutant.mutation), encoding="utf-8")
            try:
                result, by = self.run(tests, mutant.seconds)
            finally:
                path.write_text(whole, encoding="utf-8")
            again = (by,) if by in tests else tuple(tests)
            if result == "survived" or self.passing(again, mutant.seconds):
                break
            spoiled += again  # it fails here in any case
            tests = [test for test in tests if test not in again]
            result, by = "survived", ""
        about = mutant.mutation
        return {"room": room(mutant.file), "file": mutant.file, "line": about.line, "what": about.what,
                "key": about.key, "result": result if tests else "not reached", "by": by, "tests": tests,
                "spoiled": spoiled}  # fmt: skip

    def passing(self, tests: tuple[str, ...], seconds: float) -> bool:
        """Whether tests pass here without a change."""
        if tests not in self.passes:
            self.passes[tests] = self.run(tests, seconds)[0] == "survived"
        return self.passes[tests]

    def run(self, tests: Sequence[str], seconds: float) -> tuple[str, str]:
        """(killed, survived or timed out, by which test) of a fork that runs these tests until one fails."""
        told = self.own / "told"
        told.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = self.inside(tests, seconds, told)
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        while left := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            for process in map(int, left):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            late = os.WTERMSIG(status) in OUT_OF_TIME
            return ("timed out", "") if late else ("killed", signal.Signals(os.WTERMSIG(status)).name)
        if status == 0:
            return "survived", ""
        return "killed", told.read_text() if told.exists() else f"pytest's status {os.waitstatus_to_exitcode(status)}"

    def inside(self, tests: Sequence[str], seconds: float, told: Path) -> int:
        """pytest's exit status, in the fork."""
        log = os.open(self.own / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, opened in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
            os.dup2(opened, number)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        cpu, wall = (round(least + times * seconds) for least, times in (CPU, WALL))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
        for limit, size in ((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_FSIZE, FILE)):
            resource.setrlimit(limit, (size, resource.getrlimit(limit)[1]))
        signal.alarm(wall)
        os.chdir(self.tree)
        os.environ["PYTHONPATH"] = str(self.source)
        sys.path.insert(0, str(self.source))
        sys.argv = ["pytest"]
        functions = dict.fromkeys(test.partition("[")[0] for test in tests)
        arguments = ["-x", "-n", "0", "-p", "no:cacheprovider", f"--basetemp={self.own / 'tmp'}", "--hypothesis-seed=0"]
        return int(pytest.main([*arguments, *functions], plugins=[Watch(tests, told)]))


worker: Worker  # of a process of the pool


def begin(folder: Path, own: Path, heavy: Sequence[str]) -> None:
    """Makes a process of the pool ready, with a folder of its own in `own`."""
    global worker
    worker = Worker(folder, own, heavy)


def tried(mutant: Mutant) -> dict[str, Any]:
    """What came of a mutant in this process of the pool."""
    return worker.tried(mutant)


def said(name: str, results: Sequence[dict[str, Any]]) -> str:
    """The line of a room, or of all."""
    counts = Counter(each["result"] for each in results)
    others = ", ".join(f"{counts[each]} {each}" for each in ("survived", "timed out", "not reached") if counts[each])
    return f"{name}: killed {counts['killed']} of {len(results)}{f' ({others})' if others else ''}"


def main(arguments: Sequence[str] | None = None, heavy: Sequence[str] = HEAVY.split()) -> None:
    """Chooses, tries and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--from",
        dest="folder",
        type=Path,
        default=coverage_of.ROOT / "build/coverage",
        help="what coverage_of.py wrote",
    )
    add("--rooms", type=lambda names: names.split(","), help="rooms, the root's is `.`; all unless given")
    add("--each", type=int, default=10, help="mutants of a room")
    add("--seed", type=int, default=1)
    add("--seconds", type=float, default=10, help="how long the tests of a mutant may take, but for the quickest")
    add("--most", type=int, default=40, help="tests of a mutant")
    add("--processes", type=int, default=2)
    add("--like", type=Path, help="take the mutants of this --out, also those that no test reaches")
    add("--out", type=Path, help="file for the results; mutants.json of the folder unless given")
    options = parser.parse_args(arguments)
    folder = options.folder.absolute()
    mutants = chosen(Reach(folder), options)
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    missing = Counter(room(mutant.file) for mutant in mutants)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported
    spawn = multiprocessing.get_context("spawn")  # a fork would have what is imported here
    with (
        tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as own,  # a socket's path is short
        ProcessPoolExecutor(options.processes, spawn, begin, (folder, Path(own), heavy)) as pool,
    ):
        for result in pool.map(tried, mutants):
            results[result["room"]].append(result)
            if len(results[result["room"]]) == missing[result["room"]]:
                print(said(result["room"], results[result["room"]]), flush=True)
    everything = [each for of_room in results.values() for each in of_room]
    out = options.out or folder / "mutants.json"
    out.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(said("mutants", everything))


if __name__ == "__main__":
    main()
