"""Weights in several safetensors files (shards): reads the index and checks that it matches the files.

The index is Hugging Face's model.safetensors.index.json, whose `weight_map` maps each tensor to its file. File names
with a path in them are refused, so that no file outside the folder is read.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riyaz.errors import RiyazError, shown
from riyaz.sources.safetensors import SafetensorsFile
from riyaz.sources.tensor_files import TensorInfo

MAX_INDEX = 16 * 2**20
MAX_SHARDS = 1000
BARE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
AGAIN = "download the folder again"


def read_index(path: Path) -> dict[str, str]:
    """Tensor name -> file name. Raises RiyazError for a file name with a path and for a tensor listed twice."""
    try:
        if path.stat().st_size > MAX_INDEX:
            raise RiyazError(f"larger than {MAX_INDEX} bytes", str(path))
        text = path.read_text(encoding="utf-8")
        index = json.loads(text, object_pairs_hook=lambda pairs: _without_duplicates(path, pairs))
    except OSError as error:
        raise RiyazError(f"cannot be read: {error.strerror or error}", str(path)) from error
    except (ValueError, RecursionError) as error:
        raise RiyazError("not JSON", str(path), "the file is damaged; download it again") from error
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names:
        raise RiyazError("weight_map is missing or not an object", str(path))
    for tensor, name in names.items():
        if not isinstance(name, str) or not BARE.fullmatch(name):
            what = f"weight_map maps {shown(tensor)} to {shown(str(name))}, which is not a plain file name"
            raise RiyazError(what, str(path))
    if len(set(names.values())) > MAX_SHARDS:
        raise RiyazError(f"more than {MAX_SHARDS} files", str(path))
    return names


def shard_names(index: dict[str, str], present: Sequence[str] | set[str], where: Path | str) -> list[str]:
    """The files that the index names, sorted. Raises RiyazError when one is missing from `present`."""
    names = sorted(set(index.values()))
    missing = [name for name in names if name not in present]
    if missing:
        what = f"the index names {shown(missing[0])}, which is missing"
        count = f" ({len(missing)} of {len(names)} shards are missing)"
        raise RiyazError(what + count, str(where), AGAIN)
    return names


def merge(folder: Path, files: Sequence[SafetensorsFile], index: dict[str, str] | None) -> dict[str, TensorInfo]:
    """The tensors of all files. Raises RiyazError for a tensor in two files and for one not in its indexed file."""
    tensors: dict[str, TensorInfo] = {}
    file_names: dict[str, str] = {}
    for file in files:
        for tensor, info in file.tensors.items():
            if tensor in tensors:
                what = f"tensor {shown(tensor)} is in two files, {file_names[tensor]} and {file.path.name}"
                raise RiyazError(what, str(folder), AGAIN)
            tensors[tensor], file_names[tensor] = info, file.path.name
    if index is not None and index != file_names:
        tensor = min(set(index.items()) ^ set(file_names.items()))[0]
        indexed, actual = index.get(tensor, "no file"), file_names.get(tensor, "none")
        what = f"the index maps tensor {shown(tensor)} to {indexed}, it is in {actual}"
        raise RiyazError(what, str(folder), AGAIN)
    return tensors


def _without_duplicates(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object as a dict. Raises RiyazError for a key that appears twice."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RiyazError(f"{shown(twice)} appears twice in the index", str(path), AGAIN)
    return entries
