"""One second chance, in the open: what failed in company is run once more, alone; `.ci/run` calls this at its end.

`python tests/house/second_chance.py RUN CLOSING` reads a run that `kept_run.py` has kept and the closing line that
pytest printed of it. It runs what failed again, in one process, and prints `flaky: TEST` for each test that passes
then. The last line counts both runs together. Red, and counted as failed, are: a test that fails both times; one that
stands in docs/flaky.md already; all of them where more than MOST pass only alone.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kept_run import VARIABLE, KeptRun, KeptTest, read

ROOT = Path(__file__).parents[2]
PAGE = "docs/flaky.md"
MOST = 5  # flaky tests of a run that is not red
AGAIN = 50  # where more failed, something is broken: a second run would take long and show nothing
FAILED = 1  # pytest's exit status of a run that came to its end with failures
# Pytest's order, and its words for one: `2 errors`, `1 error`.
WORDS = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warning", "error")
CLOSING = re.compile(r"\b(?:passed|failed|errors?|skipped|deselected|no tests ran)\b.* in ([0-9.]+)s")


@dataclass(frozen=True)
class Verdict:
    """Of the tests that failed first: those that pass alone, those that fail the run, what else is wrong, and how many
    tests ended how in both runs together."""

    flaky: list[str]
    red: list[str]
    problems: list[str]
    counts: Counter[str]


def listed_tests(page: Path) -> set[str]:
    """The tests of the list in docs/flaky.md."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.M))


def verdict(first: KeptRun, second: KeptRun | None, counts: Counter[str], listed: set[str]) -> Verdict:
    """What the second run says of what failed in the first, which had these counts."""
    again = second.tests if second else {}
    # A file that could not be collected comes back as its tests.
    members = {name: [test for test in again if test == name or test.startswith(f"{name}::")] for name in failed(first)}
    flaky = [name for name, found in members.items() if found and passed(again[test] for test in found)]
    known = [name for name in flaky if name.partition("[")[0] in listed or name in listed]
    problems = [f"error: {name} is flaky again: it stands in {PAGE}; mend it" for name in known]
    red = [name for name in members if name not in flaky or name in known]
    if len(flaky) > MOST:
        problems.append(f"error: {len(flaky)} flaky tests are more than {MOST}: none of them counts as passed")
        red = list(members)
    total = Counter(counts)
    for name in members.keys() - {*red}:
        total.subtract(first.tests[name].outcomes)
        for test in members[name]:
            total.update(again[test].outcomes)
    return Verdict(flaky, red, problems, +total)


def passed(tests: Iterable[KeptTest]) -> bool:
    """Whether some of these tests passed and none is red; a test that is skipped has not passed."""
    found = list(tests)
    return any(test.passed for test in found) and not any(test.red for test in found)


def failed(run: KeptRun) -> list[str]:
    """What failed, in the order of its names."""
    return sorted(name for name, test in run.tests.items() if test.red)


def counts_of(line: str) -> Counter[str]:
    """`3 failed, 2 errors in 2.00s` -> how many tests ended how."""
    return Counter({word.removesuffix("s"): int(count) for count, word in re.findall(r"(\d+) ([a-z]+)", line)})


def seconds_of(line: str) -> float:
    """The seconds of a closing line, 0 of any other."""
    found = CLOSING.search(line)
    return float(found[1]) if found else 0.0


def closing_line(counts: Counter[str], seconds: float) -> str:
    """The counts as pytest writes them."""
    parts = [
        f"{counts[word]} {word}{'s' if word in ('warning', 'error') and counts[word] > 1 else ''}"
        for word in [*WORDS, *sorted(counts.keys() - {*WORDS})]
        if counts[word]
    ]
    minutes, rest = divmod(round(seconds), 60)
    clock = f" ({minutes // 60}:{minutes % 60:02}:{rest:02})" if seconds >= 60 else ""
    return f"{', '.join(parts) or 'no tests ran'} in {seconds:.2f}s{clock}"


def run_again(tests: list[str], folder: Path) -> tuple[KeptRun | None, str]:
    """Runs tests in one process and shows what pytest prints; the run, and its closing line."""
    with tempfile.TemporaryDirectory() as kept:
        file = Path(kept, "run.json")
        # One process stops at a file that it cannot read, unlike several.
        command = [sys.executable, "-m", "pytest", "-n", "0", "--continue-on-collection-errors", *tests]
        environment = os.environ | {VARIABLE: str(file)}
        closing = ""
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                closing = line if CLOSING.search(line) else closing
        return read(file), closing


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Gives the second chance and prints what came of it; 1 where something stays red."""
    run, closing = read(Path(arguments[0])), arguments[1]
    again = failed(run) if run and run.status == FAILED else []
    if run is None or not again or len(again) > AGAIN:
        print(f"error: no second chance: {f'{len(again)} tests failed' if again else 'pytest did not come to its end'}")
        print(closing)
        return 1
    print("\n".join(["", "Once more, alone:", *again]), flush=True)
    second, second_closing = run_again(again, root)
    found = verdict(run, second, counts_of(closing), listed_tests(root / PAGE))
    lines = [f"flaky: {name}" for name in found.flaky]
    if found.flaky:
        lines.append(f"A flaky test is listed in {PAGE}, mended, and taken off the list.")
    together = seconds_of(closing) + seconds_of(second_closing)
    print("\n".join([*lines, *found.problems, closing_line(found.counts, together)]))
    return 1 if found.red else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
