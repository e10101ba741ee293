"""What other clients wait, and what memory a server takes, while one client attacks it.

    riyaz pull smollm2-135m
    python benchmarks/attacks.py [--model smollm2-135m] [--seconds 10] [--only heads,bodies]

A server with keys runs in a process of its own, the attackers in another one. For each kind of attack the page's
/health and a completion of one token with a valid key are asked in turns, first in quiet and then beside the attack.
The table has the 50th and 99th percentile and the longest in milliseconds, and the server's resident memory, of its
child processes too, in MB above what it held before. A stranger has no key; the others have one, or the page's token,
and may make others wait for what is computed for them. `late` is p99 beside the attack less p99 in quiet.
"""

import argparse
import contextlib
import json
import math
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import httpx
import numpy as np

from riyaz import adapters
from riyaz.adapters.base_shapes import shapes_of
from riyaz.families import describe
from riyaz.sources import open_source

KEY = "the-key-of-the-attacks-0123"
SERVE = "import sys; from riyaz.cli.main import main; sys.exit(main(sys.argv[1:]))"
RANKS = {"taken": 256, "refused": 4096}
SIZE = 2 * 2**20 - 60  # bytes: nearly as many as a body may have
JSON = {"content-type": "application/json"}
ONE = {"prompt": "The card", "max_tokens": 1, "temperature": 0}


@dataclass(frozen=True)
class Place:
    """Where the server listens, what it is called there, and the page's token."""

    port: int
    model: str
    token: str

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.port}"

    def connected(self, patience: float = 5.0) -> socket.socket:
        """A connection of its own."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=patience)


def busy(_: Place) -> None:
    """No attack: a process that only computes, since attackers on the server's own machine take its processor too."""
    sum(range(1_000_000))


def chunks(place: Place) -> None:
    """A body without end in chunks of one byte, without a key."""
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{place.port}\r\nContent-Type: application/json\r\n"
    with contextlib.suppress(OSError), place.connected() as client:
        client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        while True:
            client.sendall(b"1\r\nx\r\n" * 10_000)


def heads(place: Place) -> None:
    """Heads of requests that come a header at a time and never end, without a key."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as open_ones:
        clients = [open_ones.enter_context(place.connected()) for _ in range(50)]
        for client in clients:
            client.sendall(b"GET /health HTTP/1.1\r\n")
        for number in range(20):
            time.sleep(0.5)
            for client in clients:
                client.sendall(f"x-{number}: {'y' * 500}\r\n".encode())


def strange(place: Place) -> None:
    """Bodies of 2 MB and of 300 MB without a key."""
    body = b'{"model":"x","prompt":"' + b"x" * SIZE + b'"}'
    with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=place.url, timeout=20) as client:
        client.post("/v1/completions", content=body, headers=JSON)
        client.post("/page/files?name=x", content=iter([body] * 150))


def unread(place: Place) -> None:
    """Streams of eight answers that nobody reads, with a key."""
    body = json.dumps({"model": place.model, "prompt": "Once", "n": 8, "stream": True, "max_tokens": 256}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{place.port}\r\nX-Api-Key: {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with contextlib.suppress(OSError), place.connected() as client:
        client.sendall(head.encode() + body)
        time.sleep(8)


def adapter(place: Place, name: str) -> None:
    """An adapter is loaded and removed, with a key."""
    headers = {"x-api-key": KEY}
    with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=place.url, headers=headers, timeout=60) as client:
        client.post("/v1/adapters", json={"name": name})
        client.delete(f"/v1/adapters/{name}")


def taken(place: Place) -> None:
    """A large adapter that is taken is loaded again and again."""
    adapter(place, "taken")


def refused(place: Place) -> None:
    """An adapter of rank 4,096 is refused again and again."""
    adapter(place, "refused")


def scores(place: Place) -> None:
    """64 prompts of 300 tokens are scored, with 20 likeliest tokens each, with a key."""
    asked = {"model": place.model, "prompt": [[each + 100] * 300 for each in range(64)], "echo": True, "logprobs": 20}
    with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=place.url, timeout=120) as client:
        client.post("/v1/completions", json={**asked, "max_tokens": 1}, headers={"x-api-key": KEY})


HOSTILE = (
    "[" + ("[" * 900 + "]" * 900 + ",") * (SIZE // 1801) + "1]", "[" + "1," * (SIZE // 2) + "1]",
    "[" + ("9" * 4300 + ",") * (SIZE // 4301) + "1]", '["\\ud800",' + "1e9," * (SIZE // 4) + "1]",
    '"' + "\\ud800" * (SIZE // 6) + '"', "{" + ",".join(f'"{number:x}":1' for number in range(SIZE // 10)) + "}",
)  # fmt: skip


def bodies(place: Place) -> None:
    """Bodies of 2 MB that cost the most to read, with a key."""
    with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=place.url, timeout=60) as client:
        for each in HOSTILE:
            content = f'{{"model":"{place.model}","prompt":{each}}}'.encode()
            client.post("/v1/completions", content=content, headers={**JSON, "x-api-key": KEY})


def upload(place: Place) -> None:
    """An upload of 300 MB, of which 256 are taken, with the page's token."""
    piece, headers = b"x" * 2**20, {"x-riyaz-token": place.token}
    with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=place.url, timeout=60) as client:
        client.post("/page/files?name=large", content=iter([piece] * 300), headers=headers)


