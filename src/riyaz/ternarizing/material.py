"""What a ternary student learns from: windows of text, and conversations of rows with the teacher's own answers."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riyaz.data import Example
from riyaz.data.blocks import Windows, evenly_spaced, prepare
from riyaz.data.formats import load, open_data
from riyaz.data.rows import Row
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.errors import RiyazError
from riyaz.events import Listen, Phase
from riyaz.sources import safetensors
from riyaz.text.tokenizer import Tokenizer

TABLES = (".jsonl", ".json", ".csv", ".tsv", ".xlsx", ".parquet")
ANSWER = 64  # most tokens of a teacher's answer
MOST_ROWS = 512  # conversations that the teacher answers
HELD = 16  # one of so many conversations is held out, by its hash
JUDGED = 32  # held-out windows of text that judge
ROWS = "rows.safetensors"  # file in work/ where several processes train


@dataclass(frozen=True)
class Material:
    """Rows to train on and held-out ones, every token but the first a label."""

    train: Sequence[Row]
    valid: Sequence[Row]
    sha256: str


def gather(
    paths: Sequence[Path], tokenizer: Tokenizer, teacher: Callable[[], Engine], context: int, folder: Path,
    exclude: Path, listen: Listen,
) -> Material:  # fmt: skip
    """Read texts and rows; `teacher()` answers the rows. Raises RiyazError for what is neither, and for too little."""
    tables = {path: examples for path in paths if (examples := _examples(path)) is not None}
    texts = [path for path in paths if path not in tables]
    train: list[Row] = []
    valid: list[Row] = []
    digest = hashlib.sha256()
    if texts:
        corpus = prepare(texts, tokenizer, folder / "text", context, exclude=exclude, listen=listen)
        held: Windows = evenly_spaced(corpus.valid, JUDGED, tokenizer)
        train += corpus.train[:]
        valid += held[:]
        digest.update(corpus.facts["sha256"].encode())
    for examples in tables.values():
        listen(Phase("answers", f"{len(examples):,} rows"))
        answered = _answered(examples, tokenizer, teacher(), context)
        for example, row in answered:
            digest.update(example.key.encode())
            (valid if int(example.key[:8], 16) % HELD == 0 else train).append(row)
    if not train or not valid:
        raise RiyazError("the text is too short to hold out a part of it", str(paths[0]), "give more of it")
    return Material(train, valid, digest.hexdigest())


def store_material(material: Material, path: Path) -> None:
    """Write the rows for other processes; a row is a prompt and an answer. Raises RiyazError where the disk refuses."""
    rows = [*material.train, *material.valid]
    arrays: dict[str, np.ndarray | tuple[str, np.ndarray]] = {
        "tokens": np.array([token for row in rows for token in (*row.prompt, *row.answer)], np.int32),
        "lengths": np.array([(len(row.prompt), len(row.answer)) for row in rows], np.int32),
        "train": np.array([len(material.train)], np.int64),
    }
    safetensors.write(path, arrays)


def stored_material(path: Path) -> Material:
    """The rows in a file of `store_material`. Raises RiyazError for a damaged one."""
    file = safetensors.read(path)
    tokens, rows, place = file.array("tokens").tolist(), list[Row](), 0
    for prompt, answer in file.array("lengths").tolist():
        ends = place + prompt, place + prompt + answer
        rows.append(Row(tuple(tokens[place : ends[0]]), tuple(tokens[ends[0] : ends[1]])))
        place = ends[1]
    count = int(file.array("train")[0])
    return Material(rows[:count], rows[count:], "")


def _examples(path: Path) -> list[Example] | None:
    """The rows of a table or of a folder of data, at most MOST_ROWS in the order of their hashes; None for text."""
    try:
        if path.is_dir():
            if not any(path.glob("train.*")):
                return None
            examples = open_data(path).train.examples
        elif "".join(path.suffixes[-2:]).removesuffix(".gz").endswith(TABLES):
            examples = load(path).examples
        else:
            return None
    except RiyazError:
        if path.is_file() and ".jsonl" in path.suffixes:  # rows of text, which `data.corpus` reads
            return None
        raise
    return sorted(examples, key=lambda example: example.key)[:MOST_ROWS]


def _answered(
    examples: Sequence[Example], tokenizer: Tokenizer, teacher: Engine, context: int
) -> list[tuple[Example, Row]]:
    """The conversations with the answers of the teacher; those without room for an answer are left out."""
    prompts = tokenizer.render([list(example.messages) for example in examples])
    requests = [
        Request(place, tuple(prompt), limit=ANSWER, stop=tokenizer.eos_ids)
        for place, prompt in enumerate(prompts)
        if len(prompt) + ANSWER < context
    ]
    answers = teacher.generate(requests)
    return [
        (examples[request.id], Row(request.tokens[:1], (*request.tokens[1:], *answer, tokenizer.end_of_turn)))
        for request, answer in zip(requests, answers)
    ]
