"""Scoring rows never holds the logits of a whole row, its tokens times the vocabulary: that is where memory ran out.

Measured in a process of its own, whose peak is that of the scoring alone.
"""

import json
import subprocess
import sys

import pytest

TOKENS, VOCABULARY = 1500, 150_000  # 900 MB of float32 logits
MEASURE = """
import json, resource, sys
import numpy as np, torch
from small_llama import small_model
from riyaz.data.rows import Row
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.torch.runner import TorchRunner
from riyaz.train import answer_loss

torch.set_num_threads(1)
tokens, vocabulary = int(sys.argv[2]), int(sys.argv[3])
model = small_model(vocab=vocabulary, hidden=32, layers=1, context=2 * tokens, tie=False)
answer = tuple(np.random.default_rng(0).integers(3, 500, tokens).tolist())

def engine(answer):
    return float(-Engine(TorchRunner(model)).logprobs([Request("row", (1, 5))], [answer])[0].mean())

def training(answer):
    return answer_loss(model, [Row((1, 5), answer)])

score = {"engine": engine, "training": training}[sys.argv[1]]
score(answer[:8])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
nats = score(answer)
print(json.dumps([nats, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", ["engine", "training"])
def test_the_logits_of_a_long_row_are_never_in_memory_at_once(by: str) -> None:
    command = [sys.executable, "-c", MEASURE, by, str(TOKENS), str(VOCABULARY)]
    paths = [*filter(None, sys.path)]
    done = subprocess.run(command, env={"PYTHONPATH": ":".join(paths)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-800:]
    nats, nbytes = json.loads(done.stdout)
    assert 11 < nats < 14, "about the logarithm of the vocabulary, whose weights are random"
    assert nbytes < TOKENS * VOCABULARY * 4 / 2, f"{nbytes / 2**20:.0f} MB for one row"
