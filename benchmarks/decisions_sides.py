"""What benchmarks/decisions.py measures with: rows, servers, and clients that ask them over HTTP."""

import argparse
import asyncio
import json
import os
import pydoc_data.topics
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np

from riyaz.data.task import INSTRUCTION

PROBE = Path(__file__).with_name("probe_server.py")
RIYAZ = [sys.executable, "-m", "riyaz.cli.main"]
PACKAGES = ("transformers", "torch", "scikit-learn", "starlette", "uvicorn", "typed-decisions", "llama-cpp-python")
WHICH = INSTRUCTION["closed"]
BUDGET = "3h"  # more than a fit needs on any machine
TYPES = ("float32", "bfloat16")  # of typed-decisions
TYPED = "import sys; from typed_decisions.cli import main; main(sys.argv[1:])"
SETS = {"banking77": 77, "clinc150": 150, "snips": 7}  # labels, where rows are made up
WORDS = " ".join(pydoc_data.topics.topics.values()).split()
Answers = list[dict[str, Any]]


def say(line: str) -> None:
    """Tell whoever waits."""
    print(line, file=sys.stderr, flush=True)


def run(*command: Any) -> str:
    """What a command prints; ends this one with its errors."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr or done.stdout}")
    return done.stdout


def made_up(folder: Path, labels: int, seed: int) -> None:
    """A set of so many labels, each with four words of its own among four others of each text."""
    generator, folder = np.random.default_rng(seed), Path(folder)
    words = list(dict.fromkeys(word.lower() for word in WORDS if word.isalpha() and len(word) > 3))
    names = ["_".join(words[4 * label : 4 * label + 3]) for label in range(labels)]
    folder.mkdir(parents=True)
    for name, rows in (("train", 20 * labels), ("test", 10 * labels)):
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for row in range(rows):
                own = words[4 * (row % labels) : 4 * (row % labels) + 4]
                text = [*generator.choice(own, 4), *generator.choice(words, 4), str(row)]
                file.write(json.dumps({"text": " ".join(text), "label": names[row % labels]}) + "\n")


class Data:
    """The sets, each a folder with train.jsonl and test.jsonl, and `linear` artifacts of them, made when first asked
    for: fitted to the first `train` rows. A set that is missing is made up, with at most `most` labels."""

    def __init__(self, given: Path, work: Path, train: int, most: int, model: str) -> None:
        self.model, self.work, self.train = model, work, train
        self.folders: dict[str, Path] = {}
        self.made_up: list[str] = []
        for seed, (name, labels) in enumerate(SETS.items()):
            self.folders[name] = given / name
            if not (given / name / "test.jsonl").exists():
                self.folders[name] = work / "rows" / name
                self.made_up.append(name)
                made_up(self.folders[name], min(labels, most), seed)

    def rows(self, name: str, part: str = "test") -> list[dict[str, str]]:
        """The rows of a part."""
        return [json.loads(line) for line in (self.folders[name] / f"{part}.jsonl").read_text("utf-8").splitlines()]

    def labels(self, name: str) -> list[str]:
        """All labels, sorted."""
        return sorted({row["label"] for row in self.rows(name, "train")})

    def train_file(self, name: str) -> Path:
        """The first training rows, and the first of each label that they lack, with text and label only."""
        path = self.work / f"{name}.jsonl"
        rows = self.rows(name, "train")
        first = rows[: self.train]
        rest = {row["label"]: row for row in reversed(rows[self.train :])}
        first += [row for label, row in rest.items() if label not in {row["label"] for row in first}]
        path.write_text("".join(json.dumps({key: row[key] for key in ("text", "label")}) + "\n" for row in first))
        return path

    def linear(self, name: str) -> Path:
        """The artifact of `riyaz adapt linear`."""
        out = self.work / "linear" / name
        if not out.exists():
            tested = ("--test", self.folders[name] / "test.jsonl", "--limit-test", 20)
            options = (*tested, "--model", self.model, "--budget", BUDGET, "--out", out)
            run(*RIYAZ, "adapt", "linear", self.train_file(name), *options)
        return out


def answered(peer: subprocess.Popen, line: Any) -> str:
    """The line with which a process answers one."""
    assert peer.stdin is not None and peer.stdout is not None
    peer.stdin.write(json.dumps(line) + "\n")
    peer.stdin.flush()
    if not (told := str(peer.stdout.readline())):
        raise SystemExit("a peer's process ended")
    return told


@contextmanager
def process(command: Sequence[str]) -> Iterator[subprocess.Popen]:
    """A process that ends with the block, with OpenBLAS' own choice of kernels: one that is set may be a slow one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_CORE")}
    made = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**environment, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    try:
        yield made
    finally:
        made.terminate()
        made.wait()


@contextmanager
def server(command: Sequence[Any], ready: str) -> Iterator[str]:
    """The address of a server, once it answers under `ready`; ours prints its address, a peer's is in `ready`."""
    with process([*map(str, command)]) as made:
        assert made.stdout is not None
        url = ready if "://" in ready else made.stdout.readline().strip().removesuffix("/v1") + ready
        for _ in range(1200):
            try:
                urlopen(url).close()
                break
            except (OSError, ValueError):
                if made.poll() is not None:
                    raise SystemExit(f"the server ended: {' '.join(map(str, command))}") from None
                time.sleep(0.1)
        place = urlsplit(url)
        yield f"{place.scheme}://{place.netloc}"


def serving(model: str, served: Mapping[str, Path], *options: str) -> Any:
    """`riyaz serve` of a model and artifacts by name."""
    named = [word for name, folder in served.items() for word in ("--adapter", f"{name}={folder}")]
    return server([*RIYAZ, "serve", model, "--port", "0", "--no-page", *named, *options], "/ready")


