"""Speed of `riyaz serve` on loopback, beside its own engine without a server and llama-cpp-python's server.

    riyaz pull smollm2-135m
    python benchmarks/serving.py --peer --peer-python ../peers/bin/python        # minutes on two cores
    python benchmarks/serving.py --only connections      # 1,000 clients at once
    python benchmarks/serving.py --only requests         # 10,000 short requests, and the server's memory

Clients ask /v1/completions for 64 tokens after different prompts, each client one request after the other, as streams.
All sides are measured in turns, --rounds times; a ratio is the median of the rounds' ratios, every other figure the
median of the rounds. clients16_ratio: tokens a second with 16 clients ÷ the peer's. batch_share: the same ÷ the same
prompts, 16 in each call of the engine, in a process of its own. ttft_p95_ms and itl_p95_ms: 95th percentiles of the
time to the first token and between two tokens, by number of clients; itl_long_ms: the 99th of the latter while a prompt
of 2,000 tokens is read. adapters8_over_1: tokens a second of 16 clients on eight LoRAs ÷ on one. cancel_ms: from the
close of a connection until the engine runs nothing. rss_growth_mb: memory gained over --requests short requests after a
tenth of them; connections: the answers of --connections clients at once by status, and the most that waited. The last
line is one JSON document; null is what was not measured.
"""

import argparse
import asyncio
import json
import os
import pydoc_data.topics
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from riyaz import adapters
from riyaz.adapters.base_shapes import shapes_of
from riyaz.families import describe
from riyaz.sources import open_source

CLIENTS, NEW, ADAPTERS, RANK = (1, 4, 16, 64), 64, 8, 8
BATCH = 16
ENDLESS = {"ignore_eos": True}  # a peer has no such field; its end tokens are banned by logit_bias
WORDS = " ".join(pydoc_data.topics.topics.values()).split()
SERVE = "import sys; from riyaz.cli.main import main; sys.exit(main(sys.argv[1:]))"
ENGINE = """
import json, sys, time
from riyaz.engine import Request
from riyaz.predictor import open_base
base, new = open_base(sys.argv[1]), int(sys.argv[2])
for line in sys.stdin:
    batches = [[base.tokenizer.encode(text) for text in texts] for texts in json.loads(line)]
    begun, tokens = time.perf_counter(), 0
    for batch in batches:
        tokens += sum(map(len, base.lm.generate([Request(i, tuple(ids), limit=new) for i, ids in enumerate(batch)])))
    print(tokens / (time.perf_counter() - begun), flush=True)
"""


def prompt(number: int, words: int = 80) -> str:
    """A text that no other request has."""
    start = number * 37 % (len(WORDS) - words)
    return f"{number}. " + " ".join(WORDS[start : start + words])


@contextmanager
def process(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
    """A process that ends with the block."""
    made = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **options)
    try:
        yield made
    finally:
        made.terminate()
        made.wait()


@contextmanager
def server(command: Sequence[str], url: str = "") -> Iterator[tuple[str, int]]:
    """The address and the process id of a server; ours prints its address, a peer's is known."""
    with process(command) as made:
        assert made.stdout is not None
        url = url or made.stdout.readline().strip()
        for _ in range(600):
            try:
                httpx.get(f"{url}/models")
                break
            except (httpx.TransportError, httpx.UnsupportedProtocol):
                if made.poll() is not None:
                    raise SystemExit(f"the server ended: {' '.join(command)}") from None
                time.sleep(0.1)
        yield url, made.pid


async def ask(url: str, body: Mapping[str, Any], times: list[list[float]], statuses: Counter[int]) -> None:
    """One streamed request; the times of its start and of each event with text. Events are not parsed, so that the
    client takes little of the processor that the server needs."""
    place, told = urlsplit(url), [time.perf_counter()]
    data = json.dumps({**body, "stream": True}).encode()
    head = f"POST {place.path}/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
    statuses[int((await reader.readline()).split()[1])] += 1
    while line := await reader.readline():
        if line.startswith(b'data: {"error'):
            raise SystemExit(line.decode())
        if line.startswith(b"data: {") and b'"text":""' not in line and b'"text": ""' not in line:
            told.append(time.perf_counter())
    writer.close()
    times.append(told)


