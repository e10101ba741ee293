"""Kill a pretraining run at random moments, resume it until it is done, and compare it with an uninterrupted run.

    python tests/pretraining/torture.py --rounds 5 --kills 8        # `make torture`

Every command is `riyaz pretrain … --resume` in its own process, killed by SIGKILL after a random time drawn from the
seed: while it reads, tokenises, measures, trains, writes a checkpoint or the model. Weights, optimiser state, the loss
of every step and the samples must be equal bit for bit.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

HELPERS = Path(__file__).parents[1] / "helpers"
STEPS = 60
COMPUTE = {"llama": "float32", "gpt2": "bfloat16"}  # number type of each family; rounds alternate between them
# `riyaz` on one core, with a fake quick measurement, keeping work/ so that the last checkpoint can be compared
PROGRAM = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
sys.path.insert(0, {helpers!r})
import pytest
from tiny_pretraining import quick_machine, with_pictures
from riyaz.cli.main import main
from riyaz.pretraining.folder import RunFolder
patch = pytest.MonkeyPatch()
quick_machine(patch)
with_pictures(patch)
RunFolder.clean = lambda folder: None
sys.exit(main())
"""


def arguments(text: Path, out: Path, family: str) -> list[str]:
    """The command line of a run of STEPS steps with dropout, six checkpoints and four validations."""
    return ["pretrain", str(text), "--tokenizer", "bytes", "--layers", "2", "--width", "32", "--heads", "2",
            "--context", "32", "--batch", "4", "--steps", str(STEPS), "--family", family, "--compute", COMPUTE[family],
            "--dropout", "0.1", "--validate-every", "15", "--checkpoint-every", "10", "--seed", "5", "--resume",
            "--out", str(out)]  # fmt: skip


def start(text: Path, out: Path, family: str) -> subprocess.Popen[str]:
    """Start the command in its own process."""
    program = PROGRAM.format(helpers=str(HELPERS))
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments(text, out, family)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def whole(text: Path, out: Path, family: str = "llama") -> float:
    """Run to the end without a kill; the seconds it took."""
    began = time.monotonic()
    process = start(text, out, family)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.monotonic() - began


def killed_after(text: Path, out: Path, seconds: float, family: str = "llama") -> bool:
    """Kill the command after `seconds`; False when it ended before that."""
    process = start(text, out, family)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    assert process.returncode == 0, errors
    return False


def assert_same_run(straight: Path, killed: Path) -> None:
    """Assert that both folders hold the same run, bit for bit."""
    last = f"work/train/step-{STEPS - 10:06d}"
    names = ["model.safetensors", "samples.jsonl", "tokenizer.json", f"{last}/masters.safetensors",
             f"{last}/optimizer.safetensors", "work/text/tokens.bin"]  # fmt: skip
    for name in names:
        assert (straight / name).read_bytes() == (killed / name).read_bytes(), f"{killed / name} differs"
    steps = losses(straight)
    assert steps == losses(killed) and [entry["step"] for entry in steps] == list(range(1, STEPS + 1))
    assert json.loads((killed / "run.json").read_text())["status"] == "done"


def losses(folder: Path) -> list[dict]:
    """Every step of metrics.jsonl, without the fields that depend on time."""
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in e.items() if k not in ("seconds", "tokens_s", "peak_share")} for e in entries]


def main() -> None:
    """Run rounds of random kills, each compared with the uninterrupted run."""
    from tiny_pretraining import words

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=8, help="most kills per round")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, total = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        text = folder / "text.txt"
        text.write_text(words(1, 1800))
        straight = {family: folder / f"straight-{family}" for family in COMPUTE}
        seconds = {family: whole(text, out, family) for family, out in straight.items()}
        for number, family in zip(range(options.rounds), cycle(COMPUTE)):
            out = folder / f"killed-{number}"
            kills = 0
            while kills < options.kills and killed_after(text, out, draw.uniform(0, 0.7 * seconds[family]), family):
                kills += 1
            whole(text, out, family)
            assert_same_run(straight[family], out)
            total += kills
            print(f"round {number + 1}, {family} in {COMPUTE[family]}: {kills} kills, equal bit for bit", flush=True)
    print(json.dumps({"torture": {"rounds": options.rounds, "kills": total, "steps": STEPS}}))


if __name__ == "__main__":
    main()
