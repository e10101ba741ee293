"""The Makefile's installation, with a Python that stands for pip: one line on the terminal, the rest in a log."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = """#!/bin/sh
[ "$1" = -c ] && exit 0
i=0; while [ $i -lt 300 ]; do i=$((i + 1)); echo "Collecting package-$i"; done
echo "asked for $*"; echo "ERROR: no space" >&2
exit STATUS
"""
INSTALLING = (
    "installing '.[{}]', minutes the first time, up to 3 of them to build the C++ engine (log: .make/pip.log)\n"
)


def make(folder: Path, target: str, status: int) -> subprocess.CompletedProcess:
    """`make TARGET` where pip says 300 lines and ends with `status`."""
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").touch()
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PIP.replace("STATUS", str(status)))
    python.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", target], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(("target", "extras"), [(".make/train", "train,docs,data,hub,json"),
                                                (".make/test", "train,docs,data,hub,json,test")])  # fmt: skip
def test_an_installation_is_one_line_and_its_log_is_kept(tmp_path: Path, target: str, extras: str) -> None:
    done = make(tmp_path, target, 0)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == INSTALLING.format(extras)
    log = (tmp_path / ".make/pip.log").read_text().splitlines()
    assert log[299:] == [
        "Collecting package-300",
        f"asked for -m pip install --disable-pip-version-check --no-color -e .[{extras}]",
        "ERROR: no space",
    ]
    assert (tmp_path / target).exists() and (tmp_path / ".make/train").exists()


def test_when_pip_fails_its_last_lines_are_shown_and_nothing_counts_as_installed(tmp_path: Path) -> None:
    done = make(tmp_path, ".make/test", 7)
    assert done.returncode == 2 and "Error 7" in done.stderr
    lines = done.stderr.splitlines()
    assert "ERROR: no space" in lines and "error: pip failed; the whole log is .make/pip.log" in lines
    assert len(lines) < 20 and len(done.stdout.splitlines()) == 1
    assert not (tmp_path / ".make/test").exists() and (tmp_path / ".make/pip.log").exists()
