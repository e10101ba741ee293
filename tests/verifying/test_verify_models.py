"""`riyaz verify` of models by name, of weights in several files and in 8-bit floats, and of the hub's cache."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import tiny_llama
import torch
from tiny_comparison import command

from riyaz.sources import pull
from riyaz.verifying import verify

pytestmark = pytest.mark.usefixtures("own_store")
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_llama.write_hf_folder(tmp_path / "tiny-base")


def in_shards(folder: Path, kind: torch.dtype | None = None) -> list[Path]:
    """The weights of a folder in three files with an index, matrices as 8-bit floats where a kind is named."""
    whole = folder / "model.safetensors"
    weights = safetensors.torch.load_file(whole)
    whole.unlink()
    if kind is not None:
        weights = {name: each.to(kind) if each.ndim == 2 else each for name, each in weights.items()}
        weights["model.layers.0.mlp.up_proj.weight_scale_inv"] = torch.ones(1, 1)
    names, shards, where = sorted(weights), list[Path](), {}
    for number in range(3):
        shards.append(folder / f"model-{number + 1:05}-of-00003.safetensors")
        part = {name: weights[name].contiguous() for name in names[number::3]}
        safetensors.torch.save_file(part, shards[-1])
        where |= dict.fromkeys(part, shards[-1].name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return shards


def in_hub_cache(folder: Path, cache: Path) -> Path:
    """The snapshot of a folder as the hub's library keeps it: links to blobs that are named by their hashes."""
    blobs, snapshot = cache / "models--a--tiny" / "blobs", cache / "models--a--tiny" / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        content = file.read_bytes()
        name = hashlib.sha256(content).hexdigest()
        if file.suffix != ".safetensors":
            name = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        (blobs / name).write_bytes(content)
        os.symlink(Path("..", "..", "blobs", name), snapshot / file.name)
    return snapshot


def test_a_model_is_verified_by_its_name(folder: Path) -> None:
    stored = pull(str(folder))
    told = command("verify", stored.name)
    assert told.status == 0 and told.out.startswith("ok: model, ") and "1 hashes" in told.out, told.out + told.err
    content = bytearray((stored.path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    os.chmod(stored.path, 0o755)
    (stored.path / "model.safetensors").unlink()  # it may be a link to the folder's own
    (stored.path / "model.safetensors").write_bytes(content)
    told = command("verify", stored.name)
    assert told.status == 1 and "does not have its hash" in told.out


def test_a_folder_of_that_name_comes_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = pull(str(folder))
    (tmp_path / "here" / stored.name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert "holds nothing that riyaz verifies" in command("verify", stored.name).line


def test_an_unknown_name_is_one_line() -> None:
    told = command("verify", "no-such-model")
    assert told.status == 2 and "no model that riyaz models lists; name a model" in told.line


def test_shards_are_verified_each(folder: Path) -> None:
    count = verify(folder).counts["tensors finite"]
    shards = in_shards(folder)
    found = verify(folder)
    assert found.problems == [] and found.counts["tensors finite"] == count
    first = safetensors.torch.load_file(shards[1])
    name = min(first)
    first[name].view(-1)[3] = float("nan")
    safetensors.torch.save_file(first, shards[1])
    (problem,) = verify(folder).problems
    assert problem.file == shards[1].name and name in problem.what
    shards[2].unlink()
    assert "which is missing" in str(verify(folder).problems)


def test_an_index_that_lies_is_named(folder: Path) -> None:
    in_shards(folder)
    index = json.loads((folder / INDEX).read_text())
    name = min(index["weight_map"])
    index["weight_map"][name] = sorted(set(index["weight_map"].values()) - {index["weight_map"][name]})[0]
    (folder / INDEX).write_text(json.dumps(index))
    assert f"the index maps tensor {name!r}" in str(verify(folder).problems[0])


@pytest.mark.parametrize(("kind", "bits"), [(torch.float8_e4m3fn, 0x7F), (torch.float8_e5m2, 0x7C)])
def test_floats_of_8_bits_are_read(folder: Path, kind: torch.dtype, bits: int) -> None:
    shards = in_shards(folder, kind)
    found = verify(folder)
    assert found.problems == [] and found.counts["tensors finite"] > 10
    assert [each for each in found.unchecked if "riyaz runs no weights of type F8_" in each]
    told = command("verify", folder)
    assert told.status == 0 and "not checked: shapes against the configuration" in told.out
    weights = safetensors.torch.load_file(shards[0])
    name = next(name for name in sorted(weights) if weights[name].dtype == kind)
    weights[name].view(torch.uint8).view(-1)[5] = bits | 0x80
    safetensors.torch.save_file(weights, shards[0])
    (problem,) = verify(folder).problems
    assert problem.file == shards[0].name and problem.what == f"tensor {name!r} holds NaN or infinities"


def test_a_snapshot_of_the_hub_is_verified_by_the_names_of_its_blobs(folder: Path, tmp_path: Path) -> None:
    in_shards(folder)
    count = len([path for path in folder.iterdir() if path.is_file()])
    snapshot = in_hub_cache(folder, tmp_path / "hub")
    found = verify(snapshot)
    assert found.kind == "model" and found.problems == []
    assert found.counts["files"] == found.counts["hashes"] == count
    for name in ("config.json", "model-00002-of-00003.safetensors"):
        blob = (snapshot / name).resolve()
        whole = blob.read_bytes()
        blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if name != "config.json" else whole + b" ")
        (problem,) = verify(snapshot).problems
        assert problem.file == name and problem.what == "does not have its hash"
        blob.write_bytes(whole)
    assert verify(snapshot).problems == []


@pytest.mark.parametrize("target", ["/etc/hostname", "../../refs", "../../blobs/none"])
def test_a_link_of_a_snapshot_that_leads_elsewhere_is_named(folder: Path, tmp_path: Path, target: str) -> None:
    snapshot = in_hub_cache(folder, tmp_path / "hub")
    (snapshot / "more.txt").symlink_to(target)
    (problem,) = verify(snapshot).problems
    assert problem.file == "more.txt" and problem.what == "is a link out of the folder"


def test_numbers_of_an_unsigned_type_are_no_floats(folder: Path) -> None:
    """A tensor of bytes that look like NaN in 8-bit floats is what it says it is."""
    safetensors.torch.save_file({"bytes": torch.full((8,), 0x7F, dtype=torch.uint8)}, folder / "other.safetensors")
    assert verify(folder / "other.safetensors").problems == []
