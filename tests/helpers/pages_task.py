"""A task for tests that call the methods themselves: questions about the pages of tests/helpers/tiny_comparison.py."""

from pathlib import Path
from typing import Any

import tiny_comparison

from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.methods.fitting.base import ArmPlan, Context, instruction_only
from riyaz.sources import open_source

SHORT = Task("short", (), "exact_match", "Answer the question in a few words.", "")


def page_examples(*endings: str) -> tuple[Example, ...]:
    """The rows of `tiny_comparison.page_rows`, each with where it stands and the page that answers it."""
    return tuple(
        Example(({"role": "user", "content": row["question"]},), (row["answer"],), where=f"{ending}.jsonl:{i}",
                doc_ids=(row["doc_id"],) if "doc_id" in row else ())
        for ending in endings for i, row in enumerate(tiny_comparison.page_rows(ending), 1)
    )  # fmt: skip


def page_context(model_folder: Path, folder: Path, collection: Path, method: str, **changes: Any) -> Context:
    """What a method is given: the tiny model, 26 rows to train on and the pages; `changes` are fields of Context."""
    source = open_source(model_folder)
    return Context(**{
        "source": source, "tokenizer": source.tokenizer(), "task": SHORT, "train": page_examples("please", "now"),
        "valid": page_examples("then"), "arm": ArmPlan(method), "valid_rows": 8, "compute": "float32", "seed": 5,
        "folder": folder, "listen": lambda event: None, "prompt_text": instruction_only(SHORT),
        "collection": collection, **changes,
    })  # fmt: skip
