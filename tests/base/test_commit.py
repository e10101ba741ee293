"""The commit beside the version: from a wheel's file, from a clone's folder .git, or not known."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from riyaz import __version__, commit
from riyaz.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
HASH = "5ee4b896" * 5


def git_folder(clone: Path, head: str, **files: str) -> Path:
    """A clone's folder .git with what is read of it."""
    for name, text in {"HEAD": head, **files}.items():
        path = clone / ".git" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return clone


@pytest.mark.parametrize(
    ("head", "files", "wanted"),
    [
        (HASH, {}, HASH),
        ("ref: refs/heads/main\n", {"refs__heads__main": f"{HASH}\n"}, HASH),
        ("ref: refs/heads/main\n", {"packed-refs": f"# x\n{'1' * 40} refs/heads/x\n{HASH} refs/heads/main\n"}, HASH),
        ("ref: refs/heads/main\n", {}, ""),
        ("ref: refs/heads/main\n", {"packed-refs": "no hash refs/heads/main\n"}, ""),
        ("something else", {}, ""),
    ],
)  # fmt: skip
def test_a_clone_tells_its_commit(tmp_path: Path, head: str, files: dict[str, str], wanted: str) -> None:
    assert commit.commit_of(git_folder(tmp_path, head, **files)) == wanted


def test_this_clone_tells_what_git_says() -> None:
    said = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert commit.commit_of(ROOT) == said.stdout.strip()


def test_a_worktree_tells_its_own_commit(tmp_path: Path) -> None:
    clone, tree = git_folder(tmp_path / "clone", "1" * 40), tmp_path / "tree"
    git_folder(clone / ".git/worktrees", "x")
    tree.mkdir()
    own = clone / ".git/worktrees/.git"
    (own / "HEAD").write_text("ref: refs/heads/other\n")
    (own / "commondir").write_text("../..\n")
    (clone / ".git/refs/heads").mkdir(parents=True)
    (clone / ".git/refs/heads/other").write_text(HASH)
    (tree / ".git").write_text(f"gitdir: {own}\n")
    assert commit.commit_of(tree) == HASH


def test_a_wheel_tells_the_commit_of_its_file_and_another_folder_none(tmp_path: Path) -> None:
    package = tmp_path / "src/riyaz"
    package.mkdir(parents=True)
    git_folder(tmp_path, HASH)  # another project's, in which riyaz is installed
    assert commit.commit(package) == ""
    (package / commit.FILE).write_text(f"{HASH}\n")
    assert commit.commit(package) == HASH[:8]


def test_the_command_prints_version_and_commit(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"riyaz {commit.version_line(__version__)}\n"
    assert commit.commit() in commit.version_line(__version__)


def test_a_wheel_and_an_sdist_name_their_commit_and_leave_the_clone_as_it_was(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'native'); import build_backend as b; "
        f"b.build_wheel({str(tmp_path)!r}, {{'wheel.cmake': 'false'}}); b.build_sdist({str(tmp_path)!r})"
    )
    changed = (ROOT / "src/riyaz").stat().st_mtime_ns
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert (ROOT / "src/riyaz").stat().st_mtime_ns == changed, "a file was written into the clone, be it for a moment"
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"riyaz/{commit.FILE}").decode().strip() == commit.commit_of(ROOT)
    with tarfile.open(sdist) as archive:
        file = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/src/riyaz/{commit.FILE}")
        assert file is not None and file.read().decode().strip() == commit.commit_of(ROOT)
        held = [item.name for item in archive]
        assert len({*held}) == len(held) and any(name.endswith("/PKG-INFO") for name in held)