def sent(place: Place, *parts: bytes, answers: int = 1) -> None:
    """Each part on a connection that is new or still open; after it so many answers are waited for, or the end."""
    with contextlib.suppress(OSError), place.connected(20) as client:
        for part in parts:
            client.sendall(part)
            seen = b""
            while seen.count(b"HTTP/1.1 ") < answers and (piece := client.recv(65536)):
                seen += piece
            if not seen:
                break


def head(place: Place, line: str, *more: str) -> bytes:
    """The head of a request without a key."""
    return "\r\n".join([f"{line} HTTP/1.1", f"Host: 127.0.0.1:{place.port}", *more, "\r\n"]).encode()


def short(place: Place) -> None:
    """A head and 4 KB of its body in chunks of one byte, without a key."""
    json_chunks = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    sent(place, head(place, "POST /v1/completions", *json_chunks) + b"1\r\nx\r\n" * 650)


def lines(place: Place) -> None:
    """A head of 3,500 short headers, without a key."""
    sent(place, head(place, "GET /health", *(["a:"] * 3500)))


def fields(place: Place) -> None:
    """A request for a report with 15 KB of a query, without a token."""
    sent(place, head(place, f"GET /page/report?{'a=b&' * 3700}"))


def opened(place: Place) -> None:
    """A connection is made and closed."""
    with contextlib.suppress(OSError), place.connected():
        pass


def burst(place: Place) -> None:
    """500 connections at once, each with a request, without a key."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as open_ones:
        clients = [open_ones.enter_context(place.connected()) for _ in range(500)]
        for client in clients:
            client.sendall(head(place, "GET /health"))
        for client in clients:
            client.recv(4096)


def kept(place: Place) -> None:
    """Requests on a connection that stays open, without a key."""
    sent(place, *[head(place, "GET /health")] * 100)


def piped(place: Place) -> None:
    """40 requests in one piece, without a key."""
    sent(place, *[head(place, "GET /health") * 40] * 5, answers=40)


def idle(place: Place) -> None:
    """Connections without end, each with 15 KB of a head that does not end, without a key."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    begun = head(place, "GET /health", "a: " + "y" * 15_000)[:-2]
    clients = []
    with contextlib.suppress(OSError):
        while len(clients) < min(20_000, hard - 100):
            clients.append(place.connected())
            clients[-1].sendall(begun)
    time.sleep(5)
    for client in clients:
        client.close()


def strings(place: Place) -> None:
    """A text of 900 KB, of which all tokens are asked for as strings, with a key."""
    with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=place.url, timeout=60) as client:
        asked = {"model": place.model, "prompt": "a b c " * 150_000, "return_token_strs": True}
        client.post("/tokenize", json=asked, headers={"x-api-key": KEY})


def stops(place: Place) -> None:
    """An answer of 400 tokens with 16 stop strings of 256 characters, with a key."""
    with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=place.url, timeout=60) as client:
        asked = {"model": place.model, "prompt": "Once", "max_tokens": 400, "ignore_eos": True}
        asked["stop"] = [chr(97 + each) * 256 for each in range(16)]
        client.post("/v1/completions", json=asked, headers={"x-api-key": KEY})


@dataclass(frozen=True)
class Attack:
    """What is done, by whom, and by how many at once."""

    act: Callable[[Place], None]
    who: str
    at_once: int


ATTACKS = {
    "busy": Attack(busy, "nobody", 1),
    "chunks": Attack(chunks, "stranger", 4), "heads": Attack(heads, "stranger", 4),
    "strange": Attack(strange, "stranger", 4), "unread": Attack(unread, "key", 16),
    "taken": Attack(taken, "key", 1), "refused": Attack(refused, "key", 1), "scores": Attack(scores, "key", 1),
    "bodies": Attack(bodies, "key", 8), "upload": Attack(upload, "token", 1),
    "short": Attack(short, "stranger", 64), "lines": Attack(lines, "stranger", 64),
    "fields": Attack(fields, "stranger", 64), "opened": Attack(opened, "stranger", 64),
    "burst": Attack(burst, "stranger", 1), "kept": Attack(kept, "stranger", 64),
    "piped": Attack(piped, "stranger", 64), "idle": Attack(idle, "stranger", 1),
    "strings": Attack(strings, "key", 1), "stops": Attack(stops, "key", 1),
}  # fmt: skip


def attackers(name: str, place: Place) -> None:
    """Attack until this process is ended."""
    attack = ATTACKS[name]

    def again() -> None:
        while True:
            attack.act(place)
            time.sleep(0.001)

    for _ in range(attack.at_once):
        threading.Thread(target=again, daemon=True).start()
    time.sleep(3600)


