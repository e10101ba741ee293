"""What fails in company is run once more, alone: what passes then is named, what fails twice is red."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import kept_run
import pytest
import second_chance
from kept_run import KeptRun, KeptTest

ROOT = Path(__file__).parents[2]
HOOK = f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\nfrom kept_run import pytest_configure\n"
# `first` is true the first time that it is asked for a name: the tests of these small folders fail once.
ONCE = """
import os, pathlib, pytest
def first(name):
    seen = pathlib.Path(__file__).with_name(f"{name}.seen")
    new = not seen.exists()
    seen.touch()
    return new
"""
FLAKY = {
    "test_flaky.py": ONCE
    + """
def test_fails_once(): assert not first("fails")
@pytest.fixture
def made():
    assert not first("made")
def test_made_once(made): pass
@pytest.fixture
def taken_down():
    yield
    assert not first("taken down")
def test_taken_down_once(taken_down): pass
def test_kills_its_process_once():
    if first("killed"):
        os._exit(3)
def test_passes(): pass
def test_skips(): pytest.skip("nothing here")
""",
    "test_read_once.py": ONCE + 'assert not first("read")\ndef test_a(): pass\ndef test_b(): pass\n',
}
RED = {
    "test_red.py": ONCE
    + """
def test_always_fails(): assert 0
@pytest.mark.parametrize("number", [1, 2])
def test_is_listed(number): assert not first(number)
def test_fails_once(): assert not first("fails")
def test_skips_then():
    assert not first("skips")
    pytest.skip("nothing here")
""",
    "test_unreadable.py": "import no_such_module\n",
    "docs/flaky.md": "| Test | Seen |\n| --- | --- |\n| `test_red.py::test_is_listed` | 2026-10-01 |\n",
}
SIX = {
    "test_six.py": ONCE
    + """
@pytest.mark.parametrize("number", range(6))
def test_fails_once(number): assert not first(number)
def test_passes(): pass
"""
}
# What `.ci/run` asks of make, of Python, and of a command line on which nothing that it would install is found.
MAKEFILE = """
.make/venv .make/test .make/native lint:
test:
	KEEP_RUN=.make/run.json .venv/bin/python -m pytest -n 1
