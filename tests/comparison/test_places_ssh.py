"""A comparison at a place behind a real sshd, on a port of its own; skipped where openssh-server is not installed."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_comparison
from tiny_comparison import command

from riyaz.results import Comparison

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """The command that leads to this machine by its own sshd, with keys of this test alone."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs sshd and ssh (apt-get install openssh-server)")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "own"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True)
    shutil.copy(keys / "own.pub", keys / "authorized")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = [f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {keys / 'host'}", "PidFile none", "UsePAM no",
                f"AuthorizedKeysFile {keys / 'authorized'}", "StrictModes no", "PasswordAuthentication no",
                f"SetEnv PYTHONPATH={os.pathsep.join(path for path in sys.path if path)}"]  # fmt: skip
    (keys / "sshd_config").write_text("\n".join(settings) + "\n")
    daemon = subprocess.Popen([SSHD, "-D", "-e", "-f", str(keys / "sshd_config")], stderr=(keys / "log").open("wb"))
    words = ["ssh", "-p", str(port), "-i", str(keys / "own"), "-F", "none", "-o", "BatchMode=yes",
             "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={keys / 'known'}",
             f"{getpass.getuser()}@127.0.0.1"]  # fmt: skip
    try:
        for _ in range(100):
            if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.2)
        else:
            raise AssertionError((keys / "log").read_text())
        yield " ".join(words)
    finally:
        daemon.terminate()
        daemon.wait()


def test_an_arm_is_fitted_behind_ssh(host: str, asked: tuple, tmp_path: Path) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    out = tmp_path / "out"
    told = command("compare", tmp_path / "data", *asked, "--methods", "nearest,lora", "--places", host, "--out", out)
    assert told.status == 0, told.err
    comparison = Comparison.read(out / "compare.json")
    assert [(arm.status, arm.place) for arm in comparison.arms] == [("ok", host)] * 2, told.err
    assert {turn.place for turn in comparison.schedule or [] if turn.work == "evaluate"} == {"here"}