async def load(
    url: str, clients: int, each: int, names: Sequence[str], first: int, endless: Mapping[str, Any] = ENDLESS,
    new: int = NEW, words: int = 80,
) -> tuple[dict[str, float], Counter[int]]:  # fmt: skip
    """Tokens a second and percentiles of so many clients, each with so many requests, and the statuses; the fields
    `endless` forbid an early end, so that every answer has as many tokens."""
    times: list[list[float]] = []
    statuses: Counter[int] = Counter()

    async def one(number: int) -> None:
        for turn in range(each):
            text = prompt(first + number * each + turn, words)
            body = {"model": names[number % len(names)], "prompt": text, "max_tokens": new, "temperature": 0}
            await ask(url, {**body, **endless}, times, statuses)

    begun = time.perf_counter()
    await asyncio.gather(*map(one, range(clients)))
    seconds = time.perf_counter() - begun
    between = [after - before for told in times for before, after in pairwise(told[1:])]
    found = {
        "tokens_s": sum(len(told) - 1 for told in times) / seconds,
        "ttft": 1000 * float(np.percentile([told[1] - told[0] for told in times if len(told) > 1], 95)),
        "itl": 1000 * float(np.percentile(between or [0.0], 95)),
    }
    return found, statuses


def beside_long(url: str, name: str, words: int, first: int) -> float:
    """The 99th percentile between two tokens of an answer while a long prompt is read, in milliseconds."""
    times: list[list[float]] = []
    body = {"model": name, "prompt": prompt(first), "max_tokens": 3 * NEW, "temperature": 0, **ENDLESS}
    long = {"model": name, "prompt": prompt(first + 1, words), "max_tokens": 1, "temperature": 0}

    async def both() -> None:
        async def late() -> None:
            await asyncio.sleep(0.3)
            await ask(url, long, [], Counter())

        await asyncio.gather(ask(url, body, times, Counter()), late())

    asyncio.run(both())
    return 1000 * float(np.percentile([after - before for before, after in pairwise(times[0][1:])], 99))


def cancelled(url: str, name: str) -> float:
    """Milliseconds from the close of a connection in mid-answer until nothing runs."""
    with httpx.Client(base_url=url, timeout=60) as client:
        body = {"model": name, "prompt": prompt(3), "max_tokens": 500, "stream": True, **ENDLESS}
        with client.stream("POST", "completions", json=body) as response:
            next(response.iter_lines())
        closed = time.perf_counter()
        while gauge(client, url, "requests_running"):
            pass
        return 1000 * (time.perf_counter() - closed)


