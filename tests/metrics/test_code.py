"""pass@1: what is taken for the code of an answer, what passes, and what is said where it cannot be confined."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until

from riyaz.child import Child
from riyaz.data import Example
from riyaz.data.checks import Check
from riyaz.errors import RiyazError
from riyaz.metrics import code, namespaces
from riyaz.metrics.code import Verdict, passes, require_confinement, texts_of
from riyaz.metrics.executed import expect_ready

DOUBLE = "def double(x):\n    return 2 * x"
TESTS = "assert double(2) == 4\nassert double('a') == 'aa'"
CASES = "import unittest\nclass Cases(unittest.TestCase):\n    def test_it(self):\n"
CASES += "        self.assertEqual(double(2), 4)\n"
WRONG_ANSWERS = {"def double(x):\n    return x + 3": "AssertionError:", "": "NameError: name 'double'"}  # why they fail


def confinement() -> str:
    """What this machine lacks; empty where code can be confined."""
    try:
        require_confinement()
    except RiyazError as error:
        return str(error)
    return ""


LACKING = confinement()


def refused(call: str = "x = 1") -> bool:
    """Whether code is refused here, which then is one line that names the metric."""
    if LACKING:
        with pytest.raises(RiyazError, match=r"metric pass@1: generated code cannot be confined here: .*--unsafe-code"):
            passes(call, "")
    return bool(LACKING)


def test_what_this_machine_can_confine_is_confined() -> None:
    """A refusal must not hide a fault of ours: the kernel is asked in another way."""
    ask = "import ctypes; c = ctypes.CDLL(None); n = c.unshare(0x7C020000) and c.unshare(0x7C020000 | 0x10000000)\n"
    ask += "raise SystemExit(n or c.mount(b'none', b'/', None, 1 << 18 | 16384, None))"
    assert not LACKING or subprocess.run([sys.executable, "-c", ask], check=False).returncode, LACKING


@pytest.mark.parametrize(
    "answer",
    [
        DOUBLE,
        f"Here it is:\n\n```python\n{DOUBLE}\n```\nUse it like this:\n```python\nprint(double(nothing))\n```",
        f"```python\n{DOUBLE}",  # cut off behind it
        f"~~~py\n{DOUBLE}\n~~~",
        f"```py3\n{DOUBLE}\n```",
        f"```bash\nls\n```\n```python3\n{DOUBLE}\n```",
        f"```bash\npip install x\n```\n\n```\n{DOUBLE}\n```",
        f"```python\ndouble(3)\n```\n```python\n{DOUBLE}\n```",  # the block that defines something
        f"The function doubles:\n\n{DOUBLE}\n\nIt returns twice its argument.",
        f"from math import pi\n\n{DOUBLE}\n\nif __name__ == '__main__':\n    raise SystemExit(1)",
    ],
)
def test_the_code_of_an_answer_is_found(answer: str) -> None:
    assert refused() or passes(answer, TESTS) == Verdict(True, True)


def test_blocks_that_define_something_come_first() -> None:
    assert texts_of("```\na = 1\n```\n```\ndef f(): pass\n```") == ["def f(): pass\n", "a = 1\n"]
    assert texts_of("No code.") == ["No code."]


@pytest.mark.parametrize(
    ("answer", "tests", "runs", "why"),
    [
        (DOUBLE, "assert double(2) == 5", True, "AssertionError:"),
        (DOUBLE, "assert triple(2) == 6", True, "NameError: name 'triple' is not defined"),
        (DOUBLE, "def (", True, "SyntaxError: "),
        ("raise ValueError('no')", "", False, "ValueError: no"),
        ("I cannot do that.", "", False, "SyntaxError: "),
        ("", "double(2)", True, "NameError: "),
        ("import numpy", "", False, "ModuleNotFoundError: "),
        ("import riyaz", "", False, "ModuleNotFoundError: "),
    ],
)
def test_a_failure_says_why(answer: str, tests: str, runs: bool, why: str) -> None:
    if not refused():
        verdict = passes(answer, tests)
        assert not verdict.passed and verdict.runs == runs and verdict.why.startswith(why), verdict


def test_the_standard_library_can_be_imported() -> None:
    names = (
        "collections csv dataclasses datetime decimal fractions functools hashlib heapq itertools json math random re"
    )
    names += " statistics string typing zlib bisect calendar cmath graphlib xml.etree.ElementTree html.parser shlex"
    use = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 1\nfrom datetime import datetime\n"
    use += "assert P() == P(1) and datetime.strptime('2024-05-06', '%Y-%m-%d').month == 5 and round(math.pi) == 3"
    assert refused() or passes(f"import {', '.join(names.split())}\n{use}", "") == Verdict(True, True)


def test_a_row_leaves_nothing_to_the_next() -> None:
    if not refused():
        assert passes("import math, builtins\nmath.pi = 3\nbuiltins.left = 1", "assert math.pi == 3").passed
        assert passes("import math", "assert math.pi > 3.14\nassert 'left' not in dir(__builtins__)").passed


def test_tests_have_the_functions_of_python_not_the_answers() -> None:
    answer = "import builtins\nbuiltins.abs = builtins.max = lambda *a: 0\ndel builtins.len\ndef double(x): return 0"
    for tests in ("assert abs(double(2) - 4) < 1e-9", "assert max(0, double(2) + 4) == 0", "assert len('a') == 0"):
        assert refused() or passes(answer, tests) == Verdict(False, True, "AssertionError:")


def test_the_same_code_gives_the_same_verdict() -> None:
    """Hashes of strings, chance and the time zone are no matter of luck."""
    if not refused():
        look = "assert 0, (hash('a'), random.random(), time.tzname)"
        assert len({passes("import random, time", look).why for _ in range(3)}) == 1


def test_tests_may_be_long() -> None:
    assert refused() or passes(DOUBLE, TESTS + "\n#" + "x" * 150_000).passed
    assert passes(DOUBLE + "#" * code.CODE, TESTS) == Verdict(False, False, "more than 200,000 characters of code")


def test_one_process_forks_for_every_row() -> None:
    """To start Python for each of three hundred rows would take minutes."""
    if not refused():
        assert len({code._confined.pid for _ in range(5) if passes(DOUBLE, TESTS).passed} - {None}) == 1


def test_a_killed_process_is_replaced() -> None:
    if not refused():
        pid = code._confined.pid
        assert pid is not None and passes(DOUBLE, TESTS).passed
        os.kill(pid, 9)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert passes(DOUBLE, TESTS).passed and code._confined.pid != pid


def test_nothing_outlives_a_process_that_is_killed() -> None:
    script = "from riyaz.metrics import code; code.passes('', ''); print(code._confined.pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, stderr=-1, text=True) as started:
        if LACKING:
            assert "cannot be confined" in started.communicate()[1]
            return
        assert started.stdout is not None
        outer = int(started.stdout.readline())
        family = {outer, *children_of(outer)}
        assert len(family) == 2, "the process outside the namespace, and the first one inside"
        started.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), "the end of both processes")


def children_of(pid: int) -> set[int]:
    """Numbers of the living processes that this one started."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.add(int(path.parent.name))
    return found


