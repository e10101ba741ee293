"""Further readers of fuzz_readers.py: chat templates, workbooks, collections, checkpoints, questions, schemas, and what
a child process reads."""

import io
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from fuzz_forks import Forks

Reader = tuple[list[bytes], Callable[[bytes], None]]

TEMPLATES = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "{%- set ns = namespace(found=false) -%}{% for message in messages %}"
    "{% if loop.first and message.role == 'system' %}"
    "{% set ns.found = true %}{% continue %}{% endif %}{{ '[' + message.role | upper + '] ' ~ message.content[:20] }}"
    "{% endfor %}{{ ns.found }}{{ messages | tojson(indent=2) }}",
    "{% macro show(m) %}{{ m.content.split(' ') | join('-') }}{% endmacro %}{% for m in messages[::-1] %}"
    "{{ show(m) }}{% generation %}{{ m.role.replace('e', 'x') }}{% endgeneration %}{% else %}none{% endfor %}",
    "{{ raise_exception('only ' ~ messages | length) if messages | length > 3 else range(4) | list }}"
    "{{ strftime_now('%Y') }}{% filter upper %}{{ bos_token }}{% endfilter %}",
)
QUESTIONS = {"questions": [
    {"name": "team", "type": "choice", "instructions": "Which team?", "column": "label",
     "choices": [{"value": "billing", "description": "money"}, {"value": "support"}]},
    {"name": "urgent", "type": "predicate", "instructions": "Is it urgent?"},
    {"name": "stars", "type": "score", "instructions": "How good?", "levels": [{"label": "1"}, {"label": "2"}]},
]}  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20, "pattern": "^[a-z]+( [a-z]+)*$"},
        "size": {"type": "integer", "minimum": 0, "maximum": 1000},
        "tags": {"type": "array", "items": {"enum": ["a", "b", 3, None]}, "minItems": 1, "maxItems": 4},
        "part": {"anyOf": [{"$ref": "#/$defs/part"}, {"type": "null"}]},
        "when": {"type": "string", "format": "date"},
    },
    "required": ["name", "size"],
    "additionalProperties": False,
    "$defs": {
        "part": {"type": "object", "properties": {"part": {"$ref": "#/$defs/part"}, "ratio": {"type": "number"}}}
    },
}


def templates_reader() -> Reader:
    """Chat templates: rendered by the process that renders a model's, over two conversations."""
    from riyaz.text.template import render_chat

    conversations = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "The café 日本 <s>"}],
        [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}],
    ]

    def read(data: bytes) -> None:
        variables = {"bos_token": "<s>", "eos_token": "</s>"}
        template = data.decode("utf-8", "replace")
        render_chat(template, conversations, add_generation_prompt=len(data) % 2 == 0, variables=variables)

    return [template.encode() for template in TEMPLATES], read


def workbooks_reader() -> Reader:
    """Excel workbooks of rows; the first byte of an input is spare, so that `mutated_member` takes them apart."""
    from openpyxl import Workbook

    from riyaz.data.formats import load

    book, file = Workbook(), io.BytesIO()
    sheet = book.active
    for row in (("text", "label"), ("one", "a"), ("two", "b"), ("three", 2.5), ("four", True)):
        sheet.append(row)
    book.create_sheet("empty")
    book.save(file)
    path = Path(tempfile.mkdtemp(prefix="fuzz-workbooks-")) / "rows.xlsx"

    def read(data: bytes) -> None:
        path.write_bytes(data[1:])
        load(path)

    return [b"0" + file.getvalue()], read


def collections_reader() -> Reader:
    """A collection of documents, which is one file of SQLite: opened, searched and checked."""
    from tiny_embedder import BagEmbedder

    from riyaz.retrieval.collection import Collection, add, verify
    from riyaz.retrieval.documents import Document
    from riyaz.retrieval.search import Retriever

    folder = Path(tempfile.mkdtemp(prefix="fuzz-collections-"))
    documents = [
        Document("a", "T", "The cat sat.", "a.txt", (0, 4)),
        Document("b", "U", "The dog barks.", "b.txt"),
    ]
    path, whole = folder / "kept", folder / "whole"
    add(whole, documents, BagEmbedder())
    database = sqlite3.connect(whole)  # small, and without pages that nothing uses
    database.execute("VACUUM")
    database.close()

    def read(data: bytes) -> None:
        for left in folder.glob("kept*"):
            left.unlink()
        path.write_bytes(data)
        verify(path)
        found = Collection.open(path)
        embedder = BagEmbedder(found.embedder[0]) if found.embedder else None
        if embedder and found.embedder:
            embedder.sha256 = found.embedder[1]
        for hit in Retriever(found, embedder).search(["the cat"], 3)[0]:
            assert isinstance(hit.text, str) and isinstance(hit.title, str)

    return [whole.read_bytes()], read


