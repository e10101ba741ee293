"""Sends mutated requests to every route of a server: bodies, queries, headers, raw HTTP/1.1, clients that stop reading.

    python tests/house/fuzz_routes.py all --seconds 600              # so long together
    python tests/house/fuzz_routes.py /v1/chat/completions --inputs 50000 --seed 1

The server is a process of its own, with a tiny seeded model and the page. Whatever comes, a whole request is answered,
by nothing above 499 but 503 and 507; no traceback stands in the log, /health answers within 250 ms, and the server
lives. Request N of a seed is always the same bytes. Prints a line for each route; exit status 1 where one of these does
not hold. The same command with --inputs goes on where it stopped.
"""

import argparse
import http.client
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("house", "helpers", "sources")]
from fuzz_readers import STATES, mutated, mutated_json  # noqa: E402
from fuzz_seeds import QUERIES, ROUTES  # noqa: E402
from waiting import HANG  # noqa: E402

LATE = 0.25  # seconds within which /health answers
PATIENCE = HANG  # seconds within which a whole request is answered, and /health
BROKEN_PATIENCE = 0.05  # seconds that are waited for the answer to what may be half a request
DOCUMENTED = (503, 507)  # statuses above 499 that a client may see
SLICE = 250  # requests after which the state is written
NAMES = ("", ".", "..", "tiny", "tiny/..", "rows.jsonl", "../x", "\0", "a" * 3000, "é", "%2e%2e", "link", "-1", "1e9")
HEADERS = (
    "Content-Type: text/plain", "Content-Type: application/json; charset=utf-16", "Content-Encoding: gzip",
    "Expect: 100-continue", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Content-Length: 5",
    "Content-Length: -1", "Content-Length: 99999999999999999999", "Authorization: Bearer x", "Authorization: é",
    "Connection: close", "Connection: Upgrade", "Upgrade: websocket", "Host: a", "Host:", "Origin: null", "Cookie: a=b",
    "Last-Event-ID: x:1,y:-5", "Range: bytes=0-", "X: " + "y" * 9000, "X\x01: y", "Accept: text/event-stream",
    "If-None-Match: *", "X-Riyaz-Token: wrong", "Accept-Encoding: gzip;q=0",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """The bytes of a request; whether the server must answer them; how many bytes of the answer its client reads, None:
    all."""

    sent: bytes
    whole: bool
    read: int | None = None


@dataclass
class Server:
    """A server's port and token, its process, the file of its log, what each answer of /health took, in seconds, and
    what was wrong with those that were none."""

    port: int
    token: str
    process: subprocess.Popen
    log: Path
    waits: list[float] = field(default_factory=list)
    ill: list[str] = field(default_factory=list)


def request_of(route: str, rng: random.Random, token: str) -> Request:
    """A mutated request to a route: `METHOD path`."""
    method, path = route.split()
    kind = rng.randrange(20)
    path = path.replace("{name}", quote(rng.choice(NAMES)))
    if path in QUERIES:
        path += "?" + "&".join(f"{name}={_value(name, rng)}" for name in QUERIES[path] if rng.random() < 0.9)
    seeds = ROUTES[route]
    body = json.dumps(rng.choice(seeds)).encode() if seeds else b""
    if body and kind < 14:
        body = mutated_json(body, rng) if kind < 11 else mutated(body, rng)
    headers = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"X-Riyaz-Token: {token}"]
    if method == "POST":
        headers += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    whole, read = True, None
    if kind in (14, 15):
        headers[rng.randint(1, len(headers)) : 0] = rng.sample(HEADERS, rng.randint(1, 3))
        whole = False
    sent = "\r\n".join(headers).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body
    if kind in (16, 17):
        sent, whole = mutated(sent, rng), False
    elif kind == 18:
        sent, whole = sent[: rng.randrange(len(sent) + 1)], False
    elif kind == 19:
        read = rng.choice((0, 1, 20, 200, 1000))
    return Request(sent, whole, read)