@dataclass
class Seen:
    """Milliseconds of each request that was answered, what became of the others, and the most memory in MB."""

    health: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    most_mb: float = 0.0


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def watched(place: Place, pid: int, seconds: float) -> Seen:
    """What an honest client sees for some seconds: /health in one thread, completions in another."""
    seen, until = Seen(), time.monotonic() + seconds

    def ask(waits: list[float], call: Callable[[httpx.Client], httpx.Response]) -> None:
        with httpx.Client(base_url=place.url, headers={"x-api-key": KEY}, timeout=120) as client:
            while time.monotonic() < until:
                began = time.perf_counter()
                try:
                    status = str(call(client).status_code)
                except httpx.HTTPError as error:
                    status = type(error).__name__
                if status == "200":
                    waits.append(1000 * (time.perf_counter() - began))
                else:
                    seen.failed[status] += 1
                time.sleep(0.01)

    body = {**ONE, "model": place.model}
    asking = [
        threading.Thread(target=ask, args=(seen.health, lambda client: client.get("/health"))),
        threading.Thread(target=ask, args=(seen.answers, lambda client: client.post("/v1/completions", json=body))),
    ]
    for each in asking:
        each.start()
    while any(each.is_alive() for each in asking):
        seen.most_mb = max(seen.most_mb, memory(pid))
        time.sleep(0.05)
    return seen


def memory(pid: int) -> float:
    """Resident memory of a process and its children in MB (Linux)."""
    total = 0.0
    with contextlib.suppress(OSError):
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        total += int(found[1]) / 1024 if found else 0.0
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(memory(int(child)) for child in (task / "children").read_text().split())
    return total


def write_adapters(model: str, folder: Path) -> None:
    """LoRAs on two linears of every layer: of a rank that clients may load, and of one that they may not."""
    family = describe(open_source(model))
    linears = {name: shape for name, shape in shapes_of(family).linears.items() if name.endswith(("q_proj", "up_proj"))}
    for name, rank in RANKS.items():
        (folder / name).mkdir(parents=True)
        pairs = {
            path: adapters.Pair(np.zeros((rank, shape[1]), np.float32), np.zeros((shape[0], rank), np.float32), 1.0)
            for path, shape in linears.items()
        }
        adapters.peft.write(adapters.Adapter(pairs=pairs), folder / name, family, base=model)


@contextlib.contextmanager
def server(model: str, folder: Path) -> Iterator[tuple[Place, int]]:
    """A server with a key, a page and a folder of adapters, and its process."""
    (folder / "keys").write_text(f"{KEY}\n")
    options = ["serve", model, "--port", "0", "--api-key-file", "keys", "--adapters", "adapters"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, *options], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            told = ""
            while not (found := re.search(r":(\d+)/v1", told)):
                line = process.stdout.readline()
                assert line, "the server has ended"
                told += line
            token = re.search(r"#token=(\S+)", told)
            place = Place(int(found[1]), "", token[1] if token else "")
            names = httpx.get(f"{place.url}/v1/models", headers={"x-api-key": KEY}).json()["data"]
            yield Place(place.port, names[0]["id"], place.token), process.pid
        finally:
            process.kill()


def measured(name: str, place: Place, pid: int, seconds: float) -> dict[str, object]:
    """One line of the table."""
    quiet, idle = watched(place, pid, seconds / 2), memory(pid)
    process = get_context("spawn").Process(target=attackers, args=(name, place), daemon=True)
    process.start()
    time.sleep(2)
    attacked = watched(place, pid, seconds)
    process.kill()
    process.join()
    time.sleep(2)
    line: dict[str, object] = {"kind": name, "who": ATTACKS[name].who}
    for what, before, beside in (
        ("health", quiet.health, attacked.health), ("completion", quiet.answers, attacked.answers)
    ):  # fmt: skip
        for when, values in (("quiet", before), ("attacked", beside)):
            line[f"{what} {when}"] = [round(percentile(values, share), 1) for share in (0.5, 0.99, 1.0)]
        line[f"{what} late"] = round(percentile(beside, 0.99) - percentile(before, 0.99), 1)
    more = max(0.0, attacked.most_mb - idle)
    return {
        **line,
        "failed": dict(attacked.failed),
        "requests": len(attacked.health) + len(attacked.answers),
        "MB": round(more),
    }


def main() -> None:
    """Print the table, and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", default=",".join(ATTACKS))
    args = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        write_adapters(args.model, Path(folder) / "adapters")
        with server(args.model, Path(folder)) as (place, pid):
            watched(place, pid, 2)
            print("| kind | who | /health quiet | attacked | late | completion quiet | attacked | late | MB |")
            print("|---|---|---|---|---|---|---|---|---|")
            for name in args.only.split(","):
                line = measured(name, place, pid, args.seconds)
                lines.append(line)
                columns = [
                    " · ".join(f"{each:.0f}" for each in value) if isinstance(value, list) else str(value)
                    for key, value in line.items() if key not in ("failed", "requests")
                ]  # fmt: skip
                print(f"| {' | '.join(columns)} |", flush=True)
    print(json.dumps(lines))


if __name__ == "__main__":
    main()
