"""What tests reach, and which small changes of the code they notice, on a package of three functions."""

import argparse
import json
import subprocess
from pathlib import Path

import coverage_of
import mutants
import mutations
import pytest
from waiting import HANG

FILES = {
    "src/riyaz/__init__.py": "",
    "src/riyaz/sums.py": """
def larger(a, b):
    if a > b:
        return a
    return b

def total(numbers):
    result = 0
    for number in numbers:
        result += number
    return result

def least(numbers):
    if not numbers:
        raise ValueError("there is none")
    return sorted(numbers)[0]

def smaller(a, b):
    return min(a, b)
""",
    "src/riyaz/started.py": """
import sys

def tell():
    print(sys.argv[-1])

if len(sys.argv) > 1:
    tell()
""",
    "tests/test_sums.py": """
import os, subprocess, sys
import pytest
from riyaz import sums

@pytest.fixture(scope="module")
def numbers():
    return [1, 2, 3]

def test_larger():
    assert sums.larger(2, 1) == 2 and sums.larger(1, 1) == 1

def test_a_total_is_a_number(numbers):
    assert isinstance(sums.total(numbers), int)

@pytest.mark.parametrize("count", [1, 2])
def test_least(count):
    assert sums.least([5] * count) == 5

def test_of_nothing_there_is_no_least():
    with pytest.raises(ValueError):
        sums.least([])

def test_a_process():
    code = "import sys; sys.argv.append('hello'); from riyaz import started"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"hello\\n"

def test_that_fails_when_it_is_measured():
    assert sums.larger(1, 2) == 2 and "coverage" not in sys.modules

def test_that_passes_only_when_it_is_measured():
    assert sums.smaller(1, 2) == 1 and "coverage" in sys.modules
""",
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as coverage_of.py leaves it, without a C++ engine."""
    into = tmp_path_factory.mktemp("measured")
    for name, text in FILES.items():
        (into / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (into / "tree" / name).write_text(text)
    coverage_of.tested(into / "tree", into, ["-n", "0", "tests"])
    return into


@pytest.fixture(scope="module")
def line(measured: Path) -> str:
    """The line for src/riyaz, behind which the data of all processes are one."""
    return coverage_of.of_python(measured)


def test_branches_are_counted_in_processes_too_and_failed_tests_are_known(measured: Path, line: str) -> None:
    # a condition of started.py is never false
    assert line == "src/riyaz: 87.50 % of branches (7 of 8; 100.00 % of lines)"
    tests = [each for each in coverage_of.noted(measured / "data") if "test" in each]
    assert {each["test"].partition("::test_")[2]: each["ended"] for each in tests} == {
        "larger": "passed", "a_total_is_a_number": "passed", "least[1]": "passed", "least[2]": "passed",
        "of_nothing_there_is_no_least": "passed", "a_process": "passed", "that_fails_when_it_is_measured": "failed",
        "that_passes_only_when_it_is_measured": "passed",
    }  # fmt: skip


def test_lines_of_the_engine_are_counted_in_all_copies_of_a_file_together(tmp_path: Path) -> None:
    source = """
int larger(int a, int b) {
    if (a > b)
        return a;
    return b;
}
#ifdef MAIN
int main() { return larger(1, 2) - 2; }
#endif
"""
    tree, folder = tmp_path / "tree", tmp_path / "built"
    (tree / "native/tests").mkdir(parents=True)
    folder.mkdir()
    for name in ("native/engine.cpp", "native/tests/check.cpp"):
        (tree / name).write_text(source)
    for name, options in (("engine", ["-DMAIN"]), ("engine", ["-c", "-o", "other.o"]), ("tests/check", ["-DMAIN"])):
        command = ["c++", *coverage_of.COUNTING.split(), str(tree / f"native/{name}.cpp"), *options]
        subprocess.run(command, cwd=folder, check=True)
        if "-c" not in options:
            subprocess.run([folder / "a.out"], cwd=folder, check=True)
    assert coverage_of.counted(tree, folder) == {"native/engine.cpp": {2: 1, 3: 1, 4: 0, 5: 1, 8: 1}}


def test_a_copy_of_a_checkout_is_as_the_checkout_is_now(tmp_path: Path) -> None:
    root, tree = tmp_path / "root", tmp_path / "tree"
    for name, text in ((".gitignore", "made/\n"), ("a/gone", "1"), ("a/changed", "1"), ("same", "1"), ("made/x", "1")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    coverage_of.copied(root, tree)
    made = (tree / "same").stat().st_mtime_ns
    (root / "a/gone").unlink()
    (root / "a/changed").write_text("2")
    (root / "new").write_text("1")
    (tree / "made").mkdir()  # as the engine is
    (tree / "made/built").write_text("1")
    coverage_of.copied(root, tree)
    names = sorted(
        str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file() and ".git/" not in str(path)
    )
    assert names == [".gitignore", "a/changed", "made/built", "new", "same"]
    assert (tree / "a/changed").read_text() == "2" and (tree / "same").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("if a < b: pass", {"a <= b", "a >= b"}),
        ("a is not b and c in d", {"a is b", "c not in d", "a is not b or c in d"}),
        ("a = not b", {"b"}),
        ("a = b * c[0]", {"b / c[0]", "1", "-1"}),
        ("a = 'text' + b", set()),
        ("a -= 1.5", {"a += 1.5", "2.5"}),
        ("return a", {"return None"}),
        ("return None", set()),
        ("a(True)", {"pass", "False"}),
        ("if a: raise b", {"pass"}),
        ("if a: b = c\n    else: c = b", {"not a"}),
        ("a = b if c else d", {"not c"}),
        ("assert a < b", set()),
        ("a: Literal[1] = f'{1 + 1}'", set()),
        ("a = lambda: 1", {"2", "0"}),
    ],
)
def test_changes_of_a_line(source: str, changed: set[str]) -> None:
    whole = f"LIMIT = 1 < 2\n@cache(1)\ndef ünit(a=1):\n    'é'; {source}\n    'é' ; LIMIT\n"
    if source.startswith("if"):
        whole = whole.replace("'é'; ", "")
    found = mutations.mutations(whole)
    assert {each.new.strip("()") if each.new[0] == "(" else each.new for each in found} == changed
    for each in found:
        new = mutations.mutated(whole, each)
        compile(new, "changed", "exec", dont_inherit=True)
        assert new != whole and new.startswith(whole[: whole.index("    ")]) and new.endswith("\n    'é' ; LIMIT\n")
    assert len({each.key for each in found}) == len(found)


def test_a_change_keeps_its_name_where_its_lines_move() -> None:
    source = "class A:\n    def f(self):\n        return [1, 1]\n"
    keys = [each.key for each in mutations.mutations(source)]
    assert keys[0] == "A.f: return [1, 1] → return None #1" and keys[1:] == [
        f"A.f: 1 → {new} #{n}" for n in (1, 2) for new in (2, 0)
    ]
    assert [each.key for each in mutations.mutations("import a\n\n" + source)] == keys


def options(folder: Path, **changes: object) -> argparse.Namespace:
    """The options that are there without any, for a folder."""
    given = {"folder": folder, "rooms": None, "each": 10, "seed": 1, "seconds": HANG, "most": 40, "like": None}
    return argparse.Namespace(**given | changes)


def test_the_same_changes_are_drawn_one_a_line_with_the_tests_that_reach_them(measured: Path, line: str) -> None:
    reach = mutants.Reach(measured)
    drawn = mutants.chosen(reach, options(measured))
    assert {(each.file, each.mutation.line) for each in drawn} == {
        ("sums.py", n) for n in (3, 4, 5, 8, 10, 11, 14, 15, 16, 19)
    }
    assert len(drawn) == 10, "tell() of started.py is reached in another process only"
    assert mutants.chosen(mutants.Reach(measured), options(measured, each=3)) == drawn[:3]
    assert mutants.chosen(reach, options(measured, seed=2)) != drawn
    assert mutants.chosen(reach, options(measured, rooms=["data"])) == []
    tests = {each.mutation.line: [test.partition("::test_")[2] for test in each.tests] for each in drawn}
    assert sorted(tests[14]) == ["least[1]", "least[2]", "of_nothing_there_is_no_least"]
    assert tests[14].index("of_nothing_there_is_no_least") < 2, "a case of each function, before a second one"
    assert tests[15] == ["of_nothing_there_is_no_least"] and tests[11] == ["a_total_is_a_number"]


def test_a_change_is_noticed_survives_or_is_not_reached(
    measured: Path, line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = {
        "sums.py": [
            "larger: a > b → a <= b #1",
            "total: result += number → result -= number #1",
            "smaller: return min(a, b) → return None #1",
        ],
        "started.py": ["tell: print(sys.argv[-1]) → pass #1"],
    }
    like, out = tmp_path / "like.json", tmp_path / "out.json"
    like.write_text(json.dumps([{"file": file, "key": key} for file, keys in asked.items() for key in keys]))
    mutants.main(
        ["--from", str(measured), "--like", str(like), "--out", str(out), "--processes", "1", "--seconds", str(HANG)],
        heavy=("hypothesis", "anyio"),
    )
    results = {each["what"]: each for each in json.loads(out.read_text())}
    assert {name: (each["result"], each["by"]) for name, each in results.items()} == {
        "a > b → a <= b": ("killed", "tests/test_sums.py::test_larger"),
        "result += number → result -= number": ("survived", ""),
        "return min(a, b) → return None": ("not reached", ""),
        "print(sys.argv[-1]) → pass": ("not reached", ""),
    }
    assert results["return min(a, b) → return None"]["spoiled"] == [
        "tests/test_sums.py::test_that_passes_only_when_it_is_measured"
    ]
    assert capfd.readouterr().out.splitlines() == [
        ".: killed 1 of 4 (1 survived, 2 not reached)",
        "mutants: killed 1 of 4 (1 survived, 2 not reached)",
    ]
