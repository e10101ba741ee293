"""A small form of the campaign against a server: one kill and one error of each moment, and what it refuses."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import campaign
import httpx
import pytest
import server
from running_command import wait_until


@pytest.mark.slow
def test_a_killed_server_starts_again_with_all_or_nothing_of_what_it_received(tmp_path: Path) -> None:
    root = tmp_path / "work"
    server.prepare(root)
    moments = [moment for moment in server.MOMENTS if moment.name in ("adapter", "upload")]
    cases = [server.run_case(moment, what, n, root) for moment, what, n in server.planned(moments, 1, 3, root)
             if what != server.CLOCKS[1]]  # fmt: skip
    assert [case.failure for case in cases] == [""] * 6, cases
    assert [(case.moment, case.what) for case in cases] == [
        ("adapter", "kill"), ("adapter", server.CLOCKS[0]), ("adapter", str(errno.EIO)),
        ("upload", "kill"), ("upload", server.CLOCKS[0]), ("upload", str(errno.ENOSPC)),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_campaign_that_is_stopped_leaves_no_server(tmp_path: Path) -> None:
    root = tmp_path / "work"
    server.prepare(root)
    command = [sys.executable, server.__file__, "--only", "adapter", "--most", "1", "--folder", str(root)]
    paths = os.pathsep.join(str(campaign.TESTS / name) for name in (".", "helpers", "torture"))
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}) as stopped:
            wait_until(lambda: processes_in(root) != [], 60)
            stopped.send_signal(number)
            assert stopped.wait(60) == 128 + number
        assert processes_in(root) == []


def processes_in(root: Path) -> list[str]:
    """The processes that live and work in a folder below this one."""
    living = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if Path(os.readlink(process / "cwd")).is_relative_to(root):
                living.append(process.name)
    return living


@pytest.mark.parametrize("content", [server.ROWS[:-1], b"", server.ROWS + b"x"])
def test_a_part_of_an_upload_is_a_failure(content: bytes, tmp_path: Path) -> None:
    server.expect_whole_or_absent(tmp_path)
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads/rows.jsonl").write_bytes(server.ROWS)
    server.expect_whole_or_absent(tmp_path)
    (tmp_path / "uploads/rows.jsonl").write_bytes(content)
    with pytest.raises(campaign.Failure, match="bytes, not 1,9"):
        server.expect_whole_or_absent(tmp_path)


def test_what_a_start_leaves_is_a_failure(tmp_path: Path) -> None:
    for name in ("whole", "whole.tmp", "case", "case.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "case/kept.sqlite-journal").touch()
    server.expect_nothing_left(tmp_path / "case", tmp_path / "whole", server.JOURNAL)
    for name in ("case/.rows.jsonl.riyaz-7.tmp", "case.tmp/riyaz-x"):
        (tmp_path / name).touch()
        with pytest.raises(campaign.Failure, match="left behind"):
            server.expect_nothing_left(tmp_path / "case", tmp_path / "whole", server.JOURNAL)
        (tmp_path / name).unlink()
    with pytest.raises(campaign.Failure, match=r"left behind in case: kept\.sqlite-journal"):
        server.expect_nothing_left(tmp_path / "case", tmp_path / "whole")


@pytest.mark.parametrize(("status", "message", "clear"), [
    (507, "rows.jsonl: the disk is full; free some space", True),
    (400, "desk: cannot be read (Input/output error)", True),
    (500, "an unexpected error", False), (404, "there is no file", False), (400, "", False), (400, "a\nb", False),
])  # fmt: skip
def test_an_error_comes_back_as_one_line(status: int, message: str, clear: bool) -> None:
    answered = httpx.Response(status, json={"error": {"message": message}})
    if clear:
        return server.expect_clear(answered)
    with pytest.raises(campaign.Failure):
        server.expect_clear(answered)
