"""What `pretrain` returns: a run that shows itself in a notebook and opens its model."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from riyaz import results
from riyaz.errors import RiyazError
from riyaz.library import model
from riyaz.library.comparison import Draw, drawn
from riyaz.library.frames import frame_of
from riyaz.library.options import Place
from riyaz.library.showing import printed
from riyaz.report.media.markup import element
from riyaz.report.pretraining import terminal as run_terminal
from riyaz.results import PretrainRun, Samples, StepMetrics

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Pretraining:
    """A pretraining run: what it learned, its pictures and its model.

    `result` holds all of run.json as typed values; `folder` is where model and files are.
    """

    result: PretrainRun
    folder: Path

    @classmethod
    def read(cls, folder: Place) -> "Pretraining":
        """The run in a folder. Raises RiyazError."""
        path = Path(folder) / results.RUN
        if not path.is_file():
            raise RiyazError("there is no pretraining run here", str(folder), "give the folder that pretrain wrote")
        return cls(PretrainRun.read(path), Path(folder).absolute())

    @cached_property
    def metrics(self) -> list[StepMetrics]:
        """Loss, learning rate, speed and validation of every step."""
        return StepMetrics.read(self.folder / results.METRICS)

    @cached_property
    def samples(self) -> list[Samples]:
        """What the model wrote, and expected next, after some of the steps."""
        return Samples.read(self.folder / results.SAMPLES)

    def open(self) -> model.Model:
        """The model, ready to answer. Raises RiyazError."""
        return model.open(self.folder)

    def frame(self) -> "pandas.DataFrame":
        """One row for each step. RiyazError without pandas."""
        return frame_of([asdict(step) for step in self.metrics], "frame()", "metrics")

    @property
    def report(self) -> Path:
        """The path of report.html."""
        return self.folder / "report.html"

    @property
    def figures(self) -> list[str]:
        """The names of the pictures for which something was measured."""
        return [name for name, draw in self._pictures().items() if draw() is not None]

    def figure(self, name: str) -> "Figure":
        """A picture of the report as a figure of matplotlib. RiyazError for one that there is not."""
        return drawn(self._pictures(), name)

    def _pictures(self) -> dict[str, Draw]:
        from riyaz.report.comparison.pictures import HALF
        from riyaz.report.pretraining import pictures

        return {
            "loss": lambda: pictures.loss(self.result, self.metrics, HALF, "figure"),
            "bits": lambda: pictures.bits(self.result, self.metrics, HALF, "figure"),
            "rate": lambda: pictures.rate(self.metrics, HALF, "figure"),
            "speed": lambda: pictures.speed(self.metrics, HALF, "figure"),
        }

    def _repr_html_(self) -> str:
        return element("pre", repr(self))

    def __repr__(self) -> str:
        return printed(lambda console: run_terminal.print_run(self.result, self.metrics, self.samples, console))