def gauge(client: httpx.Client, url: str, name: str) -> float:
    """A number of /metrics."""
    lines = client.get(url.removesuffix("/v1") + "/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"riyaz:{name} ")))


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_adapters(model: str, folder: Path) -> list[str]:
    """LoRAs of random numbers on every linear of the layers; options of `riyaz serve`."""
    family, options = describe(open_source(model)), []
    shapes = {path: shape for path, shape in shapes_of(family).linears.items() if "layers." in path}
    for number in range(ADAPTERS):
        generator = np.random.default_rng(number)
        pairs = {
            path: adapters.Pair(generator.normal(0, 0.01, (RANK, shape[1])).astype(np.float32),
                                generator.normal(0, 0.01, (shape[0], RANK)).astype(np.float32), 1.0)
            for path, shape in shapes.items()
        }  # fmt: skip
        (folder / f"a{number}").mkdir()
        adapters.peft.write(adapters.Adapter(pairs=pairs), folder / f"a{number}", family, base=model)
        options += ["--adapter", f"a{number}={folder / f'a{number}'}"]
    return options


@dataclass
class Sides:
    """What takes turns: our server, the engine without one, and the peer's server where it is asked for."""

    url: str
    pid: int
    name: str
    engine: subprocess.Popen
    peer: str = ""
    banned: dict[str, int] = field(default_factory=dict)
    first: int = 0  # number of the next prompt

    def new(self, count: int) -> int:
        """The number of the first of so many prompts that no request had: a server keeps what it has read."""
        self.first += count
        return self.first - count

    def asked(self, clients: int, each: int, names: Sequence[str]) -> dict[str, float]:
        """What so many clients of our server measure."""
        return asyncio.run(load(self.url, clients, each, names, self.new(clients * each)))[0]

    def inside(self, each: int) -> float:
        """Tokens a second of the engine without a server, 16 prompts in each call."""
        first = self.new(BATCH * each)
        texts = [prompt(first + number) for number in range(BATCH * each)]
        assert self.engine.stdin is not None and self.engine.stdout is not None
        self.engine.stdin.write(json.dumps([texts[turn::each] for turn in range(each)]) + "\n")
        self.engine.stdin.flush()
        return float(self.engine.stdout.readline())

    def of_peer(self) -> float | None:
        """Tokens a second of the peer's server with 16 clients; None without a peer."""
        if not self.peer:
            return None
        first = self.new(BATCH)
        return asyncio.run(load(self.peer, BATCH, 1, ["peer"], first, {"logit_bias": self.banned}))[0]["tokens_s"]


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[Sides]:
    """All sides, each ready to answer."""
    with ExitStack() as stack:
        options = write_adapters(arguments.model, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        command = [sys.executable, "-c", SERVE, "serve", arguments.model, "--port", "0", *options]
        url, pid = stack.enter_context(server(command))
        name = httpx.get(f"{url}/models").json()["data"][0]["id"]
        inside = [sys.executable, "-c", ENGINE, arguments.model, str(NEW)]
        sides = Sides(url, pid, name, stack.enter_context(process(inside, stdin=subprocess.PIPE)))
        if arguments.peer:
            source = open_source(arguments.model)
            sides.banned = dict.fromkeys(map(str, source.tokenizer().eos_ids), -100)
            peer = [arguments.peer_python, "-m", "llama_cpp.server", "--model", str(source.files[0].path), "--n_ctx",
                    "8192", "--port", str(arguments.peer_port), "--model_alias", "peer",
                    "--interrupt_requests", "False"]  # fmt: skip  # else a second client ends the first one's stream
            sides.peer, _ = stack.enter_context(server(peer, f"http://127.0.0.1:{arguments.peer_port}/v1"))
        yield sides


def one_round(sides: Sides, arguments: argparse.Namespace, turn: int) -> dict[str, Any]:
    """Every figure once; sides that are divided by each other stand next to each other, in another order each time."""
    each, found = arguments.each, {}

    def serve16() -> None:
        found["16"] = sides.asked(BATCH, each, [sides.name])

    def inside() -> None:
        found["inside"] = sides.inside(each)

    def one() -> None:
        found["one"] = sides.asked(BATCH, each, ["a0"])["tokens_s"]

    def eight() -> None:
        found["eight"] = sides.asked(BATCH, each, [f"a{number}" for number in range(ADAPTERS)])["tokens_s"]

    for pair in ((serve16, inside), (one, eight)):
        for measure in pair if turn % 2 else pair[::-1]:
            measure()
    found["peer"] = sides.of_peer()
    for clients in CLIENTS:
        if clients != BATCH:
            found[str(clients)] = sides.asked(clients, 1 if clients > BATCH else each, [sides.name])
    found["long"] = beside_long(sides.url, sides.name, arguments.long, sides.new(2))
    found["cancel"] = cancelled(sides.url, sides.name)
    return found


def in_turns(sides: Sides, arguments: argparse.Namespace) -> dict[str, Any]:
    """The medians of all rounds."""
    for warm in (lambda: sides.asked(2, 1, [sides.name, "a0"]), lambda: sides.inside(1)):
        warm()
    rounds = []
    for turn in range(arguments.rounds):
        told = one_round(sides, arguments, turn)
        rounds.append(told)
        say(f"round {turn + 1}: 16 clients {told['16']['tokens_s']:.1f}, engine {told['inside']:.1f}, "
            f"adapter {told['one']:.1f}, eight {told['eight']:.1f}, peer {told['peer'] or 0:.1f} tokens/s")  # fmt: skip

    def median(value: Any) -> float:
        return statistics.median(map(value, rounds))

    by_clients = {
        f"{name}_p95_ms": {str(n): median(lambda told: told[str(n)][name]) for n in CLIENTS}  # noqa: B023
        for name in ("ttft", "itl")
    }
    return {
        "clients16_ratio": median(lambda told: told["16"]["tokens_s"] / told["peer"]) if arguments.peer else None,
        "batch_share": median(lambda told: told["16"]["tokens_s"] / told["inside"]), **by_clients,
        "itl_long_ms": median(lambda told: told["long"]),
        "adapters8_over_1": median(lambda told: told["eight"] / told["one"]),
        "cancel_ms": median(lambda told: told["cancel"]),
        **{f"tokens_s_{n}": median(lambda told: told[str(n)]["tokens_s"]) for n in CLIENTS},  # noqa: B023
    }  # fmt: skip


def many_requests(sides: Sides, count: int) -> float:
    """Memory gained over so many short requests of 16 clients, once a tenth of them has warmed everything up."""
    names, growth, before = [sides.name, "a0"], 0.0, 0.0
    for part in range(11):
        each = max(1, count // 10 // BATCH)
        asyncio.run(load(sides.url, BATCH, each, names, sides.new(BATCH * each), new=2, words=12))
        before = before or rss_mb(sides.pid)
        growth = rss_mb(sides.pid) - before
        say(f"{BATCH * each * (part + 1):,} requests: {rss_mb(sides.pid):.1f} MB")
    return growth


def many_connections(sides: Sides, count: int) -> dict[str, Any]:
    """The answers of so many clients that ask at once, by status, and the most requests that waited."""
    waiting: list[float] = []

    async def watched() -> Counter[int]:
        async def watch() -> None:
            with httpx.Client(timeout=60) as client:
                while True:
                    waiting.append(await asyncio.to_thread(gauge, client, sides.url, "requests_waiting"))
                    await asyncio.sleep(0.1)

        watching = asyncio.ensure_future(watch())
        _, statuses = await load(sides.url, count, 1, [sides.name], 0, new=16, words=12)
        watching.cancel()
        return statuses

    statuses = asyncio.run(watched())
    return {**{str(status): n for status, n in sorted(statuses.items())}, "waited": max(waiting, default=0.0)}


def say(line: str) -> None:
    """Tell whoever waits."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--only", choices=("turns", "requests", "connections"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=2, help="requests of each client in a round")
    parser.add_argument("--long", type=int, default=1300, help="words of the long prompt, about 2,000 tokens")
    parser.add_argument("--requests", type=int, default=10_000, help="requests over which memory is watched")
    parser.add_argument("--connections", type=int, default=1000, help="clients that ask at once")
    parser.add_argument("--peer", action="store_true", help="measure llama-cpp-python's server too")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has it")
    parser.add_argument("--peer-port", type=int, default=8765)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with opened(arguments) as sides:
        if arguments.only in (None, "turns"):
            found |= in_turns(sides, arguments)
        if arguments.only in (None, "connections"):
            found["connections"] = many_connections(sides, arguments.connections)
        if arguments.only in (None, "requests"):
            found["rss_growth_mb"] = many_requests(sides, arguments.requests)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