def test_where_it_cannot_be_confined_it_is_refused_or_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the kernel or a container forbids namespaces."""
    lacking = "import sys; sys.path.insert(0, {!r}); from riyaz.metrics import namespaces, code_worker; "
    lacking = lacking.format(str(Path(code.__file__).parents[2])) + "namespaces.PRIVATE = 0xFFFFFFFF; "
    monkeypatch.setattr(
        code, "_confined", Child(lambda: ([sys.executable, "-S", "-c", lacking + "code_worker.main(True)"], {}))
    )
    monkeypatch.setenv(code.UNSAFE, "0")
    code._runner.cache_clear()
    try:
        with pytest.raises(RiyazError) as error:
            require_confinement()
        line = str(error.value)
        assert "confined here: unshare: Invalid argument; use Linux" in line and "--unsafe-code" in line
        with pytest.raises(RiyazError, match="cannot be confined"):
            passes(DOUBLE, TESTS)
        require_confinement(unsafe=True)
        assert passes(DOUBLE, TESTS) == Verdict(True, True)
        assert not passes("import os\nos.fork()", "").passed and not passes("open('x', 'w')", "").passed
    finally:
        code._confined.stop()
        code._limited.stop()
        code._runner.cache_clear()


def test_who_may_confine_uses_it_even_if_allowed_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code.UNSAFE, "0")
    if not refused():
        require_confinement(unsafe=True)
        assert code.is_unsafe() and not passes("import os\nassert os.path.exists('/etc/passwd')", "").passed
        assert code._limited.pid is None


def test_every_machine_has_its_calls_once() -> None:
    for machine, calls in namespaces.CALLS.items():
        numbers = calls.split()
        assert len(numbers) == len(set(numbers)) and not {namespaces.OPENAT[machine], namespaces.FCNTL[machine]} & {
            int(number) for number in numbers
        }


def test_what_stands_above_the_answer_runs_before_it() -> None:
    above = "import sys, types\nsys.modules['shelf'] = shelf = types.ModuleType('shelf')\nshelf.size = 3\n# answer\n"
    tests = above + "assert size() == 3"
    answer = "import shelf\ndef size():\n    return shelf.size"
    if not refused():
        assert passes(answer, tests).passed
        assert not passes(answer, tests.replace("# answer\n", "")).passed  # else it comes after it


@pytest.mark.parametrize(
    "end",
    [
        "unittest.main()",
        "if __name__ == '__main__':\n    unittest.main()",
        "unittest.main(argv=['tests', '-v'], exit=False)",
        "from unittest import main\nmain(verbosity=2)\nassert double(2) == 4",
        "import sys\nunittest.main(exit=False)\nsys.exit(0)",
    ],
)
def test_unittest_code_passes_where_all_its_cases_do(end: str) -> None:
    if not refused():
        assert passes(DOUBLE, CASES + end) == Verdict(True, True)
        for answer, why in WRONG_ANSWERS.items():
            verdict = passes(answer, CASES + end)
            assert not verdict.passed and verdict.runs and verdict.why.startswith(why), verdict


def test_tests_may_end_by_an_exit_with_status_0() -> None:
    """At their end, where nothing is left to be tested; anywhere else an exit is a failure."""
    ends = ["sys.exit()", "sys.exit(0)", "raise SystemExit", "raise SystemExit(False)", "sys.exit(double(2) != 4)",
            "if __name__ == '__main__':\n    sys.exit(None)",
            "if double(2) == 4:\n    sys.exit(0)\nelse:\n    sys.exit(1)"]  # fmt: skip
    for end in [] if refused() else ends:
        tests = f"import sys\nassert double(2) == 4\n{end}"
        assert passes(DOUBLE, tests) == Verdict(True, True), end
        for answer, why in WRONG_ANSWERS.items():
            assert passes(answer, tests).why.startswith(why), (end, answer)
        assert not passes("def double(x):\n    raise SystemExit(0)", tests).passed, end
    for end in ("sys.exit(1)", "sys.exit('wrong')", "raise SystemExit(2)", "sys.exit(0)\nassert double(2) == 5"):
        assert refused() or not passes(DOUBLE, f"import sys\n{end}").passed, end
    assert refused() or passes("import sys\nsys.exit(0)", "import sys\nsys.exit(0)") == Verdict(
        False, False, "SystemExit: 0"
    )


def judged(answer: str, tests: str, line: int = 7, *others: str) -> Example:
    """A row that pass@1 judges."""
    return Example((), (answer, *others), where=f"train.jsonl:{line}", check=Check(tests=tests))


@pytest.mark.parametrize(
    "tests",
    [
        "def test_double():\n    assert double(2) == 4",
        "def check(candidate):\n    assert candidate(2) == 4",
        CASES,
        CASES + "unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromName('answer'))",
        "import sys\ndef test_double():\n    assert double(2) == 4\nsys.exit(0)",
        "def double(x): return 2 * x\n# answer\nassert double(2) == 4",
    ],
)
def test_tests_that_an_empty_answer_passes_are_refused_with_their_line(tests: str) -> None:
    if not refused():
        expect_ready("pass@1", [judged(DOUBLE, TESTS)])
        with pytest.raises(RiyazError) as error:
            expect_ready("pass@1", [judged(DOUBLE, TESTS), judged(DOUBLE, tests, 8), judged(DOUBLE, "assert 1", 9)])
        line = str(error.value)
        assert line.startswith("train.jsonl:8: the tests pass with an empty answer") and "\n" not in line
        assert "call the test functions" in line and "unittest.main()" in line


def test_an_accepted_answer_that_fails_its_tests_is_named_with_its_line() -> None:
    if not refused():
        wrong = judged("def double(x):\n    return x + 3", "assert double(2) == 4, 'not twice'", 8)
        with pytest.raises(RiyazError) as error:
            expect_ready("pass@1", [judged(DOUBLE, TESTS), wrong])
        line = "train.jsonl:8: the accepted answer fails its tests: AssertionError: not twice; "
        assert str(error.value).startswith(line)
        with pytest.raises(RiyazError, match=r"train\.jsonl:7: the accepted answer fails its tests: SyntaxError"):
            expect_ready("pass@1", [judged("Twice its argument.", TESTS)])
        expect_ready("pass@1", [judged("I double it.", TESTS, 7, DOUBLE)])  # one of several accepted answers passes


def test_rows_are_tried_many_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    alone = code.passes

    def run(answer: str, tests: str) -> Verdict:
        runs.append(answer)
        return alone(answer, tests)

    monkeypatch.setattr(code, "passes", run)
    if not refused():
        tests = [f"import answer\nassert answer.double({n}) == {2 * n}" for n in range(60)]
        tests += [f"import helper\n{CASES}unittest.main()\n# {n}" for n in range(60)]
        library = "import sys, types\nsys.modules['helper'] = types.ModuleType('helper')\n# answer\n"
        rows = [judged(f"Here:\n\n{DOUBLE}\n\nIt doubles.", library + each) for each in tests]
        expect_ready("pass@1", rows * 3)
        assert len(runs) == 4, "rows that are the same count once"
        expect_ready("pass@1", [judged(DOUBLE, f"import sys\n{each}\nsys.exit(0)") for each in tests[:20]])
        assert len(runs) == 45, "what ends the common process is run alone"
