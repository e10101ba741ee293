"""What the tests reach, in two lines: branches of src/riyaz, and lines of native/ (`make coverage`).

    python tests/house/coverage_of.py -n 2                                       # the whole suite, by two processes
    python tests/house/coverage_of.py tests/data tests/text                      # unknown arguments go to pytest
    python tests/house/coverage_of.py --root ../before --into build/before -n 2  # another checkout, of any age

The tests run in a copy of the checkout with a C++ engine that counts its lines, so that nobody notices the one in use.
Python processes that tests start are measured too, unless they are killed, or confine themselves so that they write no
file. Where measuring makes a test fail, a line says so. The folder `--into` then holds the copy (tree), coverage's data
with the name of the test that reached each line (data), which tests/house/mutants.py reads, what pytest said
(pytest.log), and both reports (python.json, native.json).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """[run]
branch = true
source = {source}
data_file = {data}/coverage
parallel = true
sigterm = true
patch = subprocess, _exit, execv
disable_warnings = already-imported, couldnt-parse, module-not-imported, module-not-measured, no-data-collected,
    trace-changed
"""
COUNTING = "--coverage -fprofile-update=atomic"  # several threads add to one counter
OPTIONS = ("-p", "covered_tests", "-p", "no:cacheprovider", "--continue-on-collection-errors")
PROGRAMS = ("native/tests/", "native/fuzz/")  # they test, and are not tested


def tracked(root: Path) -> list[str]:
    """The files of a checkout as they are now, without those that git ignores."""
    command = ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (root / name).is_file()]


def copied(root: Path, tree: Path) -> None:
    """Makes `tree` a clone of the checkout with its files as they are now; what is the same keeps its time, so that
    little is compiled again."""
    if not tree.exists():
        subprocess.run(["git", "clone", "-q", "--no-checkout", str(root), str(tree)], check=True)
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    subprocess.run(["git", "-C", str(tree), "fetch", "-q", str(root), "HEAD"], check=True)
    subprocess.run(["git", "-C", str(tree), "reset", "-q", "--mixed", head.stdout.strip()], check=True)
    names = set(tracked(root))
    for name in set(tracked(tree)) - names:
        (tree / name).unlink()
    for name in names:
        source, target = root / name, tree / name
        if not target.is_file() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def built(tree: Path, folder: Path, target: str = "all") -> None:
    """Compiles the engine of `tree`, or another target, so that it counts its lines: minutes the first time."""
    command = [sys.executable, str(tree / "native/build_backend.py"), "--into", str(tree / "src/riyaz")]
    command += ["--folder", str(folder), "--target", target, f"-DCMAKE_CXX_FLAGS={COUNTING}"]
    with folder.with_name(f"{target}.log").open("w") as log:
        if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
            raise SystemExit(f"error: the C++ engine was not built; {log.name} says why")


def unmeasured() -> dict[str, str]:
    """The environment without coverage's variables, which are there where the test of this file is measured itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def tested(tree: Path, into: Path, arguments: list[str]) -> None:
    """Runs the tests of `tree` under coverage."""
    data, settings = into / "data", into / "coverage.ini"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    settings.write_text(SETTINGS.format(source=tree / "src/riyaz", data=data))
    (into / "plugin").mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("covered_tests.py"), into / "plugin")  # an older checkout has none
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", *OPTIONS, *arguments]
    paths = os.pathsep.join([str(tree / "src"), str(into / "plugin")])
    with (into / "pytest.log").open("w") as log:
        environment = unmeasured() | {"PYTHONPATH": paths}
        status = subprocess.run(command, cwd=tree, env=environment, stdout=log, stderr=log, check=False).returncode
    if status not in (0, 1):  # passed, or some failed
        raise SystemExit(f"error: pytest ended with status {status}; {log.name} says why")


def of_python(into: Path) -> str:
    """The line for src/riyaz, after the data of all processes were put together."""
    settings = f"--rcfile={into / 'coverage.ini'}"
    for command in (["combine", "-q", settings], ["json", "-q", settings, "-o", str(into / "python.json")]):
        subprocess.run([sys.executable, "-m", "coverage", *command], cwd=into / "tree", env=unmeasured(), check=True)
    totals = json.loads((into / "python.json").read_text())["totals"]
    reached, branches = totals["covered_branches"], totals["num_branches"]
    lines = f"{100 * totals['covered_lines'] / totals['num_statements']:.2f} % of lines"
    return f"src/riyaz: {100 * reached / branches:.2f} % of branches ({reached} of {branches}; {lines})"


def counted(tree: Path, folder: Path) -> dict[str, dict[int, int]]:
    """For each file of native/ how often its lines were run, in all copies of it together."""
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    notes = sorted(str(path) for path in folder.rglob("*.gcno"))
    command = ["gcov", "--json-format", "--stdout"]
    done = subprocess.run([*command, *notes], cwd=folder, capture_output=True, text=True, check=True)
    for report in done.stdout.splitlines():
        about = json.loads(report)
        for file in about["files"]:
            path = Path(about["current_working_directory"], file["file"]).resolve()
            name = path.relative_to(tree).as_posix() if path.is_relative_to(tree) else ""
            if name.startswith("native/") and not name.startswith(PROGRAMS):
                for line in file["lines"]:
                    counts[name][line["line_number"]] += line["count"]
    return counts


def of_native(into: Path) -> str:
    """The line for native/: what the tests reach, and what the program of `make kernels` reaches beside them."""
    folder = into / "native"
    counts = counted(into / "tree", folder)
    (into / "native.json").write_text(json.dumps(counts, indent=1))
    reached = sum(count > 0 for file in counts.values() for count in file.values())
    number = sum(map(len, counts.values()))
    subprocess.run([str(folder / "check_kernels")], stdout=subprocess.DEVNULL, check=False)
    again = counted(into / "tree", folder)
    both = sum(count > 0 for file in again.values() for count in file.values())
    share = 100 * reached / number
    return f"native: {share:.2f} % of lines ({reached} of {number}; {100 * both / number:.2f} % with check_kernels)"


def noted(data: Path) -> Iterator[dict]:
    """What tests/house/covered_tests.py wrote."""
    for path in sorted(data.glob("tests-*.jsonl")):
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def main() -> None:
    """Builds, tests and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout whose tests are run")
    parser.add_argument("--into", type=Path, default=ROOT / "build/coverage", help="folder for all that is written")
    options, arguments = parser.parse_known_args()
    into = options.into.absolute()
    into.mkdir(parents=True, exist_ok=True)
    tree, native = into / "tree", into / "native"
    copied(options.root.absolute(), tree)
    built(tree, native)
    built(tree, native, "check_kernels")
    for old in native.rglob("*.gcda"):
        old.unlink()
    tested(tree, into, arguments)
    print(of_python(into), of_native(into), sep="\n")
    failed = [line["test"] for line in noted(into / "data") if line.get("ended") == "failed"]
    if failed:
        print(f"{len(failed)} tests failed while they were measured ({into / 'pytest.log'}): {', '.join(failed)}")


if __name__ == "__main__":
    main()
