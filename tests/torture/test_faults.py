"""A small form of the campaign of faults: one n of each kind in two quick verbs, and what the campaign refuses."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import campaign
import faults
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pull", "quantize"])
def test_a_fault_is_told_in_one_line_and_the_same_command_makes_the_same(name: str, tmp_path: Path) -> None:
    (verb,) = [verb for verb in campaign.VERBS if verb.name == name]
    root = tmp_path / "work"
    campaign.prepare(root, [verb])
    planned = list(faults.planned([verb], ["write", "sync", "rename", "open", "kill"], 1, 1, root))
    cases = [faults.run_case(*case, 1, root) for case in planned]
    assert [case.failure for case in cases] == [""] * len(cases)
    outcomes = {case.outcome for case in cases}
    assert outcomes <= {"told", "without", "killed"} and {"told", "killed"} <= outcomes, cases


@pytest.mark.parametrize(("status", "line", "kind"), [
    (2, "error: out/model.gguf: the disk is full; free some space", ""),
    (2, "error: out/model.gguf: Input/output error", ""),
    (2, "error: input/output error", "unclear"),
    (2, "error: out/model.gguf: cannot be written", "unclear"),
    (1, "error: out/model.gguf: the disk is full", "unclear"),
    (2, "Traceback\nerror: out/model.gguf: the disk is full", "unclear"),
    (2, "", "unclear"),
    (None, "", "hung"),
])  # fmt: skip
def test_an_error_names_the_file_and_the_reason_in_one_line(
    status: int | None, line: str, kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "case"
    campaign.beside(folder, "stderr").write_text(line)
    paths = [f"s {folder}.home/hashes/2c.json", f"w {folder}/out/.model.gguf.riyaz-71.tmp"]
    if not kind:
        return faults.expect_one_line(status, paths, folder)
    with pytest.raises(campaign.Failure) as raised:
        faults.expect_one_line(status, paths, folder)
    assert raised.value.kind == kind


def test_a_file_that_is_half_there_is_a_failure_but_for_verbs_that_go_on(tmp_path: Path) -> None:
    export, run = (next(verb for verb in campaign.VERBS if verb.name == name) for name in ("export", "run"))
    for name, text in (("whole", "all of it"), ("case", "all")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "out.bin").write_text(text)
    faults.expect_no_half(run, tmp_path / "whole", tmp_path / "case")
    with pytest.raises(campaign.Failure, match=r"out.bin has 3 bytes, not 9"):
        faults.expect_no_half(export, tmp_path / "whole", tmp_path / "case")


SCRIPT = """
import json, os, sys, time
told = []
for number in range(3):
    try:
        with open(f"part-{number}", "wb", buffering=0) as file:
            file.write(b"x")
            os.fsync(file.fileno())
        os.replace(f"part-{number}", f"whole-{number}")
        told.append("")
    except OSError as error:
        told.append(f"{error.errno} {error.filename or ''}")
print(json.dumps([told, time.time(), time.monotonic()]))
"""


def hit(folder: Path, kind: str, n: int, what: str, **more: str) -> tuple[int, list[str], float]:
    """A script that writes, syncs and renames three files, hit by one fault: (status, its errors, its time)."""
    state = folder.with_name("state")
    state.write_bytes(bytes(faults.STATE))
    variables = faults.variables(folder.parent, state, n, what, faults.KINDS[kind][0], folder)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, env=os.environ | variables | more, capture_output=True, text=True
    )
    told, now, _ = json.loads(ended.stdout) if ended.stdout else ([], 0.0, 0.0)
    return ended.returncode, told, now


@pytest.mark.parametrize("kind", ["write", "sync", "rename", "open"])
def test_the_library_fails_the_change_that_it_is_told_to(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    _, told, _ = hit(folder, kind, 2, str(errno.EDQUOT))
    assert [bool(each) for each in told] == [False, True, False] and told[1].startswith(f"{errno.EDQUOT} ")
    _, told, _ = hit(folder, kind, 2, str(errno.ENOSPC), FAULT_STAYS="1")
    assert [each.split()[0] if each else "" for each in told] == ["", str(errno.ENOSPC), str(errno.ENOSPC)]


def test_the_library_kills_before_the_change_and_moves_the_clock(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    status, _, _ = hit(folder, "rename", 2, "kill")
    assert status == -9 and sorted(os.listdir(folder)) == ["part-1", "whole-0"]
    _, _, quiet = hit(folder, "clock", 0, "clock:86400")
    _, _, moved = hit(folder, "clock", 3, "clock:86400")
    assert 86_000 < moved - quiet < 87_000
