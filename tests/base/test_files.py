"""Whole files or none, strict JSON, one line for what is damaged, one process in a folder."""

import errno
import io
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from refusals import assert_refused

from riyaz import files, json_files, system
from riyaz.errors import RiyazError
from riyaz.limits.limits_file import artifact_hash


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    json_files.write_json(path, {"n": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writes: list[Callable[[], None]] = [
        lambda: json_files.write_json(path, {"n": 2}),
        lambda: json_files.write_lines(path, [{"n": 2}]),
        lambda: files.write_text(path, "2"),
        lambda: files.write_bytes(path, b"2"),
    ]
    for write in writes:
        with monkeypatch.context() as patch, assert_refused("the disk is full", str(path)):
            patch.setattr(files.os, "fsync", full)
            write()
    assert os.listdir(tmp_path) == ["a.json"] and json_files.read_json(path) == {"n": 1}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with assert_refused("cannot be written", str(tmp_path / "file")):
        json_files.write_json(tmp_path / "file" / "a.json", 1)


def test_links_devices_and_pipes_are_neither_replaced_nor_followed(tmp_path: Path) -> None:
    mine, link, pipe = tmp_path / "mine", tmp_path / "a.json", tmp_path / "pipe"
    mine.write_text("mine")
    link.symlink_to(mine)
    os.mkfifo(pipe)
    for path, what in (
        (link, f"is a link to {mine}, which is neither followed nor replaced; name"),
        (pipe, "a named pipe"),
    ):
        writes: list[Callable[[], object]] = [
            lambda path=path: json_files.write_json(path, 1),
            lambda path=path: json_files.write_lines(path, [1]),
            lambda path=path: files.write_text(path, "2"),
            lambda path=path: files.write_bytes(path, b"2"),
            lambda path=path: files.write_synced(path, [b"2"]),
            lambda path=path: json_files.Lines(path).add({"step": 1}),
        ]  # fmt: skip
        for write in writes[: 5 if path == pipe else 6]:
            with assert_refused(str(path), what):
                write()
    with assert_refused("/dev/null: is a device, not a file; choose another place"):
        files.write_text(Path("/dev/null"), "2")
    assert (
        mine.read_text() == "mine" and link.is_symlink() and sorted(os.listdir(tmp_path)) == ["a.json", "mine", "pipe"]
    )


def test_json_is_strict_and_keeps_every_text(tmp_path: Path) -> None:
    value = {"nan": math.nan, "list": [math.inf, (1.5, -math.inf)], "text": "é\ud800", "path": Path("x")}
    expected = {"nan": None, "list": [None, [1.5, None]], "text": "é\ud800", "path": "x"}
    json_files.write_json(tmp_path / "made" / "a.json", value)
    assert (tmp_path / "made" / "a.json").read_bytes().endswith(b'\n  "path": "x"\n}\n')
    assert json_files.read_json(tmp_path / "made" / "a.json") == expected
    assert json_files.to_json(np.array([1.0, math.nan])) == "[1.0, null]" and json_files.to_json({2, 1}) == "[1, 2]"
    assert json_files.to_json("é") == '"é"' and json_files.to_json("é", ascii=True) == '"\\u00e9"'
    assert json_files.to_json(math.inf, strict=False) == "Infinity"
    with pytest.raises(TypeError):
        json_files.to_json(object())


def test_lines_come_back_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"a": "x\ny\u2028z\x85"}, 2, None]
    json_files.write_lines(path, rows)
    assert list(json_files.read_lines(path)) == [(f"{path}:{n}", row) for n, row in enumerate(rows, 1)]
    path.write_bytes(b"")
    assert list(json_files.read_lines(path)) == []
    path.write_bytes(b'1\n{"a"\n')
    with assert_refused("a.jsonl:2: is damaged", "mend it"):
        list(json_files.read_lines(path, "mend it"))
    path.write_bytes(b"1\n\n2\n")
    with assert_refused("a.jsonl:2: is damaged"):
        list(json_files.read_lines(path))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "a.json:1: is damaged (Expecting value); hint"),
        (b'{\n "a": 1,\n "b" 2}', "a.json:3: is damaged (Expecting ':' delimiter); hint"),
        (b'{"a":\n "\xff"}', "a.json:2: is damaged (not UTF-8); hint"),
        (b"[" * 100_000 + b"]" * 100_000, "a.json: is damaged (nested too deep); hint"),
        (b"9" * 10_000, "a.json: is damaged (Exceeds the limit"),
        (b"\xef\xbb\xbf{}", "a.json:1: is damaged (Unexpected UTF-8 BOM (decode using utf-8-sig)); hint"),
        (None, "a.json: cannot be read (No such file or directory); hint"),
    ],
    ids=["empty", "syntax", "utf-8", "deep", "long", "bom", "missing"],
)
def test_what_is_no_json_is_one_line(tmp_path: Path, content: bytes | None, line: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RiyazError) as error:
        json_files.read_json(tmp_path / "a.json", "hint")
    assert str(error.value).startswith(f"{tmp_path}/{line}")


