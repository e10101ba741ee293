"""An opened model, from a GGUF file or a Hugging Face folder: its configuration, its tensors and its tokenizer.

Only JSON, safetensors and GGUF are read; no code from a model is executed.
"""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from riyaz import folders
from riyaz.errors import RiyazError, shown
from riyaz.sources import gguf, safetensors, sharded, store
from riyaz.sources.tensor_files import TensorInfo

if TYPE_CHECKING:
    from riyaz.text.tokenizer import Tokenizer

UNREAD_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx")
CONVERT = "convert it with `save_pretrained` of transformers, which writes safetensors"
MAX_JSON = 16 * 2**20
INDEX = "model.safetensors.index.json"
PRECISION = "riyaz_precision"  # key of config.json: how weights are held where the user leaves it to `auto`
EMBEDDERS = ("bert",)  # architectures that turn a text into a vector and generate nothing

WeightFile = gguf.GGUFFile | safetensors.SafetensorsFile


@dataclass(frozen=True)
class Source:
    """An opened model: `metadata` is config.json's or GGUF's, tensor names are those of the file format."""

    name: str
    path: Path
    format: str  # "gguf" or "hf"
    metadata: dict[str, Any] = field(repr=False)
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    files: tuple[WeightFile, ...] = field(repr=False)

    def array(self, name: str) -> np.ndarray:
        """The tensor's values in its shape: floats, or BF16 bits as uint16."""
        return next(file for file in self.files if name in file.tensors).array(name)

    def release(self) -> None:
        """Give back the memory of what was read: pages of a mapped file count as this process's. Arrays stay valid."""
        for file in self.files:
            if isinstance(file.data, mmap.mmap):
                file.data.madvise(mmap.MADV_DONTNEED)

    @property
    def architecture(self) -> object:
        """The architecture that the file names, such as "llama"; unchecked, so it may be of any type."""
        return self.metadata.get("general.architecture" if self.format == "gguf" else "model_type")

    @property
    def is_embedder(self) -> bool:
        """Whether the model is a text embedder (no language-model head, no chat template)."""
        return self.architecture in EMBEDDERS

    def expect_language_model(self) -> None:
        """Raises RiyazError when the model is an embedder."""
        if self.is_embedder:
            what = f"{self.name} is an embedder ({self.architecture}), not a language model"
            raise RiyazError(what, str(self.path), "give a language model, such as smollm2-135m")

    def tokenizer(self) -> "Tokenizer":
        """A language model's tokenizer. Raises RiyazError when it is missing, of an unsupported kind, or has ids
        without an embedding row."""
        from riyaz.sources.tokenizer_check import open_tokenizer  # a model is open before the tokenizers library is
        from riyaz.text.tokenizer import Tokenizer

        self.expect_language_model()
        if self.format == "gguf":
            tokenizer = Tokenizer.from_gguf(self.metadata, str(self.path))
            rows = self.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in self.tensors else None
        else:
            tokenizer, rows = open_tokenizer(self.path), self.metadata.get("vocab_size")
        if type(rows) is int:  # any other value is refused when the configuration is read
            _expect_rows(tokenizer, rows)
        return tokenizer

    def sha256(self) -> str:
        """SHA-256 of the weight files' bytes, concatenated in name order; cached in the store."""
        return store.file_hash([file.path for file in self.files])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as stored in the files."""
        return sum(info.nbytes for info in self.tensors.values())


def open_path(path: Path, name: str | None = None) -> Source:
    """Opens a GGUF file or a Hugging Face folder. Raises RiyazError for anything else and for damaged files."""
    path = Path(path)
    if not path.exists():
        raise RiyazError("no such file or folder", str(path))
    if path.is_dir():
        return _open_folder(path, name or path.resolve().name)
    if path.suffix == ".safetensors":
        hint = f"give the folder with its config.json: {path.parent}"
        raise RiyazError("a safetensors file alone is not a model", str(path), hint)
    if path.suffix in UNREAD_SUFFIXES:
        raise RiyazError("riyaz reads safetensors and GGUF only", str(path), CONVERT)
    file = gguf.read(path)
    return Source(name or path.stem, path, "gguf", file.metadata, file.tensors, (file,))


def is_intact(path: Path, sha256: str) -> bool:
    """Whether the model opens and its weights have this SHA-256."""
    try:
        return open_path(path).sha256() == sha256
    except RiyazError:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model's file. Raises RiyazError when unreadable, larger than 16 MiB or not an object."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise RiyazError(f"larger than {MAX_JSON} bytes", str(path))
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RiyazError(f"cannot be read: {error.strerror or error}", str(path)) from error
    except (ValueError, RecursionError) as error:
        raise RiyazError("not JSON", str(path), "the file is damaged; download it again") from error
    if not isinstance(value, dict):
        raise RiyazError("not a JSON object", str(path))
    return value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a Hugging Face folder. Raises RiyazError when there are none."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if (folder / INDEX).is_file():
        present = {path.name for path in folder.iterdir() if path.is_file()}
        names = sharded.shard_names(sharded.read_index(folder / INDEX), present, folder)
        return [folder / name for name in names]
    unread = sorted(path.name for path in folder.iterdir() if path.suffix in UNREAD_SUFFIXES)
    if unread:
        what = f"riyaz reads safetensors and GGUF only, not {shown(unread[0])}"
        raise RiyazError(what, str(folder), CONVERT)
    raise RiyazError("the folder holds no model.safetensors", str(folder), "give a model folder or a GGUF file")


def _expect_rows(tokenizer: "Tokenizer", rows: int) -> None:
    """Raises RiyazError when a text or a conversation can contain an id ≥ `rows`, the number of embedding rows.

    Control tokens that the template never writes, such as Gemma 3's image tokens, need no row.
    """
    if tokenizer.id_limit <= rows:
        return
    chat = [{"role": "system", "content": "An instruction."}, {"role": "user", "content": "A question?"}]
    written = {*tokenizer.render([chat])[0], *tokenizer.beginning, tokenizer.end_of_turn, tokenizer.end_of_text}
    if max(written | tokenizer.text_ids()) >= rows:
        what = f"the model has {rows:,} embedding rows, its tokenizer {tokenizer.id_limit:,} ids"
        hint = "the tokenizer belongs to another model, or the embedding was not resized for new tokens"
        raise RiyazError(what, tokenizer.where, hint)


def _open_folder(folder: Path, name: str) -> Source:
    if not (folder / "config.json").is_file():
        models = sorted(folder.glob("*.gguf"))
        if len(models) == 1:
            folders.expect_inside(folder, models)
            return open_path(models[0], name)
        if (folder / "adapter_config.json").is_file():
            raise RiyazError("this is an adapter, not a model", str(folder), "give the model it was made for")
        weight_files(folder)  # for unsupported weight formats this raises the more useful message
        raise RiyazError("the folder holds no config.json", str(folder), "give a model folder or a GGUF file")
    folders.expect_inside(folder, [folder / "config.json", folder / INDEX])
    config, weights = read_json(folder / "config.json"), weight_files(folder)
    folders.expect_inside(folder, weights)
    files = tuple(safetensors.read(path) for path in weights)
    single = (folder / "model.safetensors").is_file()
    tensors = sharded.merge(folder, files, None if single else sharded.read_index(folder / INDEX))
    return Source(name, folder, "hf", config, tensors, files)
