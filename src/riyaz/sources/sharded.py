"""Weights in several safetensors files: the index that names them, and whether it tells the truth.

model.safetensors.index.json of Hugging Face: `weight_map` sends each tensor to its file. Only bare file names are
followed, so that none leads out of the folder.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riyaz.errors import RiyazError, shown
from riyaz.sources.files import TensorInfo
from riyaz.sources.safetensors import SafetensorsFile

MAX_INDEX = 16 * 2**20
MAX_SHARDS = 1000
BARE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
AGAIN = "download the folder again"


def read_index(path: Path) -> dict[str, str]:
    """Tensor name -> file name. RiyazError for a name with a path in it and for a tensor that stands twice."""
    try:
        if path.stat().st_size > MAX_INDEX:
            raise RiyazError(f"larger than {MAX_INDEX} bytes", str(path))
        index = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: _once(path, pairs))
    except OSError as error:
        raise RiyazError(f"cannot be read: {error.strerror or error}", str(path)) from error
    except (ValueError, RecursionError) as error:
        raise RiyazError("not JSON", str(path), "the file is damaged; download it again") from error
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names:
        raise RiyazError("weight_map is missing or not an object", str(path))
    for tensor, name in names.items():
        if not isinstance(name, str) or not BARE.fullmatch(name):
            what = f"weight_map sends {shown(tensor)} to {shown(str(name))}, which is not a bare file name"
            raise RiyazError(what, str(path))
    if len(set(names.values())) > MAX_SHARDS:
        raise RiyazError(f"more than {MAX_SHARDS} files", str(path))
    return names


def shard_names(index: dict[str, str], present: Sequence[str] | set[str], where: Path | str) -> list[str]:
    """The index's files, sorted; RiyazError when one is not among those present."""
    names = sorted(set(index.values()))
    missing = [name for name in names if name not in present]
    if missing:
        what = f"the index names {shown(missing[0])}, which is not here"
        more = f" ({len(missing)} of {len(names)} shards are missing)"
        raise RiyazError(what + more, str(where), AGAIN)
    return names


def merged(folder: Path, files: Sequence[SafetensorsFile], index: dict[str, str] | None) -> dict[str, TensorInfo]:
    """The tensors of all files; RiyazError for one in two files, and for an index that says otherwise."""
    tensors: dict[str, TensorInfo] = {}
    homes: dict[str, str] = {}
    for file in files:
        for tensor, info in file.tensors.items():
            if tensor in tensors:
                what = f"tensor {shown(tensor)} stands in two files, {homes[tensor]} and {file.path.name}"
                raise RiyazError(what, str(folder), AGAIN)
            tensors[tensor], homes[tensor] = info, file.path.name
    if index is not None and index != homes:
        tensor = min(set(index.items()) ^ set(homes.items()))[0]
        said, found = index.get(tensor, "no file"), homes.get(tensor, "none")
        raise RiyazError(f"the index sends tensor {shown(tensor)} to {said}, it stands in {found}", str(folder), AGAIN)
    return tensors


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RiyazError(f"{shown(twice)} stands twice in the index", str(path), AGAIN)
    return entries
