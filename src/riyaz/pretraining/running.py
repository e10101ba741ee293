"""A run of `riyaz pretrain` or `riyaz ternarize` while it runs: its events and its result file."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from riyaz.errors import RiyazError
from riyaz.events import EVENTS, Estimate, Listen, Note, Phase, Planned, recorded
from riyaz.pretraining.folder import RunFolder
from riyaz.results import PretrainRun, TernarizeRun

if TYPE_CHECKING:
    from riyaz.data.rows import Row
    from riyaz.export.check import ExportResult
    from riyaz.text.tokenizer import Tokenizer

Document = TypeVar("Document", PretrainRun, TernarizeRun)


class Running(Generic[Document]):
    """A run's folder, its listener, and the document in its result file. `name` labels its phases and progress."""

    document: Document

    def __init__(self, folder: RunFolder, name: str, listen: Listen) -> None:
        self.folder, self.name, self.listen = folder, name, listen
        self.began = time.monotonic()
        self.step = 0  # the last one that this command trained

    @contextlib.contextmanager
    def recorded(self, document: Document, command: str) -> Iterator[None]:
        """Write the result file, which marks the folder as a run's, and keep every event of the block in the folder. If
        the block is stopped or fails the file says so, and KeyboardInterrupt says how to resume."""
        self.document = document
        self.write()
        try:
            with recorded(self.folder.path / EVENTS, command, self.listen) as self.listen:
                yield
        except KeyboardInterrupt:
            self.stopped()
            where = f" at step {self.step:,}" if self.step else ""
            raise KeyboardInterrupt(f"stopped{where}; the same command with --resume goes on") from None
        except (RiyazError, OSError, MemoryError):
            self.stopped()
            raise

    def write(self, **changes: Any) -> None:
        """Change fields of the document and write the result file."""
        self.document = replace(self.document, **changes)
        self.folder.write(self.folder.document, self.document)

    def stopped(self) -> None:
        """Mark the result file stopped; if the disk is full the old file remains."""
        with contextlib.suppress(RiyazError, OSError):
            self.write(status="stopped")

    def spent(self) -> float:
        """Seconds since this command began."""
        return time.monotonic() - self.began

    def phase(self, phase: str, detail: str = "") -> None:
        """Tell the listener that a phase begins."""
        self.listen(Phase(phase, detail, self.name))

    def note(self, text: str) -> None:
        """Tell the listener one sentence for the user."""
        self.listen(Note(text))

    def estimate(self, seconds: float, peak_rss_mb: float, disk_mb: float) -> None:
        """Tell the listener what the whole command will need."""
        self.listen(Estimate(seconds, peak_rss_mb, disk_mb, (Planned(self.name, seconds),)))

    def write_model(
        self, model: Any, tokenizer: "Tokenizer", valid: "Sequence[Row]", micro_tokens: int, dtype: str
    ) -> "tuple[float, ExportResult]":
        """Round the trained model to `dtype` and write it into the folder: (loss on `valid`, what was written)."""
        import torch

        from riyaz.export import hf
        from riyaz.export.check import logits
        from riyaz.train import answer_loss

        self.phase("write")
        model.eval().to(getattr(torch, dtype)).float()
        loss, work = answer_loss(model, valid, micro_tokens), self.folder.work / "model"
        written = hf.write_model(model, tokenizer, logits(model, tokenizer), work, dtype)
        self.folder.keep(work)
        return loss, written
