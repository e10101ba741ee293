"""Checks of weights: headers and ranges of safetensors and GGUF, shapes against the configuration, finite numbers."""

from pathlib import Path

import numpy as np

from riyaz.families import describe, describe_embedder
from riyaz.sources import gguf, safetensors, store
from riyaz.sources.source import Source, WeightFile, open_path
from riyaz.sources.tensor_files import is_finite, not_finite
from riyaz.verifying.checks import Checks

# the bits of 8-bit floats without their sign that are no numbers: from which one on
NO_NUMBER = {"F8_E4M3": 0x7F, "F8_E5M2": 0x7C}
PIECE = 2**22  # numbers that are looked at at once


def check_tensors(checks: Checks, file: WeightFile) -> None:
    """Every number of an open file: a tensor that holds NaN or infinities is a problem."""
    for name, info in file.tensors.items():
        values = file.array(name)
        if info.dtype in NO_NUMBER:
            wrong = f"tensor {name!r} holds NaN or infinities" if _has_none(values, NO_NUMBER[info.dtype]) else ""
        elif info.dtype != "BF16" and values.dtype.kind != "f":
            wrong = ""
        else:
            flat = values.reshape(-1)
            finite = all(is_finite(flat[start : start + PIECE]) for start in range(0, len(flat), PIECE))
            wrong = "" if finite else not_finite(name, info.dtype, values)
        if wrong:
            checks.add(file.path, wrong)
        checks.counts["tensors finite"] += not wrong
        if isinstance(file, safetensors.SafetensorsFile):
            file.forget()


def _has_none(bits: np.ndarray, least: int) -> bool:
    return bool(((bits & 0x7F) >= least).any())


def check_safetensors(checks: Checks, path: Path) -> safetensors.SafetensorsFile | None:
    """One safetensors file; None where its header is refused."""
    file = checks.attempt(path, lambda: safetensors.read(path))
    if file is not None:
        check_tensors(checks, file)
    return file


def check_gguf(checks: Checks, path: Path) -> None:
    """One GGUF file, and its tensors against its metadata."""
    if checks.attempt(path, lambda: gguf.read(path)) is not None:
        check_model(checks, path)


def check_model(checks: Checks, path: Path) -> Source | None:
    """A model's folder or GGUF file: headers, shapes, numbers, tokenizer, and the hash that the store has recorded."""
    source = checks.attempt(path, lambda: open_path(path))
    if source is None:
        return None
    for file in source.files:
        check_tensors(checks, file)
    eight_bits = sorted({info.dtype for info in source.tensors.values()} & NO_NUMBER.keys())
    if eight_bits:
        checks.unchecked.append(f"shapes against the configuration: riyaz runs no weights of type {eight_bits[0]}")
        checks.attempt(path, source.tokenizer)
    elif source.is_embedder:
        checks.attempt(path, lambda: describe_embedder(source))
    elif checks.attempt(path, lambda: describe(source)) is not None:
        checks.attempt(path, source.tokenizer)
    for entry in checks.attempt(path, store.models) or []:
        if entry.path.resolve() == path.resolve():
            checks.expect_digest(path, [file.path for file in source.files], entry.sha256)
    return source
