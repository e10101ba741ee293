"""What a process that only opens a model and generates need not hold: torch, OpenSSL, a second set of arrays."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import tiny_llama

TOKENS = 512  # of a prompt
HEAVY = ("torch", "scipy", "hashlib", "ssl", "numpy.random")  # hashlib and ssl load OpenSSL: 4 MB
OPEN = f"""
import sys
from riyaz.engine import Request
from riyaz.engine.opening import open_engine
from riyaz.sources import open_source
source = open_source(sys.argv[1])
tokens = source.tokenizer().encode("the card")
engine = open_engine(source)
assert list(engine.stream(Request(0, tuple(tokens), limit=2)))
import json
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
GROW = f"""
import json, resource, sys
from pathlib import Path
from riyaz.engine.native.load import load_runner
from riyaz.engine.runner import Best, TokenRun
from riyaz.sources import open_source

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

runners, grown = [load_runner(open_source(path)) for path in sys.argv[1:]], []
for runner in runners:
    sequence, before = runner.open(), resident()
    runner.forward([TokenRun(sequence, (3,) * {TOKENS}, Best())])
    grown.append(resident() - before)
print(json.dumps(grown))
"""


def answer(code: str, *arguments: object) -> Any:
    """The JSON that a fresh Python prints."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_opening_and_generating_loads_no_torch_and_no_openssl(tmp_path: Path) -> None:
    assert answer(OPEN, tiny_llama.write_gguf(tmp_path / "tiny.gguf")) == []


def test_a_command_that_answers_by_a_language_model_loads_no_scipy() -> None:
    code = "import json, sys; import riyaz.cli.opened, riyaz.predictor; print(json.dumps('scipy' in sys.modules))"
    assert answer(code) is False


def test_attention_and_the_feed_forward_share_the_memory_of_a_pass(tmp_path: Path) -> None:
    sizes = {"layers": 1, "hidden": 1024, "heads": 16, "kv_heads": 2, "dtype": "Q8_0"}
    wide = 2304  # as q, k, v and what attention makes of them
    inner = (64, wide)
    few, many = answer(GROW, *(tiny_llama.write_gguf(tmp_path / f"{n}.gguf", intermediate=n, **sizes) for n in inner))
    assert many - few < TOKENS * wide * 4  # of the gate, in float32