def checkpoints_reader() -> Reader:
    """One file of a checkpoint; an odd first byte has the manifest's hashes made again, as a stranger would."""
    import torch

    from riyaz.checkpoint import MANIFEST, Checkpoints
    from riyaz.json_files import write_json
    from riyaz.train import TrainState

    root = Path(tempfile.mkdtemp(prefix="fuzz-checkpoints-"))
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
    moments = {"a.mean": torch.zeros(2, 3)}
    kept = Checkpoints(root / "whole", "run")
    kept.save(weights, moments, TrainState(step=5))
    kept.save_best(weights, 5, 1.5, 0.5)
    names = sorted(path.relative_to(root / "whole") for path in (root / "whole").rglob("*") if path.is_file())
    seeds = [bytes([place]) + (root / "whole" / name).read_bytes() for place, name in enumerate(names)]

    def read(data: bytes) -> None:
        place = data[0] if data else 0
        folder = root / "read"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root / "whole", folder)
        changed = folder / names[place % len(names)]
        changed.write_bytes(data[1:])
        own = Checkpoints(folder, "run")
        if changed.name not in (MANIFEST, "best.safetensors"):
            write_json(changed.parent / MANIFEST, own._manifest(changed.parent))
        fresh = [{name: torch.zeros_like(tensor) for name, tensor in each.items()} for each in (weights, moments)]
        state = own.resume(*fresh, TrainState)
        assert isinstance(state, TrainState)
        own.load_best(fresh[0])

    return seeds, read


def questions_reader() -> Reader:
    """Files of questions, and what the answers of a row are by them."""
    from riyaz.data.questions import answer_places, answers_text, read_questions

    path = Path(tempfile.mkdtemp(prefix="fuzz-questions-")) / "questions.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        questions = read_questions(path)
        places = [place % len(question.choices) for place, question in enumerate(questions)]
        assert list(answer_places(questions, answers_text(questions, places))) == places

    return [json.dumps(QUESTIONS).encode()], read


def schemas_reader() -> Reader:
    """JSON schemas, as answers are held to them: compiled, and asked about three texts."""
    from riyaz.data.schema import schema_text
    from riyaz.engine.grammar import misfit

    def read(data: bytes) -> None:
        schema = schema_text(data.decode("utf-8", "replace"), "fuzz")
        for answer in ('{"name": "a b", "size": 3}', "{}", '{"name": 1, "tags": ["a", 3]'):
            misfit(schema, answer, "fuzz")

    return [json.dumps(SCHEMA).encode()], read


def tables_reader(seeds: list[bytes]) -> Reader:
    """Parquet and Arrow files: each input is read by a child process."""
    from riyaz.data import parquet
    from riyaz.data.formats import load
    from riyaz.data.parquet import arrow_rows

    folder, forks = Path(tempfile.mkdtemp(prefix="fuzz-tables-")), Forks()

    def read(data: bytes) -> None:
        path = folder / ("rows.arrow" if data[:1] == b"1" else "rows.parquet")
        path.write_bytes(data[1:])
        with patch.object(parquet, "subprocess", forks):
            if path.suffix == ".arrow":
                arrow_rows(path, None)
            else:
                load(path)

    return [str(place).encode() + seed for place, seed in enumerate(seeds)], read


def pdfs_reader() -> Reader:
    """PDF files: each input is read by a child process."""
    from document_files import pdf

    from riyaz.retrieval import parsers
    from riyaz.retrieval.documents import read_documents

    folder, forks = Path(tempfile.mkdtemp(prefix="fuzz-pdfs-")), Forks()

    def read(data: bytes) -> None:
        (folder / "page.pdf").write_bytes(data)
        with patch.object(parsers, "subprocess", forks):
            read_documents(folder / "page.pdf")

    return [pdf(["The shop opens at nine.", "It closes at six."])], read