def own_name(url: str, others: Container[str]) -> str:
    """The name of the model that a server has beside the others."""
    with urlopen(f"{url}/v1/models") as told:
        return next(each["id"] for each in json.load(told)["data"] if each["id"] not in others)


class Client:
    """One client of a server, with one connection as long as the server keeps it; it parses little, as the server needs
    the processor."""

    def __init__(self, url: str) -> None:
        self.place = urlsplit(url)
        self.pair: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, body: Any) -> bytes:
        """The body of the answer to a POST."""
        self.pair = self.pair or await asyncio.open_connection(self.place.hostname, self.place.port)
        (reader, writer), data = self.pair, json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self.place.netloc}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        first = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next(int(line.split(":")[1]) for line in first.split("\r\n") if line.startswith("content-length:"))
        answer = await reader.readexactly(length)
        if " 200 " not in first.split("\r\n")[0]:
            raise SystemExit(f"{self.place.geturl()}{path}: {answer.decode()[:300]}")
        if first.startswith("http/1.0") or "connection: close" in first:
            self.close()
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self.pair is not None:
            self.pair[1].close()
        self.pair = None


@dataclass(frozen=True)
class Side:
    """A server that is asked one question about a text."""

    url: str
    path: str
    body: Callable[[str], Any]

    async def load(self, texts: Iterator[str], seconds: float, clients: int) -> float:
        """Decisions a second of so many clients, each of which asks until the time is over."""
        began, done = time.perf_counter(), 0

        async def one() -> None:
            nonlocal done
            client = Client(self.url)
            while time.perf_counter() - began < seconds or not done:
                await client.ask(self.path, self.body(next(texts)))
                done += 1
            client.close()

        await asyncio.gather(*(one() for _ in range(clients)))
        return done / (time.perf_counter() - began)


def answers_of(url: str, bodies: Sequence[Any], clients: int, beside: Sequence[Any] = ()) -> Answers:
    """The answers to requests in their order, asked by so many clients while others want the completions `beside`."""
    answers: list[Answers] = [[] for _ in bodies]
    left = iter(enumerate(bodies))

    async def one() -> None:
        client = Client(url)
        for place, body in left:
            answers[place] = json.loads(await client.ask("/v1/decisions", body))["answers"]
        client.close()

    async def whole() -> None:
        talking = [asyncio.ensure_future(Client(url).ask("/v1/completions", body)) for body in beside]
        await asyncio.gather(*(one() for _ in range(clients)), *talking)

    asyncio.run(whole())
    return [answer for each in answers for answer in each]


def asked_of(url: str, model: str, labels: Sequence[str]) -> Side:
    """Our server, asked for one of the labels."""
    questions = [{"type": "choice", "instructions": WHICH, "choices": [{"value": label} for label in labels]}]
    return Side(url, "/v1/decisions", lambda text: {"model": model, "input": text, "questions": questions})


def probe(args: argparse.Namespace, rows: Path) -> dict[str, "Way"]:
    """The ways to serve a regression on sentence vectors that is fitted to these rows."""
    ways = {}
    for place, (threads, where) in enumerate(((os.cpu_count(), "loop"), (1, "loop"), (1, "pool"))):
        url = f"http://127.0.0.1:{args.peer_port + place}"
        command = [args.peer_python, PROBE, args.embedder, rows, args.peer_port + place, threads, where]
        ways[f"{threads} threads, {where}"] = Way(command, f"{url}/", Side(url, "/", lambda text: {"text": text}))
    return ways


def typed(args: argparse.Namespace, model: Path, labels: Sequence[str]) -> dict[str, "Way"]:
    """The ways to serve a model's folder by typed-decisions, without training."""
    asked, ways = {"type": "choice", "instructions": WHICH, "criteria": list(labels)}, {}
    for place, dtype in enumerate(TYPES):
        port = args.peer_port + 3 + place
        command = [args.peer_python, "-c", TYPED, "serve", "--backend", "transformers", "--model", model, "--port",
                   port, "--device", "cpu", "--dtype", dtype]  # fmt: skip
        side = Side(
            f"http://127.0.0.1:{port}", "/v1/ask", lambda text: {"state": text, "questions": {"which": asked}}
        )  # fmt: skip
        ways[dtype] = Way(command, f"{side.url}/healthz", side)
    return ways


@dataclass(frozen=True)
class Way:
    """A command that serves a side, which answers under the address `ready` when it is ready."""

    command: Sequence[Any]
    ready: str
    side: Side


def fastest(stack: ExitStack, ways: Mapping[str, Way], texts: Iterator[str], seconds: float, clients: int) -> Any:
    """(name, side) of the way with most decisions a second, which goes on; the others end."""
    speeds = {}
    for name, way in ways.items():
        own = stack.enter_context(ExitStack())
        own.enter_context(server(way.command, way.ready))
        for _ in range(2):  # the first warms it up
            speed = asyncio.run(way.side.load(texts, seconds, clients))
        speeds[name] = speed, own
        say(f"{way.side.url}: {name}, {speed:.2f} decisions a second")
    best = max(speeds, key=lambda name: speeds[name][0])
    for name, (_, own) in speeds.items():
        if name != best:
            own.close()
    return best, ways[best].side


def versions_of(python: str) -> dict[str, str | None]:
    """The peers' versions in a Python; None for one that it lacks."""
    script = (
        "import importlib.util, importlib.metadata as m, json, sys\n"
        "found = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "print(json.dumps({name: found.get(name) for name in sys.argv[1:]}))"
    )
    told: dict[str, str | None] = json.loads(run(python, "-c", script, *PACKAGES))
    return told
