"""Load a server for long, and ask the same again alone: memory, waits, descriptors, and every answer's text.

    python tests/torture/soak.py smollm2-135m --requests 100000 --clients 64 --again 10000
    python tests/torture/soak.py MODEL --serve "--kv int8 --lookup on"

The clients ask seeded requests of all kinds: sampled and greedy, several answers, stop texts, biases, a schema, eight
LoRAs, streams, streams that the client leaves, decisions, vectors; meanwhile an adapter is loaded and removed every
second. Then a part of them is asked again one after the other, and each answer must be the same to the last digit of
its log-probabilities. At last the server gets SIGTERM under load: every request ends or says why. Prints one line;
exit status 1 where a limit of it does not hold.
"""

import argparse
import asyncio
import contextlib
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from riyaz.adapters import Adapter, Pair, peft
from riyaz.adapters.base_shapes import shapes_of
from riyaz.families import describe
from riyaz.sources import open_source

KEY = "a-key-of-many-characters"
ADAPTERS, RANK = 8, 8
STARTED = 120.0  # seconds in which the server listens
GROWN = 20.0  # MB by which its memory may grow after a tenth of the requests
SLOWER = 1.2  # times the 99th of the first tenth's waits that the last tenth's may be
LEFT = 4  # descriptors that may be open more than before
WORDS = [
    "where", "is", "my", "order", "the", "card", "was", "declined", "please", "send", "money", "back", "a", "broken",
    "wheel", "new", "password", "thank", "you",
]  # fmt: skip
SCHEMA = {
    "type": "object", "properties": {"label": {"enum": ["order", "card", "money"]}, "urgent": {"type": "boolean"}},
    "required": ["label", "urgent"], "additionalProperties": False,
}  # fmt: skip
QUESTIONS = [
    {"type": "predicate", "instructions": "Is it urgent?", "name": "urgent"},
    {"type": "choice", "instructions": "Who answers?", "choices": [{"value": "billing"}, {"value": "workshop"}]},
]
KINDS = ("greedy", "sampled", "several", "stops", "biased", "schema", "adapter", "stream", "left", "decision", "vector")


@dataclass(frozen=True)
class Asked:
    """One request: its kind, route and body."""

    kind: str
    path: str
    body: dict[str, Any]


def request(seed: int, number: int, model: str, kinds: Sequence[str] = KINDS) -> Asked:
    """Request `number` of a seed, always the same."""
    drawn = random.Random(f"{seed}:{number}")
    kind = kinds[number % len(kinds)]
    text = " ".join(drawn.choices(WORDS, k=drawn.randint(1, 60)))
    if kind == "decision":
        return Asked(kind, "/v1/decisions", {"model": model, "input": text, "questions": QUESTIONS})
    if kind == "vector":
        return Asked(kind, "/v1/embeddings", {"model": "minilm", "input": [text, text[:40]]})
    own: dict[str, dict[str, Any]] = {
        "greedy": {"temperature": 0},
        "several": {"n": drawn.randint(2, 4)},
        "stops": {"stop": drawn.sample(WORDS, 3)},
        "biased": {"logit_bias": {str(drawn.randint(0, 255)): drawn.choice([-100, 5])}},
        "adapter": {"model": f"lora{drawn.randrange(ADAPTERS)}"},
        "stream": {"stream": True},
        "left": {"stream": True},
    }
    body: dict[str, Any] = {
        "model": model, "max_tokens": drawn.randint(1, 12), "temperature": drawn.choice([0.3, 0.8, 1.5]),
        "top_p": drawn.choice([0.5, 0.9, 1.0]), "seed": drawn.randrange(2**31), **own.get(kind, {}),
    }  # fmt: skip
    if kind == "schema":
        form = {"type": "json_schema", "json_schema": {"name": "asked", "strict": True, "schema": SCHEMA}}
        body |= {"max_tokens": 40, "response_format": form, "logprobs": True}
        return Asked(kind, "/v1/chat/completions", body | {"messages": [{"role": "user", "content": text}]})
    return Asked(kind, "/v1/completions", body | {"prompt": text, "logprobs": 2})


def said(asked: Asked, answer: dict[str, Any]) -> Any:
    """What must be the same whenever a request is asked: texts, log-probabilities, ends, probabilities, vectors."""
    return {name: answer[name] for name in ("choices", "answers", "data") if name in answer}


