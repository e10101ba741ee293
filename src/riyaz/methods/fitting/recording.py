"""What the training of an arm records of itself, in `learned.jsonl` of the part's folder: as a pretraining does, of the
first validation row."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.data.rows import Row
from riyaz.files import write_bytes
from riyaz.methods.fitting.base import Context
from riyaz.methods.fitting.label_rows import has_label_head, head_labels
from riyaz.results import LEARNED

if TYPE_CHECKING:
    from riyaz.engine.torch.recorder import Recorder, Watched
    from riyaz.train import TrainPlan


@contextmanager
def recorded(
    context: Context, model: Any, valid: Sequence[Row], plan: "TrainPlan", folder: Path, begun: Path | None
) -> "Iterator[Recorder | None]":
    """The recorder of a training with validation rows; None without. An opening records in its own `folder`. The run
    that goes on from the opening in `begun` takes over its lines, and records in the part's folder. Of several
    processes the first one writes."""
    from riyaz.engine.torch.recorder import Recorder

    if not valid:
        yield None
        return
    path = (context.folder if begun else folder) / LEARNED
    recorder = Recorder(
        path, model, context.tokenizer, watched(context, valid[0]), plan.validate_every,
        plan.steps // plan.validate_every,
    )  # fmt: skip
    try:
        if not context.ranks.rank:
            _take_over(begun, path)
            path.parent.mkdir(parents=True, exist_ok=True)
            recorder.begin()
        yield recorder
    finally:
        recorder.lines.close()


def watched(context: Context, row: Row) -> "Watched":
    """What is recorded of a validation row: its prompt, and its answer, which of better and worse ones is the better
    one. Of the answers to several questions it is the first."""
    from riyaz.engine.torch.recorder import Watched
    from riyaz.families import describe

    if has_label_head(context):
        label = row.answer[0] - describe(context.source).config.vocab_size
        return Watched.of_label(row.prompt, head_labels(context.task), label)
    return Watched.of_answer(row.prompt, row.answer)


def _take_over(begun: Path | None, path: Path) -> None:
    """Begin a file with the lines of the opening, unless it begins with them already."""
    opening = begun / LEARNED if begun else None
    if opening is None or not opening.is_file():
        return
    lines = opening.read_bytes()
    if not path.is_file() or not path.read_bytes().startswith(lines):
        write_bytes(path, lines)
