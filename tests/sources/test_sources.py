"""Opening models by name and path, and the store they are kept in."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import assert_refused
from tiny_llama import Tiny, shard, weights, write_gguf, write_hf_folder

from riyaz import sources
from riyaz.errors import RiyazError
from riyaz.sources import Source, models, open_source, pull, safetensors, store


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty store, and an empty folder to work in."""
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_a_folder_and_a_gguf_file_of_one_model_say_the_same(tmp_path):
    folder = open_source(write_hf_folder(tmp_path / "hf"))
    file = open_source(str(write_gguf(tmp_path / "model.gguf")))
    assert (folder.name, folder.format, file.name, file.format) == ("hf", "hf", "model", "gguf")
    assert folder.nbytes == file.nbytes == sum(array.nbytes for array in weights(Tiny()).values())
    np.testing.assert_array_equal(folder.array("model.embed_tokens.weight"), file.array("token_embd.weight"))
    question = [[{"role": "user", "content": "where is my refund?"}]]
    assert folder.tokenizer().render(question) == file.tokenizer().render(question)
    assert len(repr(file)) < 200


def test_values_are_the_safetensors_values(tmp_path):
    for dtype in ("F32", "F16", "BF16"):
        source = open_source(write_hf_folder(tmp_path / dtype, dtype=dtype, seed=3))
        for name, array in weights(Tiny(seed=3)).items():
            ours = source.array(name)
            if dtype == "BF16":
                ours = (ours.astype(np.uint32) << 16).view(np.float32)
            np.testing.assert_allclose(ours, array, rtol=0.005, err_msg=name)


def test_released_arrays_are_out_of_memory_and_read_again(tmp_path):
    path = tmp_path / "model.safetensors"
    numbers = np.arange(2**20, dtype=np.float32)  # 4 MB
    safetensors.write(path, {"it": numbers})
    file = safetensors.read(path)
    source = Source("it", tmp_path, "hf", {}, file.tensors, (file,))

    def resident() -> int:
        """Kilobytes of the file's mapping that are in memory."""
        maps = Path("/proc/self/smaps").read_text().split(str(path))[1]
        return int(next(line for line in maps.splitlines() if line.startswith("Rss:")).split()[1])

    values = source.array("it")
    assert np.array_equal(values, numbers) and resident() >= 4096
    source.release()
    assert resident() < 1024
    assert np.array_equal(values, numbers)


def test_a_folder_with_one_gguf_file_opens_as_it(tmp_path):
    write_gguf(tmp_path / "folder" / "some.gguf")
    assert open_source(tmp_path / "folder").format == "gguf"


def test_sharded_weights(tmp_path):
    folder = write_hf_folder(tmp_path / "hf")
    shard(folder)
    source = open_source(folder)
    assert source.tensors.keys() == weights(Tiny()).keys()
    np.testing.assert_array_equal(source.array("model.norm.weight"), weights(Tiny())["model.norm.weight"])
    both = b"".join((folder / f"model-{part}-of-2.safetensors").read_bytes() for part in (1, 2))
    assert source.sha256() == hashlib.sha256(both).hexdigest()


OUTSIDE = ["../x.safetensors", "/etc/x.safetensors", "..", "a/b.safetensors", "a\\b.safetensors", "", "."]
OUTSIDE += ["C:x.safetensors", "x\0.safetensors", "x.safetensors.", "%2e%2e%2fx.safetensors", "x.bin"]
OUTSIDE += ["\u2024\u2024/x.safetensors", "-x.safetensors", "x.safetensors\n", 7, None, ["x.safetensors"]]


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_leads_to_bare_file_names_only(tmp_path, name):
    folder = write_hf_folder(tmp_path / "hf")
    shard(folder, extra=name)
    with assert_refused("weight_map", "'extra'", "not a plain file name"):
        open_source(folder)


