"""Speed of `riyaz serve` on loopback, beside llama-cpp-python's own server with the same GGUF file.

    riyaz pull smollm2-135m
    python benchmarks/serving.py --peer --peer-python ../peers/bin/python        # minutes on two cores

Clients ask /v1/completions for 64 tokens after different prompts, each client one request after the other, as streams.
clients16_ratio: all tokens a second with 16 clients ÷ the peer's. batch_share: the same ÷ 16 prompts in one call of the
engine in a process of its own. ttft_p95_ms and itl_p95_ms: 95th percentiles of the time to the first token and between
two tokens, by number of clients; itl_long_ms: the 99th of the latter while a prompt of 2,000 tokens is read.
adapters8_over_1: tokens a second of 16 clients on eight LoRAs ÷ on one. rss_growth_mb: memory gained over --requests
further requests. cancel_ms: from the close of a connection until the engine runs nothing. The last line is one JSON
document; null is what was not measured.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from riyaz import adapters
from riyaz.adapters.base_shapes import shapes_of
from riyaz.families import describe
from riyaz.sources import open_source

CLIENTS, NEW, ADAPTERS, RANK = (1, 4, 16, 64), 64, 8, 8
ENDLESS = {"ignore_eos": True}  # a peer has no such field; its end tokens are banned by logit_bias
WORDS = " ".join(pydoc_data.topics.topics.values()).split()
ENGINE = """
import json, sys, time
from riyaz.engine import Request
from riyaz.predictor import open_base
model, count, new = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
base = open_base(model)
prompts = [base.tokenizer.encode(text) for text in json.load(sys.stdin)]
requests = [Request(i, tuple(ids), limit=new) for i, ids in enumerate(prompts)]
base.lm.generate(requests[:1])
begun = time.perf_counter()
tokens = sum(map(len, base.lm.generate(requests)))
print(tokens / (time.perf_counter() - begun))
"""


def prompt(number: int, words: int = 80) -> str:
    """A text that no other request has."""
    start = number * 37 % (len(WORDS) - words)
    return f"{number}. " + " ".join(WORDS[start : start + words])


@contextmanager
def server(command: Sequence[str], url: str = "") -> Iterator[tuple[str, int]]:
    """The address and the process id of a server; ours prints its address, a peer's is known."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        url = url or process.stdout.readline().strip()
        for _ in range(600):
            try:
                httpx.get(f"{url}/models")
                break
            except httpx.TransportError:
                if process.poll() is not None:
                    raise SystemExit(f"the server ended: {' '.join(command)}") from None
                time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


async def ask(client: httpx.AsyncClient, body: dict[str, Any], times: list[list[float]]) -> None:
    """One streamed request; the times of its start and of each chunk with text."""
    told = [time.perf_counter()]
    async with client.stream("POST", "completions", json={**body, "stream": True}) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {") and (choices := json.loads(line[6:]).get("choices")) and choices[0]["text"]:
                told.append(time.perf_counter())
    times.append(told)


async def load(
    url: str, clients: int, each: int, names: Sequence[str], first: int, endless: Mapping[str, Any] = ENDLESS
) -> dict[str, float]:
    """Tokens a second and percentiles of so many clients, each with so many requests; the fields `endless` forbid an
    early end, so that every answer has as many tokens."""
    times: list[list[float]] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=600) as client:

        async def one(number: int) -> None:
            for turn in range(each):
                text = prompt(first + number * each + turn)
                body = {"model": names[number % len(names)], "prompt": text, "max_tokens": NEW, "temperature": 0}
                await ask(client, {**body, **endless}, times)

        begun = time.perf_counter()
        await asyncio.gather(*map(one, range(clients)))
        seconds = time.perf_counter() - begun
    between = [after - before for told in times for before, after in pairwise(told[1:])]
    return {
        "tokens_s": sum(len(told) - 1 for told in times) / seconds,
        "ttft": 1000 * float(np.percentile([told[1] - told[0] for told in times if len(told) > 1], 95)),
        "itl": 1000 * float(np.percentile(between, 95)),
    }


async def beside_long(url: str, name: str, words: int) -> float:
    """The 99th percentile between two tokens of an answer while a long prompt is read, in milliseconds."""
    times: list[list[float]] = []
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        body = {"model": name, "prompt": prompt(1), "max_tokens": 3 * NEW, "temperature": 0, **ENDLESS}
        long = {"model": name, "prompt": prompt(2, words), "max_tokens": 1, "temperature": 0}

        async def late() -> None:
            await asyncio.sleep(0.3)
            await ask(client, long, [])

        await asyncio.gather(ask(client, body, times), late())
    return 1000 * float(np.percentile([after - before for before, after in pairwise(times[0][1:])], 99))


