"""What a method's `fit` is given in tests: a closed set of three labels and the tiny model."""

from pathlib import Path
from typing import Any

import tiny_comparison

from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.methods.fitting.base import ArmPlan, Context, instruction_only
from riyaz.sources import open_source

TASK = Task("closed", ("billing", "delivery", "refund"), "accuracy", "Classify the text. Answer with one label.", "")
PLAN = ArmPlan(
    "lora", steps=10, recipe_steps=10, batch_size=4, learning_rates=(1e-3, 2e-3), opening=4, validate_every=4,
    checkpoint_every=3,
)  # fmt: skip


def examples(count: int, ending: str) -> tuple[Example, ...]:
    """The rows of `tiny_comparison.closed_rows`, each with where it stands."""
    return tuple(
        Example(({"role": "user", "content": row["text"]},), (row["label"],), where=f"{ending}.jsonl:{i}")
        for i, row in enumerate(tiny_comparison.closed_rows(count, ending), 1)
    )


def fit_context(model_folder: Path, folder: Path, **changes: Any) -> Context:
    """24 rows to train on and 9 for validation; `changes` are fields of Context."""
    source = open_source(model_folder)
    return Context(**{
        "source": source, "tokenizer": source.tokenizer(), "task": TASK, "train": examples(24, "please"),
        "valid": examples(9, "today"), "arm": PLAN, "valid_rows": 9, "compute": "float32", "seed": 5, "folder": folder,
        "listen": lambda event: None, "prompt_text": instruction_only(TASK), **changes,
    })  # fmt: skip
