"""Answers kept in OUT.partial, line by line, while a run goes on: the same command continues after them."""

import hashlib
import os
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from riyaz.data import Example
from riyaz.errors import RiyazError
from riyaz.files import disk_error, try_lock
from riyaz.json_files import json_line, parse_json
from riyaz.predictor.prediction import Prediction

BEGINNING = b'{"riyaz": "run"'
CHUNK = 64  # rows answered together, as many as the engine runs at once; a stop loses at most these


class PartialAnswers:
    """The answers of a run that is not finished. Its file begins with who answers, then has a line for each answer with
    the hash of its conversation, by which an answer is found wherever its row stands now. `answers` are those of the
    rows, by their index, and `left` the indices of the others. As a context manager it is locked, and
    removed if it holds no answer at the end."""

    def __init__(self, out: Path, answerer: str, examples: Sequence[Example]) -> None:
        self.path = out.with_name(out.name + ".partial")
        self.answerer, self.keys = answerer, [_key(example) for example in examples]
        self.answers: dict[int, Prediction] = {}
        self.left = deque(range(len(self.keys)))

    def __enter__(self) -> Self:
        """Raises RiyazError where the file cannot be written, is another program's, or holds another model's answers,
        or none to these rows."""
        self.file = open_locked(self.path)
        try:
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
        """Append the answers to the first rows without one. Raises RiyazError when the disk is full; what was kept
        stays."""
        new = {self.left.popleft(): each for each in predictions}
        self._write(b"".join(
            json_line({
                "row": self.keys[index], "prediction": each.text, "citations": each.citations,
                "log_probability": each.log_probability, "confidence": each.confidence, "runner_up": each.runner_up,
            })
            for index, each in new.items()
        ))  # fmt: skip
        self.answers |= new

    def remove(self) -> None:
        """Remove the file, after its answers are written elsewhere."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        """Read the answers, in whole chunks while rows are left; whatever follows is cut off."""
        with os.fdopen(os.dup(self.file), "rb") as file:
            content = file.read()
        whole = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
        if not content.startswith(BEGINNING) and not BEGINNING.startswith(content):
            raise RiyazError("was not written by riyaz run", str(self.path), "move it away, or choose another --out")
        if not whole:
            os.ftruncate(self.file, 0)
            os.lseek(self.file, 0, os.SEEK_SET)
            self._write(json_line({"riyaz": "run", "answerer": self.answerer}))
            return
        if _entry(whole[0]).get("answerer") != self.answerer:
            what = "holds answers of another model, or another version of riyaz"
            raise RiyazError(what, str(self.path), "delete it, or choose another --out")
        stored: list[tuple[str, Prediction]] = []
        for line in whole[1:]:
            entry = _entry(line)
            key, text, cited = entry.get("row"), entry.get("prediction"), entry.get("citations")
            if not isinstance(key, str) or not isinstance(text, str) or not isinstance(cited, list):
                break
            log_p, sure, second = (entry.get(name) for name in ("log_probability", "confidence", "runner_up"))
            log_p, sure = (value if isinstance(value, float) else None for value in (log_p, sure))
            second = second if isinstance(second, str) else None
            stored.append((key, Prediction(text, log_p, tuple(cited), sure, second)))
        if len(_matched(self.keys, stored)) < len(self.keys):
            stored = stored[: len(stored) // CHUNK * CHUNK]
        self.answers = _matched(self.keys, stored)
        self.left = deque(index for index in range(len(self.keys)) if index not in self.answers)
        if stored and not self.answers:
            raise RiyazError("holds answers to other rows", str(self.path), "delete it, or choose another --out")
        os.ftruncate(self.file, sum(map(len, whole[: 1 + len(stored)])))
        os.lseek(self.file, 0, os.SEEK_END)

    def _write(self, content: bytes) -> None:
        append(self.file, content, self.path, len(self.answers))


def open_locked(path: Path) -> int:
    """The descriptor of a file of answers, made if it is missing, which no other process may then open so. Raises
    RiyazError where it cannot be written, also for a link."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RiyazError(f"cannot be written ({error.strerror})", str(path), "choose another --out") from error
    if not try_lock(file):
        os.close(file)
        raise RiyazError("another riyaz is writing these answers", str(path), "wait for it")
    return file


def append(file: int, content: bytes, path: Path, kept: int) -> None:
    """Write at the end of a file of answers, which holds so many. Raises RiyazError when the disk is full."""
    try:
        while content:
            content = content[os.write(file, content) :]
    except OSError as error:
        failure = disk_error(error, path)
        hint = f"{kept:,} answers are kept; free some space and run the same command again"
        raise RiyazError(failure.what, str(path), hint) from error


def _key(example: Example) -> str:
    """A hash of the conversation, as it is answered."""
    return hashlib.sha256(json_line(example.messages)).hexdigest()[:16]


def _matched(keys: Sequence[str], stored: Sequence[tuple[str, Prediction]]) -> dict[int, Prediction]:
    """The answers of the rows by their index; of equal rows the first have the answers."""
    waiting: defaultdict[str, deque[Prediction]] = defaultdict(deque)
    for key, prediction in stored:
        waiting[key].append(prediction)
    return {index: waiting[key].popleft() for index, key in enumerate(keys) if waiting[key]}


def _entry(line: bytes) -> dict[str, Any]:
    try:
        value = parse_json(line, "")
    except RiyazError:
        return {}
    return value if isinstance(value, dict) else {}