def cancelled(url: str, name: str) -> float:
    """Milliseconds from the close of a connection in mid-answer until nothing runs."""
    with httpx.Client(base_url=url, timeout=60) as client:
        body = {"model": name, "prompt": prompt(3), "max_tokens": 500, "stream": True, **ENDLESS}
        with client.stream("POST", "completions", json=body) as response:
            next(response.iter_lines())
        closed = time.perf_counter()
        while "riyaz:requests_running 0" not in client.get(url.removesuffix("/v1") + "/metrics").text:
            pass
        return 1000 * (time.perf_counter() - closed)


def rss_mb(pid: int) -> float:
    """Memory of a process."""
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


def ours(arguments: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything that is measured of riyaz's server."""
    found: dict[str, Any] = {"ttft_p95_ms": {}, "itl_p95_ms": {}}
    code = "import sys; from riyaz.cli.main import main; sys.exit(main(sys.argv[1:]))"
    with tempfile.TemporaryDirectory() as folder:
        options = write_adapters(arguments.model, Path(folder))
        with server([sys.executable, "-c", code, "serve", arguments.model, "--port", "0", *options]) as (url, pid):
            name = httpx.get(f"{url}/models").json()["data"][0]["id"]
            asyncio.run(load(url, 2, 1, [name], 0))  # warm
            for clients in CLIENTS:
                told = asyncio.run(load(url, clients, arguments.each, [name], 1000 * clients))
                found["ttft_p95_ms"][str(clients)], found["itl_p95_ms"][str(clients)] = told["ttft"], told["itl"]
                say(f"{clients} clients: {told['tokens_s']:.1f} tokens/s")
                found[f"tokens_s_{clients}"] = told["tokens_s"]
            one = asyncio.run(load(url, 16, arguments.each, ["a0"], 100_000))["tokens_s"]
            eight = asyncio.run(load(url, 16, arguments.each, [f"a{n}" for n in range(ADAPTERS)], 200_000))["tokens_s"]
            found["adapters8_over_1"] = eight / one
            found["itl_long_ms"] = asyncio.run(beside_long(url, name, arguments.long))
            found["cancel_ms"] = statistics.median(cancelled(url, name) for _ in range(5))
            before = rss_mb(pid)
            asyncio.run(load(url, 16, max(1, arguments.requests // 16), [name], 300_000))
            found["rss_growth_mb"] = rss_mb(pid) - before
    texts = json.dumps([prompt(16_000 + number) for number in range(16)])
    command = [sys.executable, "-c", ENGINE, arguments.model, "16", str(NEW)]
    inside = float(subprocess.run(command, input=texts, capture_output=True, text=True, check=True).stdout)
    say(f"16 prompts in one call of the engine: {inside:.1f} tokens/s")
    found["batch_share"] = found["tokens_s_16"] / inside
    return found


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--each", type=int, default=4, help="requests of each client")
    parser.add_argument("--long", type=int, default=1300, help="words of the long prompt, about 2,000 tokens")
    parser.add_argument("--requests", type=int, default=1000, help="requests over which memory is watched")
    parser.add_argument("--peer", action="store_true", help="measure llama-cpp-python's server too")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has it")
    parser.add_argument("--peer-port", type=int, default=8765)
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found, ratio = ours(arguments, say), None
    if arguments.peer:
        source = open_source(arguments.model)
        path, banned = source.files[0].path, dict.fromkeys(map(str, source.tokenizer().eos_ids), -100)
        command = [arguments.peer_python, "-m", "llama_cpp.server", "--model", str(path), "--n_ctx", "8192",
                   "--port", str(arguments.peer_port), "--model_alias", "peer",
                   "--interrupt_requests", "False"]  # fmt: skip  # else a second client ends the first one's stream
        with server(command, f"http://127.0.0.1:{arguments.peer_port}/v1") as (url, _):
            asyncio.run(load(url, 1, 1, ["peer"], 0, {"logit_bias": banned}))
            told = asyncio.run(load(url, 16, arguments.each, ["peer"], 16_000, {"logit_bias": banned}))
        peer = told["tokens_s"]
        say(f"llama-cpp-python with 16 clients: {peer:.1f} tokens/s")
        ratio = found["tokens_s_16"] / peer
    print(json.dumps({"clients16_ratio": ratio, **found}))


if __name__ == "__main__":
    main()