@dataclass(frozen=True)
class Inner:
    count: int
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: str
    share: float | None = None
    inner: Inner | None = None
    pairs: tuple[tuple[str, int], ...] = ()
    parts: list[Inner] = field(default_factory=list)
    table: dict[str, float] = field(default_factory=dict)
    either: int | str = 0
    anything: Any = None


def test_a_typed_document_is_read_as_it_was() -> None:
    document = {
        "name": "x", "share": 1, "inner": {"count": 2, "kind": "b"}, "pairs": [["a", 1]], "parts": [{"count": 3}],
        "table": {"k": 0.5}, "either": "two", "anything": [{}],
    }  # fmt: skip
    expected = Outer("x", 1, Inner(2, "b"), (("a", 1),), [Inner(3)], {"k": 0.5}, "two", [{}])
    assert json_files.from_json(Outer, document, "here") == expected
    assert json_files.from_json(Outer, {"name": "x", "share": math.nan}, "here").share is None
    assert json_files.from_json(Outer, {"name": "x", "new": 1}, "here", unknown=True) == Outer("x")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"name": 1}, "name is '1'"),
        ({"share": "much"}, """share is "'much'\""""),
        ({"share": True}, "share is 'True'"),
        ({"share": 10**400}, "share is '1000"),
        ({"inner": [1]}, "inner is not an object"),
        ({"inner": {}}, "inner.count is missing"),
        ({"inner": {"count": 1.5}}, "inner.count is '1.5'"),
        ({"inner": {"count": 1, "kind": "c"}}, """inner.kind is "'c'\""""),
        ({"pairs": [["a"]]}, "pairs[0] is"),
        ({"pairs": [["a", "b"]]}, "pairs[0][1] is"),
        ({"parts": [{"count": 1}, {}]}, "parts[1].count is missing"),
        ({"table": {"k": None}}, "table.k is 'None'"),
        ({"either": []}, "either is '[]'"),
        ({"new": 1}, "unknown key 'new'"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(change: dict[str, Any], what: str) -> None:
    with assert_refused(f"a.json: {what}"):
        json_files.from_json(Outer, {"name": "x"} | change, "a.json")
    with assert_refused("a.json: the document is not an object"):
        json_files.from_json(Outer, [], "a.json")


def test_what_a_killed_write_left_is_swept_by_the_next_one_in_that_folder(tmp_path: Path) -> None:
    """Only regular files with riyaz's own name for them that no living process made or holds; everything else stays."""
    write = "import os, signal, sys; from pathlib import Path; from riyaz.files import atomic_file\n"
    write += "with atomic_file(Path(sys.argv[1])) as file: file.write(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    killed = subprocess.run([sys.executable, "-c", write, str(tmp_path / "a.json")], check=False)
    (left,) = tmp_path.iterdir()
    assert killed.returncode == -signal.SIGKILL and left.name.startswith(".a.json.riyaz-") and left.suffix == ".tmp"
    dead = left.stem.partition("-")[2]
    kept = {
        f".a.json.riyaz-{os.getppid()}.tmp", f".a.json.riyaz-x{dead}.tmp", f".a.json.riyaz-{dead}.tmp.json",
        f"a.json.riyaz-{dead}.tmp", ".a.json.riyaz-99999999999999999999.tmp", f".a.json.riyaz-0{dead}.tmp",
        f".a.json.{dead}.tmp", f".held.riyaz-{dead}.tmp", f".link.riyaz-{dead}.tmp", f".folder.riyaz-{dead}.tmp",
    }  # fmt: skip
    for name in kept:
        (tmp_path / name).write_text("x")
    for name in ("link", "folder"):
        (tmp_path / f".{name}.riyaz-{dead}.tmp").unlink()
    (tmp_path / f".link.riyaz-{dead}.tmp").symlink_to("elsewhere")
    (tmp_path / f".folder.riyaz-{dead}.tmp").mkdir()
    with (tmp_path / f".held.riyaz-{dead}.tmp").open() as held:  # as by a process of another container
        assert system.try_lock(held)
        files.write_text(tmp_path / "b.json", "new")
        assert {path.name for path in tmp_path.iterdir()} == {*kept, "b.json"}
    files.write_text(tmp_path / "b.json", "newer")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "b.json"} - {f".held.riyaz-{dead}.tmp"}


def test_a_file_that_is_being_written_is_held(tmp_path: Path) -> None:
    with files.atomic_file(tmp_path / "a.json") as file:
        (being_written,) = tmp_path.iterdir()
        with being_written.open() as other:
            assert not system.try_lock(other)
        file.write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


class Unreadable(io.BytesIO):
    """A file on a disk that is failing."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_read_that_fails_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.open", lambda *given, **options: Unreadable())
    with pytest.raises(OSError, match=r"Input/output error: 'a.bin'"):
        list(files.chunks(Path("a.bin")))
    with pytest.raises(OSError, match=r"Input/output error: 'a/riyaz.json'"):
        artifact_hash(Path("a"))
