"""What a teacher has answered, from which a student learns: texts, and of a teacher of ours what it predicted.

answers.jsonl       {"key", "text"} of each prompt
soft.safetensors    tokens (N, K) and log_p (N, K) of the answers' tokens one answer after the other, lengths (n,)

While the teacher answers, a file of lines {"key", "text"}, of labels with their "log_p", grows: a stop loses nothing.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riyaz.data import Message
from riyaz.data.rows import Wanted
from riyaz.errors import RiyazError
from riyaz.files import disk_error, make_folder, new_sha256
from riyaz.json_files import json_line, json_or, read_lines, write_lines
from riyaz.sources import safetensors

ANSWERS, SOFT = "answers.jsonl", "soft.safetensors"
REMOVE = "remove it, and the teacher answers again"
DIGITS = 6  # behind the point of a label's log-probability


@dataclass(frozen=True, eq=False)
class Output:
    """A teacher's answer, and at each of its tokens the likeliest tokens (n, K) with their log-probabilities; of a
    label one place with the numbers of all labels (1, L). None where only the text is known."""

    text: str
    soft: Wanted | None = None


def prompt_key(messages: Sequence[Message]) -> str:
    """A hash of a conversation as it stands, with its system turn."""
    return new_sha256(json_line(list(messages))).hexdigest()


def of_label(log_p: np.ndarray) -> Wanted:
    """What a teacher predicted of all labels, from their log-probabilities (L,), which are rounded as they are kept: a
    student learns the same from those that are read again."""
    return Wanted(np.arange(len(log_p))[None], np.round(log_p.astype(np.float64), DIGITS).astype(np.float32)[None])


def append(path: Path, outputs: Mapping[str, Output]) -> None:
    """Add outputs to the file that grows. Raises RiyazError when the disk is full; what was kept stays."""
    make_folder(path.parent)
    lines = []
    for key, output in outputs.items():
        known = {} if output.soft is None else {"log_p": [round(float(p), DIGITS) for p in output.soft.log_p[0]]}
        lines.append(json_line({"key": key, "text": output.text, **known}))
    try:
        with path.open("ab") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise disk_error(error, path) from error


def kept(path: Path) -> dict[str, Output]:
    """What the file that grows holds, without a last line that was cut off in writing, which is removed, and without
    damaged ones."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    outputs = {}
    for entry in (json_or(line.decode("utf-8", "replace"), None) for line in whole.splitlines()):
        match entry:
            case {"key": str(key), "text": str(text), "log_p": [*log_p]} if all(isinstance(p, float) for p in log_p):
                outputs[key] = Output(text, of_label(np.array(log_p)))
            case {"key": str(key), "text": str(text)} if "log_p" not in entry:
                outputs[key] = Output(text)
    return outputs


def write(folder: Path, outputs: Mapping[str, Output]) -> None:
    """Write the outputs by their keys, each file whole or not at all; the texts last."""
    soft = [output.soft for output in outputs.values()]
    known = [each for each in soft if each is not None]
    make_folder(folder)
    if known:
        assert len(known) == len(soft)
        safetensors.write(folder / SOFT, {
            "tokens": np.concatenate([each.tokens for each in known]).astype(np.int32),
            "log_p": np.concatenate([each.log_p for each in known]).astype(np.float32),
            "lengths": np.array([len(each.tokens) for each in known], np.int32),
        })  # fmt: skip
    write_lines(folder / ANSWERS, ({"key": key, "text": output.text} for key, output in outputs.items()))


def read(folder: Path) -> dict[str, Output]:
    """The outputs by their keys. Raises RiyazError for a damaged file."""
    texts = read_texts(folder / ANSWERS)
    if not (folder / SOFT).exists():
        return {key: Output(text) for key, text in texts.items()}
    file = safetensors.read(folder / SOFT)
    try:
        tokens, log_p, lengths = (file.array(name) for name in ("tokens", "log_p", "lengths"))
    except KeyError as error:
        raise RiyazError(f"lacks {error}", str(folder / SOFT), REMOVE) from None
    if tokens.ndim != 2 or log_p.shape != tokens.shape or lengths.shape != (len(texts),) or not _fit(lengths, tokens):
        raise RiyazError(f"does not fit {ANSWERS}", str(folder / SOFT), REMOVE)
    ends = np.cumsum(lengths)[:-1]
    parts = zip(np.split(tokens.astype(np.int64), ends), np.split(log_p, ends))
    return {key: Output(text, Wanted(*part)) for (key, text), part in zip(texts.items(), parts)}


def _fit(lengths: np.ndarray, tokens: np.ndarray) -> bool:
    return bool((lengths > 0).all()) and int(lengths.sum()) == len(tokens)


def read_texts(path: Path) -> dict[str, str]:
    """The texts of a file of answers by their keys. Raises RiyazError for a damaged file."""
    texts = {}
    for where, entry in read_lines(path, REMOVE):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in ("key", "text")):
            raise RiyazError("has no key and text", where, REMOVE)
        texts[entry["key"]] = entry["text"]
    return texts
