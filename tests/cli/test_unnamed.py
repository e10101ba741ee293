"""An error of reading or writing an open file, which Python raises without its name, names the file."""

import errno
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from riyaz.cli.main import explain

BROKEN = Path("/proc/self/mem")  # opens, and its first byte cannot be read


def at_once(path: Path) -> None:
    path.read_bytes()


def by_lines(path: Path) -> None:
    with open(path, encoding="utf-8") as file:
        for _ in file:
            pass


def packed(path: Path) -> None:
    with gzip.open(path) as file:
        file.read()


@pytest.mark.parametrize("read", [at_once, by_lines, packed])
def test_a_file_that_cannot_be_read_is_named(read: Callable[[Path], None]) -> None:
    with pytest.raises(OSError) as raised:
        read(BROKEN)
    assert raised.value.filename is None
    assert explain(raised.value) == ("/proc/self/mem: input/output error", 2)


def test_two_files_that_may_be_meant_are_both_named(tmp_path: Path) -> None:
    def copied(source: Path, target: Path) -> None:
        with open(source, "rb") as whole, open(target, "wb") as copy:
            copy.write(whole.read())

    with pytest.raises(OSError) as raised:
        copied(BROKEN, tmp_path / "copy")
    assert explain(raised.value)[0] == f"/proc/self/mem or {tmp_path / 'copy'}: input/output error"


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ECONNREFUSED, "connection refused"),
        (errno.ENOSPC, "{}: no space left on device; free some space and run the same command again"),
    ],
)
def test_an_error_of_a_connection_names_no_file(number: int, line: str, tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised, open(tmp_path / "rows.jsonl", "w") as rows:
        raise OSError(number, {errno.ENOSPC: "No space left on device"}.get(number, "Connection refused"))
    assert explain(raised.value)[0] == line.format(rows.name)
