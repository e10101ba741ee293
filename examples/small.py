"""Every application in a small form: its rows, a comparison of three methods on a few of them, one line of result.

    make examples

Rows that are there are not gathered again, and a comparison that was stopped goes on. Standard library only.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = Path("runs/examples")  # from where it is started
SMALL = ["--model", "smollm2-135m", "--methods", "nearest,zero_shot,lora", "--limit-train", "60",
         "--limit-test", "12", "--steps", "8", "--budget", "10m", "--quiet"]  # fmt: skip
NEEDS = {"shell": "npm"}  # programs that a gather.py calls


def names() -> list[str]:
    """The applications: every folder with a gather.py and settings."""
    return sorted(path.parent.name for path in HERE.glob("*/gather.py") if (path.parent / "riyaz.toml").exists())


def failed(program: str, *arguments: str) -> bool:
    """Run a program that stands beside this Python, and say so; whether it failed."""
    print("$", program, *arguments, flush=True)
    return bool(subprocess.run([str(Path(sys.executable).with_name(program)), *arguments]).returncode)


def made(name: str) -> str:
    """Gather and compare one application; why it has no result, or nothing."""
    folder, program = Path(os.path.relpath(HERE / name)), NEEDS.get(name)
    if not (folder / "test.jsonl").exists():
        if program and not shutil.which(program):
            return f"left out: its rows need {program}, which is not on this machine"
        if failed(Path(sys.executable).name, str(folder / "gather.py")):
            return "failed: its rows were not gathered"
    return "failed: see above" if failed("riyaz", "compare", str(folder), *SMALL, "--out", str(OUT / name)) else ""


def line(name: str, why: str) -> str:
    """The result of an application: the pick, its score, the floor under it, what an answer costs."""
    if why:
        return f"{name:12} {why}"
    found = json.loads((OUT / name / "compare.json").read_text(encoding="utf-8"))
    arm = next((arm for arm in found["arms"] if arm["method"] == found["pick"]), None)
    if arm is None:
        return f"{name:12} no pick: {found['reason'].partition('. ')[0]}"
    floor = f"{found['floor']['score']:.3f}" if found.get("floor") else "–"
    score = f"{arm['metric']} {arm['score']:.3f}  floor {floor}"
    return f"{name:12} {arm['method']:10} {score}  {arm['ms_per_answer']:,.1f} ms  {arm['serve_rss_mb']:,.0f} MB"


def main() -> int:
    """Run those that are named on the command line, all if none is; a line for each at the end."""
    chosen = sys.argv[1:] or names()
    if unknown := set(chosen) - set(names()):
        sys.exit(f"error: no example {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    done = {name: made(name) for name in chosen}
    print(f"\n12 test rows and 8 steps of training: no result, only a proof that it runs; reports are in {OUT}")
    print(*(line(name, why) for name, why in done.items()), sep="\n")
    return any(why.startswith("failed") for why in done.values())


if __name__ == "__main__":
    sys.exit(main())
