"""The tests that a change can reach, nearest first, within three minutes: `make test-changed`.

`python tests/house/changed.py BASE` compares the working tree, with files that git does not know yet, with a commit. It
follows imports backwards from every changed module, in functions and by name too, to the test files. First come
changed tests and the house rules, then the tests of the changed rooms, then those that import what changed, then the
others by their distance, until they take about BUDGET seconds on two cores. One line says what is left out. How long a
file takes is known from the last `make test` and the last run of this; else its size says.
"""

import argparse
import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import house_rules as rules
import kept_run

BUDGET = 150.0  # seconds on two cores; collecting the tests takes the rest of three minutes
CORES = 2
BYTES_A_SECOND = 2000  # of a test file that was never timed
KEPT = (".make/run.json", ".make/changed.json")  # of `make test`, and of the last run of this
ALWAYS = ("tests/house/test_architecture.py", "tests/house/test_tree.py")  # they read every file, in seconds
EVERYTHING = {"pyproject.toml", "Makefile", "tests/conftest.py"}  # every test can depend on these
FAR = 99  # steps to a test that no import leads to
DOCS = ("tests/house/test_docs.py",)
# Folders and files that no import leads to -> their tests. A page has those of DOCS, and every file those that name it.
PLACES: dict[str, tuple[str, ...]] = {
    "native/": ("tests/native", "tests/engine"),
    "CMakeLists.txt": ("tests/native", "tests/engine"),
    "examples/": ("tests/examples",),
    "page/": ("tests/serve/test_page_build.py",),
    "deploy/": ("tests/house/test_deploy.py",),
    "Dockerfile": ("tests/house/test_deploy.py",),
    ".github/": ("tests/house/test_supply_chain.py",),
}
IMPORT = re.compile(r"(?:\bfrom[ \t]+([\w.]+)[ \t]+)?\bimport[ \t]+(\([^)]*\)|[^\n;\"'\\]+)")
# The names by which tests ask for fixtures: parameters, and words given to usefixtures and getfixturevalue.
ASKED = re.compile(r"\bdef \w+\(([^()]*(?:\([^()]*\)[^()]*)*)\)|\b(?:usefixtures|getfixturevalue)\(([^()]*)\)")
# Modules whose tests are in another room.
ROOMS = {
    **dict.fromkeys(("errors", "system", "commit", "config", "hardware", "files", "json_files", "folders"), "base"),
    **dict.fromkeys(("events", "child", "confined"), "base"),
    **dict.fromkeys(("train", "preferences", "pace", "joining", "checkpoint", "ranks", "rehearsal"), "training"),
    **dict.fromkeys(("scoring", "precisions", "drift", "scored_columns", "target_scores"), "evaluate"),
    **dict.fromkeys(("lm_eval", "__main__", "extras"), "cli"),
    **{"": "library", "artifact": "predictor", "prompting": "predictor", "models": "families"},
    **{"results": "report", "card": "report", "samples": "serve"},
}


@dataclass(frozen=True)
class Reached:
    """A test file that a change can reach: its place in the order, and its steps from what changed."""

    file: str
    tier: int  # 0: changed, or a house rule; 1: of a changed room; 2: imports or names what changed; 3: others
    distance: int

    def order(self, seconds: float) -> tuple[int, int, float, str]:
        return self.tier, self.distance, seconds, self.file


