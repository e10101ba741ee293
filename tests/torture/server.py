"""Kill a server while it starts, loads an adapter, receives a file or makes a collection, then start it again.

    export PYTHONPATH=tests:tests/helpers:tests/torture
    python tests/torture/server.py --most 10 --seconds 900       # a part of `make torture`
    python tests/torture/server.py --only upload

`faults.c` is preloaded into the server and kills the process that makes the n-th change or read of a moment; or that
change fails, or the clock moves by a day, and the server has to answer and to live on. After a
kill the next start must answer as one that nobody killed. What was received is whole or absent, and nothing is left in
the folder or in the folder of temporary files, and no process. A stopped campaign goes on by the same command.
"""

import argparse
import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import campaign
import faults
import httpx
from campaign import Failure
from verbs import Verb

KEY = "a-key-of-many-characters"
SERVE = "serve ../inputs/model --adapters ../inputs --api-key-file ../inputs/keys.txt --port 0"
STARTED, ENDED = 60, 30  # seconds in which a server answers, and ends
ROWS = b'{"text": "where is my order", "label": "order"}\n' * 40_000  # 2 MB, which come in many parts
ERRORS = (errno.ENOSPC, errno.EIO)
CLOCKS = (f"clock:{-faults.DAY}", f"clock:{faults.DAY}")
JOURNAL = frozenset({"kept.sqlite-journal"})  # by it SQLite undoes what was half-written when the file is opened
REFUSED = (400, 409, 500, 503, 507)  # the status of an answer whose file could not be written or read


