"""What `Model.limits` returns: what a model or an artifact cannot do, as it was measured."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from riyaz import results
from riyaz.errors import RiyazError
from riyaz.library.frames import frame_of
from riyaz.library.options import Place
from riyaz.library.showing import FAINT, printed, table_html
from riyaz.report.limits import terminal
from riyaz.report.limits import words as limits_words
from riyaz.report.media.markup import Markup, element, join
from riyaz.results import LIMITS, Part

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class MeasuredLimits:
    """The suites that were measured: bias, truth, context, cost, fragility. `result` holds all of limits.json as typed
    values."""

    result: results.Limits

    @classmethod
    def read(cls, folder: Place) -> "MeasuredLimits":
        """The limits that an artifact or a folder keeps. Raises RiyazError."""
        path = Path(folder) / LIMITS
        if not path.is_file():
            hint = "measure them: riyaz.open(…).limits(), or limits=True in riyaz.compare"
            raise RiyazError("no limits were measured here", str(folder), hint)
        return cls(results.Limits.read(path))

    @property
    def findings(self) -> list[str]:
        """The figures beyond chance, by their 95 % intervals, a sentence each; of twenty figures without a finding one
        is expected to be listed too."""
        return limits_words.findings([part for suite in self.result.suites for part in suite.parts])

    def frame(self) -> "pandas.DataFrame":
        """One row for each figure: suite, part, group, name, value, interval, unit. RiyazError without pandas."""
        rows = [
            {"suite": suite.name, "part": part.name, **asdict(figure)}
            for suite in self.result.suites for part in suite.parts for figure in part.figures
        ]  # fmt: skip
        return frame_of(rows, "frame()", "result")

    def _repr_html_(self) -> str:
        suites = [
            element(
                "details",
                element("summary", element("b", limits_words.title(suite)), f" {len(suite.parts)} measured"),
                *(_part_html(part) for part in suite.parts),
                *(element("div", f"left out: {line}", style=FAINT) for line in suite.left_out),
                open=True,
            )
            for suite in self.result.suites
        ]
        head = element("b", limits_words.called(self.result))
        return join(element("div", head, " ", limits_words.facts(self.result)), *suites)

    def __repr__(self) -> str:
        return printed(lambda console: terminal.print_limits(self.result, console))


def _part_html(part: Part) -> Markup:
    """A part: what was measured on what, its figures, and what it cannot see."""
    titles, rows = limits_words.table(part)
    lines = [*part.notes, f"cannot see: {part.blind}"]
    return element(
        "div",
        element("p", element("b", part.name), f" {part.source}", element("br"), part.what),
        table_html(titles, rows, terminal.TEXTS),
        *(element("div", line, style=FAINT) for line in lines),
    )
