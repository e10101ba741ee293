"""Answers kept in OUT.partial, line by line, while a run goes on: the same command continues after them."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from riyaz.data import Example
from riyaz.errors import RiyazError
from riyaz.files import disk_error, json_line, parse_json, try_lock
from riyaz.predictor.prediction import Prediction

CHUNK = 64  # rows answered together, as many as the engine runs at once; a stop loses at most these


class Kept:
    """The answers of a run that is not finished. Its file begins with who answers, then has a line for each answer with
    the hash of its conversation; as a context manager it is locked, and removed if it holds no answer at the end."""

    def __init__(self, out: Path, answerer: str, examples: Sequence[Example]) -> None:
        self.path = out.with_name(out.name + ".partial")
        self.answerer, self.keys = answerer, [_key(example) for example in examples]
        self.answers: list[Prediction] = []

    def __enter__(self) -> Self:
        """Raises RiyazError where the file cannot be written, or holds another model's answers."""
        try:
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise RiyazError(what, str(self.path), "choose another --out") from error
        try:
            if not try_lock(self.file):
                raise RiyazError("another riyaz is writing these answers", str(self.path), "wait for it")
            self._read()
        except BaseException:
            os.close(self.file)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self.answers:
            self.path.unlink(missing_ok=True)
        os.close(self.file)

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Append the answers to the next rows. Raises RiyazError when the disk is full; what was kept stays."""
        keys = self.keys[len(self.answers) :]
        self._write(b"".join(
            json_line({"row": key, "prediction": each.text, "citations": each.citations})
            for key, each in zip(keys, predictions)
        ))  # fmt: skip
        self.answers += predictions

    def remove(self) -> None:
        """Remove the file, after its answers are written elsewhere."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        """Read whole chunks of answers to the first rows; whatever follows is cut off."""
        with os.fdopen(os.dup(self.file), "rb") as file:
            content = file.read().splitlines(keepends=True)
        whole = [line for line in content if line.endswith(b"\n")]
        if not whole:
            os.ftruncate(self.file, 0)
            os.lseek(self.file, 0, os.SEEK_SET)
            self._write(json_line({"riyaz": "run", "answerer": self.answerer}))
            return
        head = _entry(whole[0])
        if head.get("riyaz") != "run" or head.get("answerer") != self.answerer:
            what = "holds no answers of riyaz run" if head.get("riyaz") != "run" else "holds answers of another model"
            raise RiyazError(what, str(self.path), "delete it, or choose another --out")
        found: list[Prediction] = []
        for key, line in zip(self.keys, whole[1:]):
            entry = _entry(line)
            text, cited = entry.get("prediction"), entry.get("citations")
            if entry.get("row") != key or not isinstance(text, str) or not isinstance(cited, list):
                break
            found.append(Prediction(text, citations=tuple(cited)))
        if len(found) < len(self.keys):
            found = found[: len(found) // CHUNK * CHUNK]
        self.answers = found
        os.ftruncate(self.file, sum(map(len, whole[: 1 + len(found)])))
        os.lseek(self.file, 0, os.SEEK_END)

    def _write(self, content: bytes) -> None:
        try:
            while content:
                content = content[os.write(self.file, content) :]
        except OSError as error:
            told = disk_error(error, self.path)
            hint = f"{len(self.answers):,} answers are kept; free some space and run the same command again"
            raise RiyazError(told.what, str(self.path), hint) from error


def _key(example: Example) -> str:
    """A hash of the conversation, as it is answered."""
    return hashlib.sha256(json_line(example.messages)).hexdigest()[:16]


def _entry(line: bytes) -> dict[str, Any]:
    try:
        value = parse_json(line, "")
    except RiyazError:
        return {}
    return value if isinstance(value, dict) else {}