class Server:
    """A server in a process group of its own, and how it is asked. Raises Failure where it does not start."""

    def __init__(self, folder: Path, more: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.process = campaign.start(SERVE, folder, more)
        try:
            self.url = self._said("stdout", "http://").removesuffix("/v1")
            token = self._said("stderr", "#token=").rpartition("#token=")[2]
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise
        self.headers = {"authorization": f"Bearer {KEY}", "x-riyaz-token": token}

    def _said(self, name: str, words: str) -> str:
        """The first whole line with these words that it printed."""
        deadline, path = time.monotonic() + STARTED, campaign.beside(self.folder, name)
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            lines = path.read_text().splitlines(keepends=True)
            if line := next((line for line in lines if words in line and line.endswith("\n")), None):
                return line.strip()
            if ended:
                break
            time.sleep(0.05)
        said = campaign.beside(self.folder, "stderr").read_text()[-500:]
        raise Failure("lost", f"the server printed no {words}: status {self.process.poll()}: {said}")

    def post(self, path: str, **body: object) -> httpx.Response:
        """The answer to one question."""
        return httpx.post(self.url + path, headers=self.headers, timeout=60, **body)  # type: ignore[arg-type]

    def answer(self, model: str) -> str:
        """What a model says first."""
        asked = {"model": model, "prompt": "where is my order", "max_tokens": 4, "temperature": 0}
        answered = self.post("/v1/completions", json=asked)
        if answered.status_code != 200:
            raise Failure("lost", f"{model} answers {answered.status_code}: {answered.text[:300]}")
        return str(answered.json()["choices"][0]["text"])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait until it and its processes have ended: its status. Raises Failure."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            status = self.process.wait(ENDED)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise Failure("hung", f"the server lives {ENDED} s after {number.name}") from None
        campaign.expect_no_process(self.process.pid, SERVE)
        return status


def load(server: Server) -> httpx.Response:
    """Load the adapter."""
    return server.post("/v1/load_lora_adapter", json={"lora_name": "desk", "lora_path": "artifact"})


def upload(server: Server) -> httpx.Response:
    """Upload the rows; what is there is replaced."""
    parts = (ROWS[start : start + 100_000] for start in range(0, len(ROWS), 100_000))
    return server.post("/page/files?name=rows.jsonl&replace=true", content=parts)


def collect(server: Server) -> httpx.Response:
    """Add a document to a collection."""
    body = {"collection": "kept.sqlite", "documents": "desk.md", "lexical": True}
    return server.post("/page/collections", json=body)


@dataclass(frozen=True)
class Moment:
    """What a server is asked while it is hit, what counts as a change then (the letters of faults.c), and where."""

    name: str
    ask: Callable[[Server], httpx.Response] | None
    letters: str
    below: str  # the folder of the campaign, or a part of it; {case} is the case's folder


MOMENTS = (
    Moment("keys", None, "r", "inputs/keys.txt"),
    Moment("start", None, "r", "inputs/model"),
    Moment("adapter", load, "r", "inputs/artifact"),
    Moment("upload", upload, "wsmo", "{case}/uploads"),
    Moment("collection", collect, "wsmod", "{case}/kept.sqlite"),
)


@dataclass(frozen=True)
class Case:
    """How one hit ended: `what` (kill, an errno, or one of CLOCKS) at the n-th change of a moment."""

    moment: str
    what: str
    n: int
    path: str = ""
    failure: str = ""
    kind: str = ""


def make_folder(folder: Path) -> None:
    """A fresh folder of a case, which is the page's."""
    campaign.clear(folder)
    folder.mkdir()
    (folder / "desk.md").write_text("# Desk\n\nIt opens at nine.\n")


def whole(root: Path) -> dict[str, str]:
    """What a server says that nobody killed, before and after it loaded the adapter; made once, in the folder
    `server-whole`."""
    known, folder = root / "server-whole.json", root / "server-whole"
    if not known.exists():
        make_folder(folder)
        known.write_text(json.dumps(everything(folder)))
    return json.loads(known.read_text())  # type: ignore[no-any-return]


def everything(folder: Path, server: Server | None = None) -> dict[str, str]:
    """Ask a server, which is started here if not given, for all it can do, then end it: what its models say."""
    lives, server = server is not None, server or Server(folder)
    try:
        said = {"model": server.answer("model")}
        for ask in (load, upload, collect):
            asked = ask(server)
            if ask is load and asked.status_code == 409 and lives:  # it was loaded before, beside a moved clock
                continue
            if asked.status_code not in (200, 201):
                raise Failure("lost", f"{ask.__name__}: {asked.status_code} {asked.text[:300]}")
        said["desk"] = server.answer("desk")
    finally:
        status = server.end()
    if status != 0:
        raise Failure("lost", f"the server ended with {status} after SIGTERM")
    return said


def hit(moment: Moment, what: str, n: int, root: Path, folder: Path) -> tuple[str, Server | None]:
    """Start a server and hit it at the n-th change of the moment; 0 only counts. (the letter and path of that change or
    the count, the server where it lives). Raises Failure where an error does not come back as an answer."""
    state = campaign.beside(folder, "fault")
    state.write_bytes(bytes(faults.STATE))
    below = root / moment.below.format(case=folder.name)
    variables = faults.variables(root, state, n, what, moment.letters, below)
    server, answered = None, None
    try:
        server = Server(folder, variables)
        if moment.ask is not None:
            answered = moment.ask(server)
    except (Failure, httpx.TransportError):
        if what != "kill" and moment.ask is not None:
            raise Failure("lost", f"the server did not answer {moment.name} that failed") from None
    path = faults.hit_paths(state)[0]
    if answered is not None and path and what != "kill" and answered.status_code not in (200, 201):
        expect_clear(answered)
    if server is not None and server.process.poll() is not None:
        server = None
    return (str(sum(faults.counted(state).values())) if n == 0 else path), server


def expect_clear(answered: httpx.Response) -> None:
    """Raises Failure where an answer that failed does not say why in one line."""
    said = answered.json()["error"]["message"] if "json" in answered.headers.get("content-type", "") else ""
    if answered.status_code not in REFUSED or not said or "\n" in said or "Traceback" in said:
        raise Failure("unclear", f"{answered.status_code}: {answered.text[:300]}")
    if answered.status_code == 500:
        raise Failure("unclear", f"a file that failed is an error of ours: {said}")


def expect_one_line(folder: Path) -> None:
    """Raises Failure where a server that could not start did not say why in one line."""
    said = campaign.beside(folder, "stderr").read_text()
    if "Traceback" in said or sum(line.startswith("error: ") for line in said.splitlines()) != 1:
        raise Failure("unclear", said[-500:])


def run_case(moment: Moment, what: str, n: int, root: Path) -> Case:
    """One hit, then a start that nothing hits, then the comparison. A failed case keeps its folder."""
    expected = whole(root)
    folder = root / f"server-{moment.name}-{what}-{n}"
    make_folder(folder)
    path, server = "", None
    try:
        path, server = hit(moment, what, n, root, folder)
        while not path and n > 1:  # parts of an upload can arrive joined: this time there were fewer than n changes
            if server is not None:
                server.end()
            n = min(n - 1, max(1, sum(faults.counted(campaign.beside(folder, "fault")).values())))
            make_folder(folder)
            path, server = hit(moment, what, n, root, folder)
        if not path:
            raise Failure("through", f"no change number {n}")
        if server is None and what != "kill":
            expect_one_line(folder)
        if server is not None and what != "kill":
            said = everything(folder, server)
        else:
            if server is not None:  # what was killed is a command that it had started
                server.end(signal.SIGKILL)
            expect_whole_or_absent(folder)
            server = Server(folder)
            expect_nothing_left(folder, root / "server-whole", JOURNAL)
            said = everything(folder, server)
        if said != expected:
            raise Failure("lost", f"{said} is not {expected}")
        expect_nothing_left(folder, root / "server-whole")
        campaign.expect_same(root / "server-whole", folder)
    except Failure as failure:
        if server is not None and server.process.poll() is None:
            server.end(signal.SIGKILL)
        return Case(moment.name, what, n, path, str(failure), failure.kind)
    campaign.clear(folder)
    return Case(moment.name, what, n, path)


def expect_whole_or_absent(folder: Path) -> None:
    """Raises Failure where a part of the rows stands under their name."""
    rows = folder / "uploads/rows.jsonl"
    if rows.exists() and rows.read_bytes() != ROWS:
        raise Failure("half", f"{rows} has {rows.stat().st_size:,} bytes, not {len(ROWS):,}")


def expect_nothing_left(folder: Path, other: Path, unless: frozenset[str] = frozenset()) -> None:
    """Raises Failure where a started server leaves what a killed one wrote: names that neither `other` nor `unless`
    has."""
    for name in ("", "tmp"):
        mine, theirs = (campaign.beside(each, name) if name else each for each in (folder, other))
        extra = sorted(campaign.listed(mine) - campaign.listed(theirs) - unless)
        if extra:
            raise Failure("left", f"left behind in {mine.name}: {', '.join(extra[:5])}")


def planned(moments: list[Moment], most: int, seed: int, root: Path) -> Iterator[tuple[Moment, str, int]]:
    """Every (moment, what, n), at most `most` n of each, spread by the seed."""
    for moment in moments:
        count = changes(moment, root)
        for what in ("kill", *CLOCKS, *map(str, ERRORS)):
            draw = random.Random(f"{seed}/{moment.name}/{what}")
            if what in ("kill", *CLOCKS) or (moment.letters == "r") == (what == str(errno.EIO)):
                yield from ((moment, what, n) for n in sorted(draw.sample(range(1, count + 1), min(most, count))))


def changes(moment: Moment, root: Path) -> int:
    """How many changes or reads the moment has where nothing hits it; counted once."""
    known = root / "server-counts.json"
    counts = json.loads(known.read_text()) if known.exists() else {}
    if moment.name not in counts:
        folder = root / "server-count"
        make_folder(folder)
        counted, server = hit(moment, "kill", 0, root, folder)
        assert server is not None
        server.end()
        campaign.clear(folder)
        counts[moment.name] = int(counted)
        known.write_text(json.dumps(counts))
    return int(counts[moment.name])


def prepare(root: Path) -> None:
    """Make what the servers read, once."""
    campaign.prepare(root, [Verb("server", ("serve ../inputs/artifact",))])
    (root / "inputs/keys.txt").write_text(f"{KEY}\n")


def summary(cases: list[Case], seed: int, minutes: float) -> str:
    """The one line at the end."""
    kills = sum(case.what == "kill" for case in cases)
    clocks = sum(case.what in CLOCKS for case in cases)
    through = sum(bool(case.failure) for case in cases)
    return (
        f"server: {len({case.moment for case in cases})} moments, {kills} kills, {clocks} clocks moved, "
        f"{len(cases) - kills - clocks} errors, got through {through}, seed {seed}, {minutes:.1f} min"
    )


def main() -> int:
    """The command line; 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10, help="n of each moment and kind (default: 10)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after so many seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help=f"some of {', '.join(moment.name for moment in MOMENTS)}")
    parser.add_argument("--folder", type=Path, help="default: build/server-SEED")
    options = parser.parse_args()
    root = (options.folder or campaign.TESTS.parent / f"build/server-{options.seed}").resolve()
    prepare(root)
    began, done = time.monotonic(), []
    moments = [moment for moment in MOMENTS if moment.name.startswith(options.only)]
    plans = planned(moments, options.most, options.seed, root)
    for case, fresh in campaign.resumed(root, Case, plans, partial(run_case, root=root), options.seconds):
        if fresh and case.failure:
            print(f"FAILED {case.moment} {case.what} {case.n} at {case.path}\n  {case.failure}", flush=True)
        done.append(case)
    print(summary(done, options.seed, (time.monotonic() - began) / 60))
    return 1 if any(case.failure for case in done) else 0


if __name__ == "__main__":
    with campaign.stoppable():
        sys.exit(main())