@dataclass
class Load:
    """What came of the requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)  # seconds, in the order in which answers ended
    kept: dict[int, Any] = field(default_factory=dict)  # number of a request -> its answer
    memory: list[float] = field(default_factory=list)  # MB of the server, one for each hundredth of the requests
    failures: list[str] = field(default_factory=list)


class Server:
    """A server of a model with eight LoRAs, in a process of its own."""

    def __init__(self, model: str, folder: Path, options: str) -> None:
        write_adapters(model, folder / "loras")
        (folder / "keys.txt").write_text(KEY + "\n")
        loras = [f"--adapter=lora{number}={folder / f'loras/lora{number}'}" for number in range(ADAPTERS)]
        command = [sys.executable, "-m", "riyaz", "serve", model, *loras, "--adapters", str(folder / "loras"),
                   "--port", "0", "--api-key-file", str(folder / "keys.txt"), "--max-queue", "512",
                   *shlex.split(options)]  # fmt: skip
        self.log = folder / "log.txt"
        with open(self.log, "w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, "")
        self.url = next((line.split()[-1] for line in lines if "http://" in line), "").removesuffix("/v1")
        if not self.url:
            raise SystemExit(f"error: the server did not start: {self.log.read_text()[-500:]}")

    def memory(self) -> float:
        """Resident memory in MB."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096 / 2**20

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def write_adapters(model: str, folder: Path) -> None:
    """LoRAs of random numbers on every linear of the layers, and one more, `turn`, that is loaded and removed."""
    family = describe(open_source(model))
    linears = {path: shape for path, shape in shapes_of(family).linears.items() if "layers." in path}
    for number, name in enumerate([*(f"lora{number}" for number in range(ADAPTERS)), "turn"]):
        generator = np.random.default_rng(number)
        pairs = {
            path: Pair(generator.normal(0, 0.02, (RANK, columns)).astype(np.float32),
                       generator.normal(0, 0.02, (rows, RANK)).astype(np.float32), 1.0)
            for path, (rows, columns) in linears.items()
        }  # fmt: skip
        (folder / name).mkdir(parents=True)
        peft.write(Adapter(pairs=pairs), folder / name, family, base=model)


async def ask(client: httpx.AsyncClient, asked: Asked) -> tuple[int, Any]:
    """(status, the answer; None of one that was streamed or left)."""
    if asked.kind not in ("stream", "left"):
        response = await client.post(asked.path, json=asked.body)
        return response.status_code, response.json() if response.status_code == 200 else response.text
    async with client.stream("POST", asked.path, json=asked.body) as response:
        ended = False
        async for line in response.aiter_lines():
            ended = ended or line == "data: [DONE]" or '"error"' in line
            if asked.kind == "left" and line:
                return response.status_code, None
    return (response.status_code if ended or response.status_code != 200 else 0), None


