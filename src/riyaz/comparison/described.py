"""What compare.json says of a comparison's rows, models and versions."""

import platform
from collections.abc import Mapping
from typing import Any

from riyaz import hardware
from riyaz.data.data_report import DataReport
from riyaz.data.formats import DataFolder
from riyaz.data.rows import rendered
from riyaz.data.split import Split
from riyaz.data.task import Task
from riyaz.families import describe
from riyaz.methods.fitting.base import instruction_only
from riyaz.results import AnswerInPrompt, Data, Documents, FileFacts, Leakage, Model
from riyaz.sources import Source

RENDERED = 5  # rows shown in the report
PACKAGES = ("riyaz", "torch", "numpy", "scipy", "tokenizers", "safetensors", "bm25s", "sacrebleu")


def data_of(
    files: DataFolder, task: Task, documents: Mapping[str, Any] | None, report: DataReport, parts: Split, source: Source
) -> Data:
    """The rows: their files, task and counts, and the first ones as rendered for the model of `source`. `documents` is
    their entry in settings.json."""
    counts: dict[str, Any] = report.to_dict() | {"leakage": Leakage(**report.leakage)}
    if report.answer_in_prompt is not None:
        counts["answer_in_prompt"] = AnswerInPrompt(**report.answer_in_prompt)
    return Data(
        files={name: FileFacts(str(d.path), d.sha256, d.format)
               for name, d in (("train", files.train), ("test", files.test)) if d},
        task=task.kind, metric=task.metric, why=task.why, instruction=task.instruction, **counts,
        rendered=_rendered(parts, task, source), documents=Documents(**documents) if documents else None,
    )  # fmt: skip


def _rendered(parts: Split, task: Task, source: Source) -> list[list[tuple[str, bool]]]:
    """The first training rows as the model is trained on them: pieces (text, whether its tokens have a loss)."""
    first = parts.train[:RENDERED]
    pairs = list(zip(instruction_only(task).conversations([example.messages for example in first]), first))
    return [[(prompt, False), (answer, True)] for prompt, answer in rendered(source.tokenizer(), pairs)]


def models_of(bases: Mapping[str, Source]) -> list[Model]:
    """The models under the names that their arms have."""
    return [_model(name, source) for name, source in bases.items()]


def _model(name: str, source: Source) -> Model:
    family = describe(source)
    return Model(name, source.format, family.model_type, family.parameters, source.sha256(), source.nbytes / 2**20)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that computed."""
    return {"python": platform.python_version()} | hardware.versions(PACKAGES)
