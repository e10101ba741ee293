"""How much memory the largest bodies of a client take beside an idle server, by kind."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from test_serve_command import started
from waiting import HANG

MB = 2**20
SIZE = 16 * MB - 200  # bytes of the value of a body
JSON = {"content-type": "application/json"}


def many(item: bytes, last: bytes = b"1") -> bytes:
    """A list of one item, again and again."""
    return b"[" + item * (SIZE // len(item)) + last + b"]"


KINDS = {  # the route, a field and its value, and the most megabytes that may be resident above the idle server
    "one text": ("/v1/completions", b"prompt", b'"' + b"x" * SIZE + b'"', 44),
    "one text with an emoji": ("/v1/completions", b"prompt", b'"' + "🙂".encode() + b"x" * SIZE + b'"', 44),
    "half letters": ("/v1/completions", b"prompt", b'"' + b"\\ud800" * (SIZE // 6) + b'"', 44),
    "escaped quotes": ("/v1/completions", b"prompt", b'"' + b'\\"[' * (SIZE // 3) + b'"', 44),
    "texts of a letter": ("/v1/completions", b"prompt", many(b'"a",'), 32),
    "texts of two letters": ("/v1/completions", b"prompt", many(b'"ab",'), 32),
    "lists in lists": ("/v1/completions", b"prompt", b"[" * SIZE, 32),
    "tokens": ("/detokenize", b"tokens", many(b"1000,"), 32),
    "half a million tokens": ("/detokenize", b"tokens", b"[" + b"1000," * 500_000 + b"1]" + b" " * (13 * MB), 80),
    "fractions": ("/v1/completions", b"prompt", many(b"1.5,"), 32),
    "messages": ("/v1/chat/completions", b"messages", many(b'{"role":"user","content":"ab"},'), 32),
    "long messages": (
        "/v1/chat/completions", b"messages", b"[" + (b'{"role":"user","content":"' + b"word " * 200_000 + b'"},') * 15
        + b'{"role":"user","content":"a"}]', 44,
    ),
    "names": (
        "/v1/completions", b"logit_bias",
        b"{" + ",".join(f'"{number:x}":1' for number in range(SIZE // 12)).encode() + b"}", 32,
    ),
}  # fmt: skip


def resident(process: int, field: str) -> float:
    """Megabytes of a process: VmRSS now, VmHWM at most since `clear_refs` had a 5."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


@pytest.fixture(scope="module")
def server(model_folder: Path) -> Iterator[tuple[int, str]]:
    """The process and the address of a server. What it frees goes back to the system at once, so that each kind of body
    is measured as if it were the first."""
    freed = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    with started(model_folder, "--max-body-mb", "16", **freed) as (process, url):
        yield process.pid, url


IDLE: list[float] = []  # megabytes before each kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_body_takes_at_most_three_times_its_size(kind: str, server: tuple[int, str]) -> None:
    """Escaped quotes took 688 MB, messages 436, texts of two letters 280, long messages 1,620."""
    path, field, value, most = KINDS[kind]
    body = b'{"model":"tiny","' + field + b'":' + value + b"}"
    assert len(body) <= 16 * MB
    process, url = server
    small = {"model": "tiny", "prompt": "card", "max_tokens": 1, "user": "x" * 50_000}
    assert httpx.post(f"{url}/v1/completions", json=small, timeout=HANG).status_code == 200
    Path(f"/proc/{process}/clear_refs").write_text("5")
    before = resident(process, "VmRSS")
    status = httpx.post(url + path, content=body, headers=JSON, timeout=HANG).status_code
    taken = resident(process, "VmHWM") - before
    IDLE.append(before)
    print(f"{kind}: {taken:.0f} MB above {before:.0f}")
    assert status == (200 if kind == "half a million tokens" else 400)
    assert taken < most
    assert before < IDLE[0] + 8, "what the kinds before took is not free"