"""
PYTHON = f"""#!/bin/sh
case "$*" in *--collect-only*) exit 0;; esac
exec {sys.executable} "$@"
"""
PROGRAMS = ("bash", "cat", "dirname", "env", "grep", "id", "make", "mktemp", "rm", "sh", "tail", "tee")


def small(folder: Path, files: dict[str, str], patch: pytest.MonkeyPatch) -> Path:
    """A folder of tests that keeps its runs, which begin as those that no test starts, and without plugins."""
    for name in ("PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", kept_run.VARIABLE):
        patch.delenv(name, raising=False)
    patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    patch.setenv("PYTEST_PLUGINS", "xdist.plugin")
    for name, text in {"conftest.py": HOOK, "pytest.ini": "[pytest]\naddopts = -q\n", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def chance(folder: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """A run of a folder and its second chance: the status, and the lines that are printed behind pytest's."""
    file = folder / "run.json"
    command = [sys.executable, "-m", "pytest", "-n", "0", "--continue-on-collection-errors"]
    environment = os.environ | {kept_run.VARIABLE: str(file)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    capfd.readouterr()
    status = second_chance.main([str(file), done.stdout.splitlines()[-1]], folder)
    lines = capfd.readouterr().out.splitlines()
    second = max(number for number, line in enumerate(lines[:-1]) if second_chance.CLOSING.search(line))
    return status, lines[second + 1 :]


def test_ci_run_names_what_passes_alone_and_is_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small(tmp_path, FLAKY | {"Makefile": MAKEFILE, ".venv/bin/python": PYTHON}, monkeypatch)
    (root / ".venv/bin/python").chmod(0o755)
    for name in (".ci/run", "tests/house/kept_run.py", "tests/house/second_chance.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "bin").mkdir()
    for program in PROGRAMS:
        (root / "bin" / program).symlink_to(shutil.which(program) or program)
    monkeypatch.setenv("PATH", str(root / "bin"))
    done = subprocess.run([root / ".ci/run"], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    first = next(line for line in lines if second_chance.CLOSING.search(line))
    assert first.startswith("2 failed, 2 passed, 1 skipped, 3 errors in "), first
    assert lines[-7:-2] == [
        "flaky: test_flaky.py::test_fails_once",
        "flaky: test_flaky.py::test_kills_its_process_once",
        "flaky: test_flaky.py::test_made_once",
        "flaky: test_flaky.py::test_taken_down_once",
        "flaky: test_read_once.py",
    ]
    assert re.fullmatch(r"7 passed, 1 skipped in [0-9]+\.[0-9]{2}s( \(.*\))?", lines[-1]), lines[-1]


def test_what_fails_twice_or_is_listed_is_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status, lines = chance(small(tmp_path, RED, monkeypatch), capfd)
    assert status == 1
    assert lines[:-1] == [
        "flaky: test_red.py::test_fails_once",
        "flaky: test_red.py::test_is_listed[1]",
        "flaky: test_red.py::test_is_listed[2]",
        "A flaky test is listed in docs/flaky.md, mended, and taken off the list.",
        "error: test_red.py::test_is_listed[1] is flaky again: it stands in docs/flaky.md; mend it",
        "error: test_red.py::test_is_listed[2] is flaky again: it stands in docs/flaky.md; mend it",
    ]
    assert lines[-1].startswith("4 failed, 1 passed, 1 error in "), lines[-1]


def test_six_flaky_tests_are_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status, lines = chance(small(tmp_path, SIX, monkeypatch), capfd)
    assert status == 1
    assert lines[:6] == [f"flaky: test_six.py::test_fails_once[{number}]" for number in range(6)]
    assert lines[7] == "error: 6 flaky tests are more than 5: none of them counts as passed"
    assert lines[8].startswith("6 failed, 1 passed in "), lines[8]


def run_of(**outcomes: str) -> KeptRun:
    """A kept run of tests that were each counted once."""
    return KeptRun(1, {name: KeptTest({outcome: 1}) for name, outcome in outcomes.items()})


def test_five_flaky_tests_are_green_and_one_that_did_not_run_again_is_red() -> None:
    first = run_of(**dict.fromkeys("abcde", "failed"), good="passed")
    again = run_of(**dict.fromkeys("abcde", "passed"))
    found = second_chance.verdict(first, again, Counter(failed=5, passed=1, warning=2), set())
    assert (found.flaky, found.red, found.problems) == (["a", "b", "c", "d", "e"], [], [])
    assert found.counts == Counter(passed=6, warning=2)
    again.tests.pop("c")
    found = second_chance.verdict(first, again, Counter(failed=5, passed=1), set())
    assert found.red == ["c"] and found.counts == Counter(passed=5, failed=1)
    found = second_chance.verdict(first, None, Counter(failed=5, passed=1), set())
    assert found.flaky == [] and found.counts == Counter(passed=1, failed=5)


@pytest.mark.parametrize(("status", "count", "says"), [
    (2, 1, "error: no second chance: pytest did not come to its end"),
    (1, 51, "error: no second chance: 51 tests failed"),
    (None, 0, "error: no second chance: pytest did not come to its end"),
])  # fmt: skip
def test_a_run_that_broke_off_and_one_that_is_broken_get_no_second_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int | None, count: int, says: str
) -> None:
    file = tmp_path / "run.json"
    if status is not None:
        outcomes = '{"outcomes": {"failed": 1}, "seconds": 1.0}'
        tests = ", ".join(f'"test_a.py::test_{number}": {outcomes}' for number in range(count))
        file.write_text(f'{{"status": {status}, "tests": {{{tests}}}}}')
    assert second_chance.main([str(file), "1 failed in 2.00s"], tmp_path) == 1
    assert capsys.readouterr().out.splitlines() == [says, "1 failed in 2.00s"]


@pytest.mark.parametrize("line", [
    "1 failed, 10271 passed, 28 skipped, 3 deselected, 1 xfailed, 2 xpassed, 2 warnings, 1 error in 59.30s",
    "10271 passed, 1 warning, 2 errors in 1613.21s (0:26:53)",
    "no tests ran in 0.01s",
])  # fmt: skip
def test_a_closing_line_is_pytests(line: str) -> None:
    assert second_chance.closing_line(second_chance.counts_of(line), second_chance.seconds_of(line)) == line


def test_the_list_names_tests_that_there_are() -> None:
    for test in second_chance.listed_tests(ROOT / second_chance.PAGE):
        path, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(), test
    text = (ROOT / second_chance.PAGE).read_text()
    assert "| Test | Date | What was seen | Cause |" in text
