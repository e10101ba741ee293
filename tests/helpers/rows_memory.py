"""How much memory `riyaz run`, `decide` or `evaluate` takes for so many short rows, in a process of its own.

    python tests/helpers/rows_memory.py evaluate 2000000 /tmp/rows

The model is a tiny classifier. Bootstraps draw few resamples, which changes neither what they hold nor its size. The
last line of output is JSON.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

RESAMPLES = 50
WORDS = ("card", "order", "money", "nothing")
LABELS = ("billing", "delivery", "refund")


def measured(verb: str, count: int, folder: Path) -> dict[str, float]:
    """The peak memory in MB and the bytes of the result of one command on so many rows, written into the folder."""
    command = [sys.executable, __file__, "--inside", verb, str(count), str(folder)]
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def write_rows(path: Path, count: int) -> None:
    """Short rows of different texts."""
    with open(path, "w") as file:
        for n in range(count):
            row = {"text": f"my {WORDS[n % 4]} is number {n}", "label": LABELS[n * 7 % 3]}
            file.write(json.dumps(row) + "\n")


def inside(verb: str, count: int, folder: Path) -> dict[str, float]:
    """The same in this process."""
    from test_linear_classifier import classifier, written

    from riyaz.cli import main
    from riyaz.metrics import calibration, intervals

    intervals.bca_bootstrap.__kwdefaults__["resamples"] = RESAMPLES
    calibration.DRAWS = RESAMPLES
    folder.mkdir(exist_ok=True)
    artifact, rows = written(folder / "made", classifier()), folder / f"{count}.jsonl"
    write_rows(rows, count)
    out = folder / (f"{verb}.json" if verb == "evaluate" else f"{verb}.jsonl")
    given = ["--test", rows] if verb == "evaluate" else [rows]
    status = main.main([verb, str(artifact), *map(str, given), "--out", str(out), "--force", "--quiet"])
    assert status == 0, status
    size = out.stat().st_size
    rows.unlink()
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "bytes": size}


if __name__ == "__main__":
    *mode, name, rows_count, place = sys.argv[1:]
    if mode:
        print(json.dumps(inside(name, int(rows_count), Path(place))))
    else:
        tests = Path(__file__).parents[1]
        sys.path[:0] = [str(tests.parent / "src"), *(str(each) for each in tests.iterdir() if each.is_dir())]
        few, many = (measured(name, each, Path(place)) for each in (1000, int(rows_count)))
        print(json.dumps({"verb": name, "rows": int(rows_count), **many, "above_mb": many["peak_mb"] - few["peak_mb"]}))