class Repository:
    """The files of a repository and who needs whom: modules by their dotted names, other files by their paths, and
    what tests/conftest.py defines as `conftest:NAME`."""

    def __init__(self, root: Path) -> None:
        self.root, self.known = root, rules.modules(root / "src")
        self.python = {path.relative_to(root).as_posix(): path for path in rules.python_files(root)}
        self.tests = sorted(name for name in self.python if re.fullmatch(r"tests/(.+/)?test_\w+\.py", name))
        self.local = {  # what an import calls a helper or a benchmark -> its path
            PurePosixPath(name).stem: name
            for name in self.python
            if re.match(r"(tests/\w+|benchmarks|tests)/\w+\.py$", name) and not name.endswith("/conftest.py")
        }

    @cached_property
    def texts(self) -> dict[str, str]:
        """Python files outside the package and their texts."""
        return {
            name: path.read_text(encoding="utf-8") for name, path in self.python.items() if not name.startswith("src/")
        }

    @cached_property
    def exports(self) -> dict[str, dict[str, str]]:
        """Package -> what its `__init__` has from a module -> that module."""
        found: dict[str, dict[str, str]] = {}
        for name, path in self.known.items():
            for node in rules.tree_of(path).body if path.name == "__init__.py" else ():
                if isinstance(node, ast.ImportFrom):
                    (base, *_) = rules.targets(ast.ImportFrom(node.module, [ast.alias("*")], node.level), name, {})
                    found.setdefault(name, {}).update({alias.asname or alias.name: base for alias in node.names})
        return found

    @cached_property
    def needs(self) -> dict[str, set[str]]:
        """Who needs whom. Texts are searched, which takes a second; to parse all takes a quarter of a minute."""
        conftest = self.conftest_needs()
        found: dict[str, set[str]] = {}
        for name, path in self.known.items():
            text, package = path.read_text(encoding="utf-8"), name
            if path.name != "__init__.py":
                package = name.rpartition(".")[0]
            elif "iter_modules" in text:  # a package that looks for its modules by itself
                found[name] = {each for each in self.known if each.rpartition(".")[0] == name}
            strings = {self.longest_module(dotted) for dotted in re.findall(r"""["'](riyaz(?:\.\w+)+)""", text)}
            found[name] = (found.get(name, set()) | self.imported_in(text, package) | strings) - {name, ""}
        for name, text in self.texts.items():
            # In strings: programs, `-m riyaz.cli`, what is patched.
            strings = {self.longest_module(dotted) for dotted in re.findall(r"riyaz(?:\.\w+)+", text)}
            fixtures = {
                f"conftest:{word}" for part in ASKED.findall(text) for word in re.findall(r"\w+", "".join(part))
            }
            found[name] = (self.imported_in(text) | strings | (fixtures & conftest.keys())) - {name, ""}
        return found | conftest

    def longest_module(self, dotted: str) -> str:
        """`riyaz.data.rows.Row` -> `riyaz.data.rows`; of the package alone ``."""
        while dotted not in self.known and "." in dotted:
            dotted = dotted.rpartition(".")[0]
        return dotted if "." in dotted else ""

    def imported_in(self, text: str, package: str = "") -> set[str]:
        """The modules and helpers that a text imports: statements anywhere, also in a program that is a string."""
        found: set[str] = set()
        for start, listed in IMPORT.findall(text):
            words = [part.split() for part in re.sub(r"#.*", "", listed).strip("()").split(",")]
            names = [ast.alias(word[0]) for word in words if word]
            module = start.lstrip(".")
            node = ast.ImportFrom(module or None, names, len(start) - len(module)) if start else ast.Import(names)
            found |= self.imported(node, package)
        return found

    def imported(self, node: ast.Import | ast.ImportFrom, package: str = "") -> set[str]:
        """The modules and helpers of one import; for what a package has from a module, the package and that module."""
        names = {*rules.targets(node, package, self.known)}
        if isinstance(node, ast.ImportFrom):
            words = {alias.name for alias in node.names}
            names |= {
                exported[word]
                for name in names
                if (exported := self.exports.get(name))
                for word in words & exported.keys()
            }
        return {self.local.get(name, name) for name in names if name in self.known or name in self.local}

    def conftest_needs(self) -> dict[str, set[str]]:
        """What each function and class of tests/conftest.py needs: of its imports, and of the other functions."""
        path = self.root / "tests/conftest.py"
        if not path.exists():
            return {}
        tree = rules.tree_of(path)
        called: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
                one: ast.Import | ast.ImportFrom = ast.Import([alias])
                if isinstance(node, ast.ImportFrom):
                    one = ast.ImportFrom(node.module, [alias], node.level)
                called[alias.asname or alias.name.partition(".")[0]] = self.imported(one)
        defined = {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        found = {}
        for name, node in defined.items():
            words = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            words |= {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
            found[f"conftest:{name}"] = {f"conftest:{word}" for word in words & defined.keys() - {name}} | {
                each for word in words & called.keys() for each in called[word]
            }
        return found

    def naming(self, file: str) -> set[str]:
        """Python files outside the package that name a file: by its path, or by its name if no other file has it."""
        last = PurePosixPath(file).name
        alone = "." in last[1:] and sum(path.name == last for path in rules.text_files(self.root)) <= 1
        spelled = re.compile(
            rf"(?<![\w-]){re.escape(last)}(?![\w-])" if alone else rf"(?<![\w/-]){re.escape(file)}(?![\w-])"
        )
        return {name for name, text in self.texts.items() if spelled.search(text) and name != file}

    def distances(self, start: Iterable[str]) -> dict[str, int]:
        """The steps from what changed to everything that needs or names it."""
        needing: dict[str, set[str]] = {}
        for name, needed in self.needs.items():
            for each in needed:
                needing.setdefault(each, set()).add(name)
        found, ring = dict.fromkeys(start, 0), [*start]
        for name in ring:
            # A package's `__init__` runs before its modules.
            inside = {each for each in self.known if each.startswith(f"{name}.")}
            needing[name] = needing.get(name, set()) | inside | (set() if name in self.known else self.naming(name))
        while ring:
            nearer, ring = ring, []
            for name in nearer:
                for each in needing.get(name, set()) - found.keys():
                    found[each] = found[name] + 1
                    ring.append(each)
        return found

    def module_of(self, file: str) -> str:
        """The module of a file of the package, also of one that is gone or is no Python: then the package around it."""
        parts = [part.removesuffix(".py") for part in PurePosixPath(file).parts[1:]]
        while parts and ".".join(parts) not in self.known:
            parts.pop()
        return ".".join(parts)

    def rooms(self, file: str) -> tuple[str, ...]:
        """The folders and files of tests beside which a changed file has its home."""
        if file.startswith("src/riyaz/"):
            top = rules.top(self.module_of(file))
            return (f"tests/{ROOMS.get(top, top)}",)
        if file.startswith("tests/") and not file.endswith(".py"):
            return (str(PurePosixPath(file).parent),)  # rows and models that the tests beside them read
        places = [place for start, found in PLACES.items() if file.startswith(start) for place in found]
        return (*places, *(DOCS if file.endswith(".md") else ()))

    def reached(self, files: Iterable[str]) -> list[Reached]:
        """The test files that changed files can reach, in no order."""
        changed = {*files}
        nodes = {self.module_of(file) if file.startswith("src/") else file for file in changed} - {""}
        if any("tests/native" in self.rooms(file) for file in changed) and "riyaz.native" in self.known:
            nodes.add("riyaz.native")  # what leads to the C++ engine
        distances, rooms = self.distances(nodes), {room for file in changed for room in self.rooms(file)}
        found = []
        for test in self.tests:
            distance = distances.get(test, FAR)
            at_home = any(test == room or test.startswith(f"{room}/") for room in rooms)
            if test in changed or test in ALWAYS:
                found.append(Reached(test, 0, 0))
            elif at_home or distance < FAR or EVERYTHING & changed:
                found.append(Reached(test, 1 if at_home else 2 if distance == 1 else 3, distance))
        return found


def changed_files(root: Path, base: str) -> list[str]:
    """Files that differ from where this branch left the base, and those that git does not know yet."""
    start = git(root, "merge-base", base, "HEAD")[0]
    differing = git(root, "diff", "--name-only", "--no-renames", start)
    return sorted({*differing, *git(root, "ls-files", "--others", "--exclude-standard")})


def git(root: Path, *arguments: str) -> list[str]:
    """The lines that a command of git prints."""
    command = ["git", "-c", "core.quotePath=false", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()


def seconds_of(root: Path, tests: Iterable[str]) -> dict[str, float]:
    """How long each test file takes in one process."""
    timed: dict[str, float] = {}
    for name in KEPT:
        run, total = kept_run.read(root / name), Counter[str]()
        for test, kept in run.tests.items() if run else ():
            total[test.partition("::")[0]] += kept.seconds  # type: ignore[assignment]
        timed |= total
    return {test: timed.get(test, (root / test).stat().st_size / BYTES_A_SECOND) for test in tests}


def groups(root: Path) -> dict[str, int]:
    """Test files that one process runs together, as tests/conftest.py groups them -> the number of the group."""
    path = root / "tests/conftest.py"
    found: dict[str, int] = {}
    for node in rules.tree_of(path).body if path.exists() else ():
        if isinstance(node, ast.Assign) and rules.dotted(node.targets[0]) == "GROUPS":
            for number, group in enumerate(getattr(node.value, "elts", ())):
                words = [part.value for part in ast.walk(group) if isinstance(part, ast.Constant)]
                found |= dict.fromkeys((f"test_{word!s}" for word in words), number)
    return found


def chosen(root: Path, reached: list[Reached], budget: float) -> tuple[list[str], float, list[str], float]:
    """The nearest test files that fit into the budget and their seconds on all cores; those left out, and theirs.
    Changed tests and the house rules are chosen whatever they take."""
    seconds, together = seconds_of(root, (each.file for each in reached)), groups(root)
    taken: list[str] = []
    left: list[str] = []
    whole, parts = 0.0, Counter[object]()
    for each in sorted(reached, key=lambda each: each.order(seconds[each.file])):
        takes, group = seconds[each.file], together.get(PurePosixPath(each.file).stem, each.file)
        if each.tier and max((whole + takes) / CORES, parts[group] + takes) > budget:
            left.append(each.file)
            continue
        taken.append(each.file)
        whole += takes
        parts[group] += takes  # type: ignore[assignment]
    return taken, max([whole / CORES, *parts.values()]), left, sum(seconds[file] for file in left) / CORES


def main(arguments: list[str], root: Path = rules.ROOT) -> int:
    """Says what is run and what is left out, and runs it; with `--list` only lists it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="HEAD", help="a commit, such as origin/main for a whole branch")
    parser.add_argument("--list", action="store_true", help="print the test files and run nothing")
    options = parser.parse_args(arguments)
    try:
        files = changed_files(root, options.base)
    except subprocess.CalledProcessError as error:
        print(f"error: git knows no commit `{options.base}` ({error.stderr.strip()})", file=sys.stderr)
        return 2
    if not files:
        print(f"Nothing has changed since {options.base}.")
        return 0
    taken, takes, left, others = chosen(root, Repository(root).reached(files), BUDGET)
    for file in sorted(EVERYTHING & {*files}):
        print(f"Every test can depend on {file}; the quickest are run.")
    if any(file.startswith("page/") for file in files):
        print("`make test-page` tests the page in a browser.")
    print(f"{len(files)} files changed since {options.base}; {len(taken)} test files, about {takes:.0f} s.")
    if left:
        print(
            f"Left out: {len(left)} test files that the change can reach, about {others:.0f} s. `make test` runs all."
        )
    if options.list:
        print("\n".join(taken))
        return 0
    command = [sys.executable, "-m", "pytest", "-n", str(CORES), *taken]
    sys.stdout.flush()
    return subprocess.run(command, cwd=root, env=os.environ | {kept_run.VARIABLE: KEPT[1]}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
