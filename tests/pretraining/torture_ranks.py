"""Kill a random process of a run of several at random steps, resume the run, and compare it with one nobody killed.

    python tests/pretraining/torture_ranks.py --processes 2 --kills 20

Every run is that of torture.py, started as torchrun starts it. Weights, optimiser state, the loss of every step and the
samples must be equal bit for bit, and one process must say that another is gone.
"""

import argparse
import json
import random
import sys
import tempfile
from itertools import cycle
from pathlib import Path
from subprocess import Popen

HELPERS = Path(__file__).parents[1] / "helpers"


def main() -> None:
    """Kill as often as asked."""
    sys.path.insert(0, str(HELPERS))
    from started_ranks import ended, start_ranks
    from tiny_pretraining import words
    from torture import COMPUTE, PROGRAM, STEPS, arguments, assert_same_run

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, count = random.Random(options.seed), options.processes
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        text = folder / "text.txt"
        text.write_text(words(1, 1800))

        def start(out: Path, family: str) -> list[Popen[str]]:
            return start_ranks(count, ["-c", PROGRAM.format(helpers=str(HELPERS)), *arguments(text, out, family)])

        def finish(out: Path, family: str) -> Path:
            results = ended(start(out, family))
            assert not any(result.status for result in results), results
            return out

        straight = {family: finish(folder / f"straight-{family}", family) for family in COMPUTE}
        for number, family in zip(range(options.kills), cycle(COMPUTE)):
            out, rank, step = folder / f"killed-{number}", draw.randrange(count), draw.randrange(1, STEPS)
            processes = start(out, family)
            assert processes[0].stderr is not None
            for line in processes[0].stderr:
                if f"train, {step}/{STEPS}" in line:
                    break
            processes[rank].kill()
            results = ended(processes)
            lines = [line for result in results for line in result.err.splitlines() if line.startswith("error:")]
            assert len(lines) == 1 and "of this run is gone" in lines[0], results
            assert_same_run(straight[family], finish(out, family))
            print(f"{number + 1}: process {rank} killed at step {step}, {family}: equal bit for bit", flush=True)
    print(json.dumps({"torture": {"processes": count, "kills": options.kills, "steps": STEPS}}))


if __name__ == "__main__":
    main()
