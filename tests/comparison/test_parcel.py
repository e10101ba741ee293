"""Parcels: files as bytes, whatever the chunks; names that lead elsewhere and parcels that end early are refused."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from riyaz.comparison import parcel
from riyaz.comparison.parcel import files_below, packed, unpack
from riyaz.errors import RiyazError

FILES = {"fit.json": b"{}\n", "artifact/riyaz.json": b"\n" * 7, "openings/1e-05/state.safetensors": bytes(range(256))}


def cut(whole: bytes, size: int) -> Iterator[bytes]:
    for begin in range(0, len(whole), size):
        yield whole[begin : begin + size]
        yield b""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_bytes(content)
    return tmp_path / "from"


@pytest.mark.parametrize("size", [1, 3, 64, 10**6])
def test_what_is_unpacked_is_what_was_packed(
    folder: Path, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcel, "CHUNK", 5)
    (folder / ".artifact.riyaz-12345678").mkdir()
    (folder / ".artifact.riyaz-12345678/half").write_bytes(b"half")
    (folder / "link").symlink_to("/etc/hosts")
    files: dict[str, Path | bytes] = {**files_below(folder), "empty.txt": b""}
    names = unpack(cut(b"".join(packed(files)), size), tmp_path / "to")
    assert set(names) == {*FILES, "empty.txt"}
    for name, content in FILES.items():
        assert (tmp_path / "to" / name).read_bytes() == content
    assert (tmp_path / "to/empty.txt").read_bytes() == b""


def test_files_come_in_their_order(folder: Path, tmp_path: Path) -> None:
    files: dict[str, Path | bytes] = {"b": b"1", "a": b"2"}
    assert unpack(packed(files), tmp_path / "to") == ["b", "a"]


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "", "a//b", ".hidden", "a\\b", "a/.."])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    head = json.dumps({"files": [["fine", 1], [name, 1]]}).encode()
    with pytest.raises(RiyazError, match="is not the name of a file below a folder"):
        unpack([head + b"\nxy"], tmp_path / "to")
    assert not (tmp_path / "to").exists(), "nothing is written before all names are read"


@pytest.mark.parametrize(
    ("chunks", "what"),
    [
        ([], "ends before its last file"),
        ([b'{"files": [["a", 4]]}\n', b"xyz"], "ends before its last file"),
        ([b'{"files": [["a", -1]]}\n'], "lists what is no file"),
        ([b'{"files": [["a", true]]}\n'], "lists what is no file"),
        ([b'{"files": {}}\n'], "lists no files"),
        ([b"[]\n"], "lists no files"),
        ([b"\xff\n"], "is damaged"),
    ],
)
def test_a_damaged_parcel_is_one_line(tmp_path: Path, chunks: list[bytes], what: str) -> None:
    with pytest.raises(RiyazError, match=what):
        unpack(chunks, tmp_path / "to")
    assert not (tmp_path / "to/a").exists(), "no file is half-written"


def test_a_first_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "MAX_JSON", 100)
    with pytest.raises(RiyazError, match="longer than 100 bytes"):
        unpack(iter(lambda: b"x" * 64, None), tmp_path)
