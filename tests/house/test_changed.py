"""What a change reaches by imports, by names and by its place is tested first, as far as three minutes go."""

import json
import re
import subprocess
import sys
from pathlib import Path

import changed
import pytest
from changed import Reached, Repository

ROOT = changed.rules.ROOT
TEST = "def test_a():\n    assert True\n"
FILES = {
    "src/riyaz/__init__.py": "",
    "src/riyaz/errors.py": "",
    "src/riyaz/native.py": "from riyaz import _native",
    "src/riyaz/data/__init__.py": "from .rows import read_rows\nfrom .split import deal",
    "src/riyaz/data/rows.py": "from ..errors import fail",
    "src/riyaz/data/split.py": "",
    "src/riyaz/data/words.txt": "a",
    "src/riyaz/engine/__init__.py": "from riyaz import native",
    "src/riyaz/methods/__init__.py": "from pkgutil import iter_modules",
    "src/riyaz/methods/lora.py": "",
    "src/riyaz/serve/__init__.py": "",
    "src/riyaz/serve/app.py": "def answer():\n    from riyaz.data import read_rows",
    "src/riyaz/cli/__init__.py": "COMMANDS = ['riyaz.serve.app:serve']",
    "native/engine/cache.cpp": "",
    "docs/serving.md": "",
    "docs/data.md": "",
    "examples/a/README.md": "",
    "README.md": "",
    "Makefile": "",
    "benchmarks/speed.py": "",
    "tests/conftest.py": "import pytest\nfrom riyaz.serve import app\nimport tiny_model\n"
    "GROUPS = (('app', 'page'), (*('cli',), 'other'))\n"
    "def made(): return tiny_model\n@pytest.fixture\ndef model(): return made()\n"
    "@pytest.fixture\ndef server(model): return app",
    "tests/helpers/tiny_model.py": "import riyaz.engine",
    "tests/data/test_rows.py": "from riyaz.data import read_rows",
    "tests/data/test_split.py": "from riyaz.data import deal",
    "tests/serve/test_app.py": "def test_b(server): assert server",
    "tests/serve/test_page.py": "import pathlib\nPAGE = pathlib.Path('docs') / 'serving.md'",
    "tests/methods/test_methods.py": "import riyaz.methods",
    "tests/cli/test_cli.py": "RUN = 'import sys; from riyaz.cli import main'",
    "tests/cli/test_first.py": "README = ROOT / 'README.md'",
    "tests/engine/test_engine.py": "import tiny_model",
    "tests/native/test_native.py": "",
    "tests/benchmarks/test_speed.py": "SCRIPT = 'benchmarks/speed.py'",
    "tests/house/test_architecture.py": "",
    "tests/house/test_tree.py": "",
    "tests/house/test_docs.py": "",
}
HOUSE = ["architecture", "tree"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository that git knows."""
    folder = tmp_path_factory.mktemp("repository")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n" + (TEST if "/test_" in name else ""))
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], commit("first")):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def commit(message: str) -> list[str]:
    return ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-a", "-m", message]


# What changed -> the tests that it reaches, as `place:steps name`, those of the house rules left out.
REACHES = {
    "src/riyaz/errors.py": "3:2 rows 3:3 split 3:4 cli 3:4 app",  # no folder tests/base here
    "src/riyaz/data/rows.py": "1:1 rows 1:2 split 3:3 cli 3:3 app",
    "src/riyaz/data/split.py": "1:1 split 1:2 rows 3:4 cli 3:4 app",
    "src/riyaz/data/words.txt": "1:1 rows 1:1 split 3:3 cli 3:3 app",
    "src/riyaz/data/gone.py": "1:1 rows 1:1 split 3:3 cli 3:3 app",
    "src/riyaz/methods/lora.py": "1:2 methods",
    "src/riyaz/serve/app.py": "1:2 app 1:99 page 3:2 cli",
    "native/engine/cache.cpp": "1:3 engine 1:99 native 3:6 app",
    "docs/serving.md": "1:99 docs 2:1 page",
    "README.md": "1:99 docs 2:1 first",
    "examples/a/README.md": "1:99 docs",
    "benchmarks/speed.py": "2:1 speed",
    "tests/helpers/tiny_model.py": "2:1 engine 3:4 app",
    "tests/serve/test_page.py": "0:0 page",
}


@pytest.mark.parametrize("file", REACHES)
def test_a_change_reaches_tests(root: Path, file: str) -> None:
    found = sorted(Repository(root).reached([file]), key=lambda each: each.order(0.0))
    names = [(each, Path(each.file).stem.removeprefix("test_")) for each in found]
    assert [name for each, name in names[:3] if each.tier == 0 and name in HOUSE] == HOUSE
    assert " ".join(f"{each.tier}:{each.distance} {name}" for each, name in names if name not in HOUSE) == REACHES[file]


@pytest.mark.parametrize("file", ["Makefile", "tests/conftest.py"])
def test_what_every_test_can_depend_on_reaches_all(root: Path, file: str) -> None:
    repository = Repository(root)
    assert {each.file for each in repository.reached([file])} == {*repository.tests}


def test_what_no_test_names_reaches_the_house_rules_alone(root: Path) -> None:
    assert {each.file for each in Repository(root).reached(["LICENSE"])} == {*changed.ALWAYS}


def reach(file: str, tier: int, distance: int = 1) -> Reached:
    return Reached(f"tests/{file}.py", tier, distance)


def timed(root: Path, **seconds: float) -> Path:
    """A repository in which test files take so long, as a run before it says; GROUPS holds `app` and `page`."""
    (root / ".make").mkdir()
    (root / "tests").mkdir()
    (root / "tests/conftest.py").write_text("GROUPS = (('app', 'page'), (*('cli',), 'other'))\n")
    tests = {f"tests/test_{name}.py::test_a": {"outcomes": {}, "seconds": value} for name, value in seconds.items()}
    (root / ".make/run.json").write_text(json.dumps({"status": 0, "tests": tests}))
    for name in seconds:
        (root / f"tests/test_{name}.py").touch()
    return root


def test_the_nearest_that_fit_are_chosen(tmp_path: Path) -> None:
    root = timed(tmp_path, mine=500, home=90, near=120, quick=20, far=100, last=30)
    reached = [reach("test_last", 3, 4), reach("test_far", 3, 3), reach("test_near", 2), reach("test_quick", 2)]
    reached += [reach("test_home", 1), reach("test_mine", 0)]
    taken, takes, left, others = changed.chosen(root, reached, budget=100)
    assert (taken, takes) == (["tests/test_mine.py"], 500), "what was changed itself is always run"
    assert len(left) == 5 and others == 180
    taken, takes, left, others = changed.chosen(root, reached[:-1], budget=100)
    assert taken == ["tests/test_home.py", "tests/test_quick.py", "tests/test_last.py"] and takes == 90
    assert left == ["tests/test_near.py", "tests/test_far.py"] and others == 110


def test_what_one_process_runs_together_counts_together(tmp_path: Path) -> None:
    root = timed(tmp_path, app=60, page=60, other=60)
    taken, takes, left, _ = changed.chosen(
        root, [reach("test_app", 1), reach("test_page", 1), reach("test_other", 1)], 100
    )
    assert taken == ["tests/test_app.py", "tests/test_other.py"] and takes == 60 and left == ["tests/test_page.py"]


def test_seconds_are_those_of_the_latest_run_and_else_the_size_says_them(tmp_path: Path) -> None:
    root = timed(tmp_path, old=3, both=5)
    newer = {"tests/test_both.py::test_a": {"outcomes": {}, "seconds": 1.0}}
    newer["tests/test_both.py::test_b"] = {"outcomes": {}, "seconds": 1.5}
    (root / ".make/changed.json").write_text(json.dumps({"status": 0, "tests": newer}))
    (root / "tests/test_new.py").write_text("#" * 3 * changed.BYTES_A_SECOND)
    names = [f"tests/test_{name}.py" for name in ("old", "both", "new")]
    assert [*changed.seconds_of(root, names).values()] == [3.0, 2.5, 3.0]


def test_changed_files_are_those_of_the_branch_and_those_that_git_does_not_know(root: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(root), str(tmp_path / "clone")], check=True)
    clone = tmp_path / "clone"
    assert changed.changed_files(clone, "HEAD") == []
    (clone / "README.md").write_text("new")
    (clone / "docs/data.md").rename(clone / "docs/räume.md")
    assert changed.changed_files(clone, "HEAD") == ["README.md", "docs/data.md", "docs/räume.md"]
    subprocess.run(["git", *commit("second")], cwd=clone, check=True)
    assert changed.changed_files(clone, "HEAD") == ["docs/räume.md"]
    assert changed.changed_files(clone, "HEAD~1") == ["README.md", "docs/data.md", "docs/räume.md"]
    # What the base has gained since is no change of this branch.
    (root / "README.md").write_text("newer")
    subprocess.run(["git", *commit("other")], cwd=root, check=True)
    subprocess.run(["git", "fetch", "-q"], cwd=clone, check=True)
    assert changed.changed_files(clone, "origin/main") == ["README.md", "docs/data.md", "docs/räume.md"]
    subprocess.run(["git", "reset", "-q", "--hard", "HEAD~1"], cwd=root, check=True)


def said(capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> tuple[int, list[str], str]:
    status = changed.main([*arguments], root)
    told = capsys.readouterr()
    return status, told.out.splitlines(), told.err


def test_the_command_says_what_it_runs_and_what_it_leaves_out(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, root) == (0, ["Nothing has changed since HEAD."], "")
    status, out, err = said(capsys, root, "nowhere")
    assert status == 2 and out == [] and err.startswith("error: git knows no commit `nowhere`")
    (root / "src/riyaz/serve/new.py").touch()
    (root / "Makefile").write_text("#")
    monkeypatch.setattr(changed, "BUDGET", 0.05)
    monkeypatch.setattr(changed, "BYTES_A_SECOND", 1000)
    (root / "tests/serve/test_app.py").write_text("#" * 10_000)
    started: list[tuple[list[str], str]] = []
    ended = subprocess.CompletedProcess([], 5)
    run = subprocess.run

    def pytest_run(command: list[str], **known: object) -> subprocess.CompletedProcess:
        if "pytest" not in command:
            return run(command, **known)  # type: ignore[call-overload]
        started.append((command, known["env"][changed.kept_run.VARIABLE]))  # type: ignore[index]
        return ended

    monkeypatch.setattr(changed.subprocess, "run", pytest_run)
    try:
        status, out, err = said(capsys, root)
    finally:
        run(["git", "checkout", "-q", "."], cwd=root, check=True)
        (root / "src/riyaz/serve/new.py").unlink()
    assert status == 5
    assert out[0] == "Every test can depend on Makefile; the quickest are run."
    assert re.fullmatch(r"3 files changed since HEAD; \d+ test files, about 10 s\.", out[1])
    assert re.fullmatch(
        r"Left out: \d+ test files that the change can reach, about \d+ s\. `make test` runs all\.", out[2]
    )
    command, kept = started[0]
    assert command[:5] == [sys.executable, "-m", "pytest", "-n", "2"] and kept == ".make/changed.json"
    assert "tests/serve/test_app.py" in command[5:8], "it was changed itself"


def test_every_room_and_place_of_this_repository_has_tests() -> None:
    repository = Repository(ROOT)
    rooms = {repository.rooms(path.relative_to(ROOT).as_posix())[0]: name for name, path in repository.known.items()}
    assert [f"{name}: {room}" for room, name in rooms.items() if not [*(ROOT / room).glob("test_*.py")]] == []
    for start, places in changed.PLACES.items():
        assert (ROOT / start).exists() and all((ROOT / place).exists() for place in places), start
    assert all((ROOT / name).exists() for name in (*changed.EVERYTHING, *changed.ALWAYS, *changed.DOCS))
    assert len(changed.groups(ROOT)) > 10, "GROUPS of tests/conftest.py has another form"


def test_the_tests_of_this_repository_are_reached() -> None:
    repository = Repository(ROOT)
    found = {each.file: each for each in repository.reached(["src/riyaz/engine/sampling.py"])}
    assert found["tests/engine/test_sampling.py"].distance == 1
    assert len(found) > 100, "by way of the command line, a fixture and helpers nearly all are reached"
    assert "conftest:compared" in repository.needs["conftest:quick"], "by a fixture of tests/conftest.py"
    assert "tests/helpers/tiny_comparison.py" in repository.needs["conftest:compared"]