def test_an_index_must_be_true(tmp_path):
    folder = write_hf_folder(tmp_path / "hf")
    shard(folder, extra="model-3-of-3.safetensors")
    with assert_refused("the index names 'model-3-of-3.safetensors', which is missing", "1 of 3 shards"):
        open_source(folder)
    (folder / "model-3-of-3.safetensors").write_bytes((folder / "model-1-of-2.safetensors").read_bytes())
    with assert_refused("is in two files, model-1-of-2.safetensors and model-3-of-3.safetensors"):
        open_source(folder)
    (folder / "model-3-of-3.safetensors").unlink()
    shard(write_hf_folder(tmp_path / "lying"), **{"model.norm.weight": "model-1-of-2.safetensors"})
    said = "maps tensor 'model.norm.weight' to model-1-of-2.safetensors, it is in model-2-of-2.safetensors"
    with assert_refused(said):
        open_source(tmp_path / "lying")
    shard(write_hf_folder(tmp_path / "more"), extra="model-1-of-2.safetensors")
    with assert_refused("maps tensor 'extra' to model-1-of-2.safetensors, it is in none"):
        open_source(tmp_path / "more")
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1-of-2.safetensors", "a": "model-2-of-2.safetensors"}}')
    with assert_refused("'a' appears twice in the index"):
        open_source(folder)
    index.write_text('{"weight_map": {"model.norm.weight": "model-2-of-2.safetensors"}}')
    with assert_refused("to no file, it is in model-2-of-2.safetensors"):
        open_source(folder)
    for text in ('{"weight_map": []}', "{}", "[]", "{"):
        (folder / "model.safetensors.index.json").write_text(text)
        with assert_refused("model.safetensors.index.json"):
            open_source(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt"])
def test_weights_that_could_run_code_are_refused(tmp_path, name):
    folder = write_hf_folder(tmp_path / "hf")
    (folder / "model.safetensors").rename(folder / name)
    for path in (folder, folder / name):
        with assert_refused("riyaz reads safetensors and GGUF only", name, "convert it with"):
            open_source(path)


def test_what_is_no_model(tmp_path):
    folder = write_hf_folder(tmp_path / "hf")
    with assert_refused("a safetensors file alone is not a model", "give the folder"):
        open_source(folder / "model.safetensors")
    with assert_refused("no such file or folder", "nowhere"):
        open_source(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with assert_refused("holds no model.safetensors"):
        open_source(folder)
    for text, said in (("{", "not JSON"), ("[1]", "not a JSON object"), ("[" * 10**5, "not JSON")):
        (folder / "config.json").write_text(text)
        with assert_refused("config.json", said):
            open_source(folder)
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")
    with assert_refused("an adapter, not a model"):
        open_source(folder)
    (tmp_path / "empty").mkdir()
    with assert_refused("holds no"):
        open_source(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("hello")
    with assert_refused("not a GGUF file", "notes.txt"):
        open_source(tmp_path / "notes.txt")
    bare = replace(open_source(write_gguf(tmp_path / "bare.gguf")), metadata={"general.architecture": "llama"})
    with assert_refused("bare.gguf: the file holds no tokenizer"):
        bare.tokenizer()


def test_unknown_names_list_the_known(tmp_path, monkeypatch):
    pull(str(write_gguf(tmp_path / "mine.gguf")))
    known = "known models: gemma3-270m, mine, minilm, qwen2.5-coder-0.5b, smollm2-135m"
    with assert_refused("unknown model 'smollm'", known):
        open_source("smollm")
    with assert_refused("run `riyaz pull smollm2-135m`"):
        open_source("smollm2-135m")
    with assert_refused("no such file or folder", "models/x.gguf"):
        open_source("models/x.gguf")
    hint = "no such file or folder; if it is a model of the Hugging Face hub, run `riyaz pull hf:Qwen/Qwen2.5-0.5B`"
    with assert_refused(f"Qwen/Qwen2.5-0.5B: {hint}"):
        open_source("Qwen/Qwen2.5-0.5B")
    (tmp_path / "Qwen").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RiyazError, match=r"no such file or folder$"):  # a path then
        open_source("Qwen/Qwen2.5-0.5B")
    stored = write_hf_folder(tmp_path / "qwen--qwen2.5-0.5b")
    pull(str(stored))
    assert open_source("Qwen/Qwen2.5-0.5B").name == "qwen--qwen2.5-0.5b"
    for hostile in ("../home/models", "x\x1b[31m", ""):
        with pytest.raises(RiyazError):
            open_source(hostile)


def test_the_hash_is_of_the_file_and_follows_a_change(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "m.gguf")
    first = open_source(path).sha256()
    assert first == hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(hashlib, "sha256", lambda data=b"", real=hashlib.sha256: NoUpdate(real(data)))
    assert open_source(path).sha256() == first  # remembered: nothing is read again
    monkeypatch.undo()
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    write_gguf(path, seed=1)
    assert open_source(path).sha256() == hashlib.sha256(path.read_bytes()).hexdigest() != first


class NoUpdate:
    """A hash that may be made but not fed."""

    def __init__(self, real):
        self.hexdigest = real.hexdigest


def test_a_damaged_record_names_itself(tmp_path, home):
    entry = pull(str(write_gguf(tmp_path / "m.gguf")))
    for text in ("{", "[]", "{}", '{"file": 1}'):
        (entry.path.parent / "entry.json").write_text(text)
        with assert_refused("entry.json", "damaged", "delete"):
            open_source("m")


def test_a_store_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "file" / "home"))
    with assert_refused("cannot be written"):
        pull(str(write_gguf(tmp_path / "m.gguf")))
    assert models() == [] and open_source(tmp_path / "m.gguf").sha256()


def test_the_home_follows_the_platform(monkeypatch):
    assert sources.home() == Path(os.environ["RIYAZ_HOME"])
    monkeypatch.delenv("RIYAZ_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setenv("HOME", "/home/me")
    for platform, folder in (("linux", "/cache/riyaz"), ("darwin", "/home/me/Library/Caches/riyaz")):
        monkeypatch.setattr(store.sys, "platform", platform)
        assert sources.home() == Path(folder)


def test_a_model_file_that_cannot_be_read_is_named_and_not_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    broken = tmp_path / "tokenizer.json"
    broken.symlink_to("/proc/self/mem")  # opens, and its first byte cannot be read
    with assert_refused(f"{broken}: cannot be read: Input/output error"), store.workspace() as folder:
        list(store.copy_file(broken, folder / "tokenizer.json"))
    with assert_refused(f"{tmp_path / 'home'}: cannot be written: "), store.workspace() as folder:
        list(store.copy_file(broken, folder / "x" / "y"))