async def load(server: Server, client: httpx.AsyncClient, arguments: argparse.Namespace, model: str) -> Load:
    """Ask all requests with so many clients at once."""
    outcome, numbers = Load(), iter(range(arguments.requests))
    kept = {*random.Random(arguments.seed).sample(range(arguments.requests), min(arguments.again, arguments.requests))}
    step = max(1, arguments.requests // 100)

    async def one_client() -> None:
        for number in numbers:
            asked, began = request(arguments.seed, number, model), time.perf_counter()
            try:
                status, answer = await ask(client, asked)
            except httpx.HTTPError as error:
                outcome.failures.append(f"request {number} ({asked.kind}): {type(error).__name__} {error}")
                continue
            outcome.waits.append(time.perf_counter() - began)
            outcome.statuses[status] += 1
            if status != 200:
                outcome.failures.append(f"request {number} ({asked.kind}): {status} {str(answer)[:200]}")
            elif number in kept and answer is not None:
                outcome.kept[number] = said(asked, answer)
            if len(outcome.waits) % step == 0:
                outcome.memory.append(server.memory())

    turning = asyncio.create_task(turn(client, outcome))
    await asyncio.gather(*(one_client() for _ in range(arguments.clients)))
    turning.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await turning
    await client.delete("/v1/adapters/turn")
    return outcome


async def turn(client: httpx.AsyncClient, outcome: Load) -> None:
    """Load an adapter and remove it, once a second."""
    while True:
        for response in (
            await client.post("/v1/adapters", json={"name": "turn", "path": "turn"}),
            await client.delete("/v1/adapters/turn"),
        ):
            if response.status_code not in (200, 201, 204):
                outcome.failures.append(f"adapter: {response.status_code} {response.text[:200]}")
        await asyncio.sleep(1)


async def differing(client: httpx.AsyncClient, outcome: Load, seed: int, model: str) -> list[str]:
    """The requests whose answer alone is another than among others."""
    wrong = []
    for number, before in sorted(outcome.kept.items()):
        asked = request(seed, number, model)
        status, answer = await ask(client, asked)
        if status != 200 or said(asked, answer) != before:
            wrong.append(f"request {number} ({asked.kind}): {before} and alone {answer}"[:400])
    return wrong


async def stop(server: Server, client: httpx.AsyncClient, arguments: argparse.Namespace, model: str) -> list[str]:
    """SIGTERM under load: what ended without an answer and without a reason."""
    numbers = range(arguments.requests, arguments.requests + arguments.clients)
    asked = [request(arguments.seed, number, model, ("stream", "greedy", "several")) for number in numbers]
    tasks = [asyncio.create_task(ask(client, each)) for each in asked]
    await asyncio.sleep(0.3)
    server.process.send_signal(signal.SIGTERM)
    wrong = []
    for each, came in zip(asked, await asyncio.gather(*tasks, return_exceptions=True)):
        if isinstance(came, BaseException):
            if not isinstance(came, httpx.ConnectError):  # it was not taken any more
                wrong.append(f"SIGTERM: {each.kind}: {type(came).__name__} {came}")
        elif came[0] not in (200, 503):
            wrong.append(f"SIGTERM: {each.kind}: {came[0]} {str(came[1])[:200]}")
    status = await asyncio.to_thread(server.process.wait, 30)
    return [*wrong, *([f"the server ended with {status}"] if status else [])]


def slower(waits: Sequence[float]) -> float:
    """The 99th of the last tenth's waits ÷ that of the first."""
    tenth = max(1, len(waits) // 10)
    return float(np.percentile(waits[-tenth:], 99) / np.percentile(waits[:tenth], 99))


async def soak(arguments: argparse.Namespace, folder: Path) -> int:
    """All of it; the exit status."""
    began, server = time.monotonic(), Server(arguments.model, folder, arguments.serve)
    limits = httpx.Limits(max_connections=arguments.clients + 4, max_keepalive_connections=arguments.clients + 4)
    headers = {"authorization": f"Bearer {KEY}"}
    try:
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=300, limits=limits) as client:
            model = str((await client.get("/v1/models")).json()["data"][0]["id"])
            await asyncio.gather(*(ask(client, request(-1, number, model)) for number in range(4 * arguments.clients)))
            open_before = server.descriptors()
            outcome = await load(server, client, arguments, model)
            grown = max(outcome.memory[-10:]) - outcome.memory[len(outcome.memory) // 10]
            open_after = server.descriptors()
            wrong = await differing(client, outcome, arguments.seed, model)
            stopped = await stop(server, client, arguments, model)
    finally:
        server.process.kill()
        server.process.wait()
    times = slower(outcome.waits)
    problems = [*outcome.failures, *wrong, *stopped]
    if grown > GROWN:
        problems.append(f"memory grew by {grown:.0f} MB after a tenth of the requests")
    if times > SLOWER:
        problems.append(f"the 99th of the waits grew {times:.2f} times")
    if open_after > open_before + LEFT:
        problems.append(f"{open_after - open_before} more descriptors are open")
    print("\n".join(problems[:20]), file=sys.stderr)
    counts = ", ".join(f"{count} of status {status}" for status, count in sorted(outcome.statuses.items()))
    print(
        f"soak: {arguments.requests} requests ({counts}), {arguments.clients} clients, "
        f"{len(outcome.kept)} asked again, {len(wrong)} other answers, "
        f"memory {grown:+.1f} MB, 99th of waits {np.percentile(outcome.waits, 99):.2f} s, "
        f"last tenth {times:.2f} times the first, descriptors {open_after - open_before:+d}, "
        f"{len(problems)} problems, seed {arguments.seed}, {(time.monotonic() - began) / 60:.1f} min"
    )
    return 1 if problems else 0


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line, soak, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's name or path")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--again", type=int, default=1_000, help="how many of them are asked again, alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", default="", help="more options of riyaz serve")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="riyaz-soak-") as folder:
        return asyncio.run(soak(arguments, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