def _value(name: str, rng: random.Random) -> str:
    known = QUERIES["values"].get(name, ())
    if known and rng.random() < 0.5:
        return quote(rng.choice(known))
    return quote(mutated(rng.choice((*known, *NAMES)).encode(), rng), safe="" if rng.random() < 0.9 else "/&=%")


def answer(server: Server, request: Request) -> str:
    """The status of the answer, "none" where none came and none had to, else what is wrong."""
    method = request.sent.split(b" ", 1)[0].decode("ascii", "replace")
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.settimeout(PATIENCE if request.whole else BROKEN_PATIENCE)
        try:
            client.sendall(request.sent)
            if request.read is not None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return "stopped" if not request.read or client.recv(request.read) else "closed"
            response = http.client.HTTPResponse(client, method=method if method == "HEAD" else "GET")
            response.begin()
            content = response.read()
        except TimeoutError:
            return f"WRONG no answer in {PATIENCE:g} s" if request.whole else "none"
        except (OSError, http.client.HTTPException) as error:
            return f"WRONG {type(error).__name__}: {error}"[:150] if request.whole else "none"
    if response.status >= 500 and response.status not in DOCUMENTED:
        return f"WRONG {response.status}: {content[:120]!a}"
    return str(response.status)


HEALTH = Request(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", whole=True)


def watch(server: Server, stop: threading.Event) -> None:
    """Asks /health forty times a second, and notes what each answer took, or what came in its place."""
    while not stop.wait(0.025):
        begun = time.perf_counter()
        try:
            outcome = answer(server, HEALTH)
        except OSError as error:  # nobody listens
            outcome = f"{type(error).__name__}: {error}"
        if outcome == "200":
            server.waits.append(time.perf_counter() - begun)
        else:
            server.ill.append(outcome)


@contextmanager
def started(folder: Path) -> Iterator[Server]:
    """A server on the files in `folder`, until the end of the block, and what watches it."""
    log, stop = folder / "log", threading.Event()
    with log.open("wb") as file:
        command = [sys.executable, __file__, "serve", "--folder", str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file)
    assert process.stdout and process.stdin
    line = process.stdout.readline().split()
    assert len(line) == 2, log.read_text()[-2000:]
    server = Server(int(line[0]), line[1].decode(), process, log)
    watching = threading.Thread(target=watch, args=(server, stop))
    watching.start()
    try:
        yield server
    finally:
        stop.set()
        watching.join()
        process.stdin.close()
        process.wait(HANG)


def write_place(place: Path) -> None:
    """The files that a server has: a model, an embedder, a LoRA, rows, a document and a collection of documents."""
    import numpy as np
    import tiny_bert
    import tiny_llama

    from riyaz import adapters
    from riyaz.families import describe
    from riyaz.retrieval.collection import add
    from riyaz.retrieval.documents import read_documents
    from riyaz.sources import open_source

    tiny_llama.write_hf_folder(place / "tiny", seed=1)
    shown = "{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}"
    (place / "tiny/chat_template.jinja").write_text(shown + tiny_llama.CHAT_TEMPLATE)
    tiny_bert.write_folder(place / "bert")
    family, linear = describe(open_source(place / "tiny")), "model.layers.0.self_attn.q_proj"
    rows, columns = tiny_llama.plan(tiny_llama.Tiny())[f"{linear}.weight"]
    pair = adapters.Pair(np.ones((2, columns), np.float32), np.ones((rows, 2), np.float32), 1.0)
    (place / "adapters/lora").mkdir(parents=True)
    adapters.peft.write(adapters.Adapter(pairs={linear: pair}), place / "adapters/lora", family, base="tiny")
    (place / "rows.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "c", "answer": "d"}\n' * 9)
    (place / "notes.md").write_text("# Hours\n\nThe shop opens at nine.\n")
    add(place / "kept.sqlite", read_documents(place / "notes.md")[0], None)
    (place / "link").symlink_to("/etc")


def serve(folder: Path) -> None:
    """The server's process: prints its port and the page's token, and ends with its standard input."""
    from live_server import running

    from riyaz.serve.opening import Opener
    from riyaz.serve.page.place import Page

    place = folder / "place"
    if not place.exists():
        write_place(place)
    page, opener = Page.of(place, "riyaz ui"), Opener("fp32", most=4)
    opener.serve(str(place / "tiny"))
    os.chdir(place)  # so that requests can name the embedder
    limits = {"max_upload_mb": 1.0, "request_timeout": 20.0}
    with running(opener, page=page, embedder="bert", adapters=place / "adapters", **limits) as found:
        print(found.url.rsplit(":", 1)[1], page.token, flush=True)
        sys.stdin.read()


def fuzz(server: Server, route: str, inputs: int, seed: int, first: int, seconds: float) -> Counter[str]:
    """How often each outcome came."""
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    for number in range(first, first + inputs):
        if time.monotonic() > end:
            break
        outcome = answer(server, request_of(route, random.Random(f"{seed} {route} {number}"), server.token))
        counts["input " + f"{number}: {outcome}" if outcome.startswith("WRONG") else outcome] += 1
        if server.process.poll() is not None:
            counts[f"input {number}: WRONG the server ended with {server.process.returncode}"] += 1
            break
    return counts


def tracebacks(server: Server) -> int:
    """Tracebacks, and lines of a sanitizer, in the server's log."""
    text = server.log.read_text("utf-8", "replace")
    return sum(
        map(text.count, ("Traceback (most recent call last)", " in a request, at ", "runtime error:", "Sanitizer"))
    )


def campaign(server: Server, route: str, inputs: int | None, seconds: float, seed: int) -> bool:
    """Fuzzes a route and prints its line; whether all that must hold held."""
    state = STATES / f"route-{route.replace('/', '_').replace(' ', '')}-{seed}.json"
    counts = Counter(json.loads(state.read_text()) if inputs and state.exists() else {})
    begun, faults, first_wait = time.monotonic(), tracebacks(server), len(server.waits)
    while (left := seconds - (time.monotonic() - begun)) > 0:
        done = counts.total()
        count = min(SLICE, inputs - done) if inputs else SLICE
        if count <= 0 or server.process.poll() is not None:
            break
        counts += fuzz(server, route, count, seed, done, left)
        if inputs:
            STATES.mkdir(parents=True, exist_ok=True)
            state.write_text(json.dumps(counts))
    faults = tracebacks(server) - faults + len(server.ill)
    waits = sorted(server.waits[first_wait:]) or [0.0]
    p99, late = waits[int(0.99 * (len(waits) - 1))], sum(wait > LATE for wait in waits)
    wrong = [outcome for outcome in counts if "WRONG" in outcome]
    for outcome in wrong[:20]:
        print(outcome)
    statuses = ", ".join(f"{name} {counts[name]}" for name in sorted(set(counts) - set(wrong)))
    print(
        f"{route}: {counts.total()} requests of seed {seed} in {time.monotonic() - begun:.0f} s, {len(wrong)} wrong, "
        f"{faults} tracebacks; {statuses}; /health p99 {1000 * p99:.0f} ms, {late} of {len(waits)} above 250 ms",
        flush=True,
    )
    return not wrong and not faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("route", help="a path, all, or serve: the server's own process")
    parser.add_argument("--inputs", type=int, help="of each route")
    parser.add_argument("--seconds", type=float, help="of all routes together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.route == "serve":
        return serve(options.folder)
    routes = [route for route in ROUTES if options.route in ("all", route.split()[1])]
    if not routes:
        sys.exit(f"error: no such route; choose all or one of {', '.join(sorted({r.split()[1] for r in ROUTES}))}")
    each = (options.seconds or (1e9 if options.inputs else 60.0)) / len(routes)
    with tempfile.TemporaryDirectory(prefix="fuzz-routes-") as folder, started(Path(folder)) as server:
        held = [campaign(server, route, options.inputs, each, options.seed) for route in routes]
        if not all(held):
            lines = server.log.read_text("utf-8", "replace").splitlines()
            print("\n".join([line for line in lines if line != "Invalid HTTP request received."][-60:]))
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
