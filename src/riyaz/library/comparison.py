"""What `compare` and `adapt` return: results that show themselves in a notebook and open what was made."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from riyaz import results
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.errors import RiyazError
from riyaz.library import model
from riyaz.library.frames import answer_figures, arm_figures, frame_of
from riyaz.library.hints import comparison_in_python
from riyaz.library.measured_limits import MeasuredLimits
from riyaz.library.options import Place
from riyaz.library.showing import arms_html, printed
from riyaz.report import write
from riyaz.report.comparison import terminal
from riyaz.report.media.markup import Markup, element, join
from riyaz.report.words import floor_line, headline, made, metric_name, troubles, verdict
from riyaz.results import Answer, ArmResult

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

Draw = Callable[[], Markup | None]


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """A finished comparison: its table and pick, its pictures, and every artifact that it made.

    `result` holds all of compare.json as typed values; `folder` is where the files are.
    """

    result: results.Comparison
    folder: Path

    @classmethod
    def read(cls, folder: Place) -> "Comparison":
        """The comparison in a folder of results. Raises RiyazError."""
        path = Path(folder) / results.COMPARE
        if not path.is_file():
            raise RiyazError("there is no comparison here", str(folder), "give the folder of results")
        return cls(results.Comparison.read(path), Path(folder).absolute())

    @property
    def pick(self) -> str | None:
        """The arm that was picked, or that leads while nothing is decided; None when no arm can be picked."""
        return self.result.pick

    @property
    def decision(self) -> str:
        """How sure the pick is: certified, tie or undecided; nothing where every arm scores 0 on every test row."""
        return self.result.decision

    @property
    def reason(self) -> str:
        """Why this arm was picked, or none, in a few sentences."""
        return verdict(self._in_python)

    @property
    def arms(self) -> list[ArmResult]:
        """The arms, best score first."""
        return self.result.ranked

    def arm(self, name: str) -> ArmResult:
        """The result of one method, or with several bases of `METHOD@BASE`. Raises RiyazError for one that did not take
        part."""
        arm = self.result.arm(name)
        if arm is None:
            raise unknown("arm" if self.result.models else "method", name, [arm.name for arm in self.arms])
        return arm

    def artifact(self, name: str | None = None) -> Path:
        """The folder of an arm's artifact, by default of the pick. Raises RiyazError when there is none."""
        if name is None and self.pick is None:
            raise RiyazError("the comparison picked no arm", str(self.folder), "name a method")
        arm = self.arm(name or str(self.pick))
        folder = ComparisonFolder(self.folder).part(arm.name, FINAL) / "artifact"
        if not folder.is_dir():
            raise RiyazError(f"{arm.name} left no artifact ({arm.status})", str(self.folder), arm.reason)
        return folder

    def open(self, name: str | None = None) -> model.Model:
        """The model of an arm, by default of the pick, ready to answer. Raises RiyazError."""
        return model.open(self.artifact(name))

    def frame(self, all: bool = False) -> "pandas.DataFrame":
        """One row for each arm, best score first: the ten figures that are asked for most, or with `all` every figure
        and the second scores. RiyazError without pandas."""
        return frame_of(arm_figures(self._in_python.ranked, self.pick, all), "frame()", "arms")

    def answers(self, name: str) -> "pandas.DataFrame":
        """What an arm answered on the test rows, and how each answer scored, as a frame: one row for each test row.
        RiyazError without pandas; `answer_rows` gives the same as a list."""
        return frame_of(answer_figures(self.answer_rows(name)), "answers()", "answer_rows(name)")

    def answer_rows(self, name: str) -> list[Answer]:
        """What an arm answered on the test rows, and how each answer scored. Raises RiyazError."""
        arm = self.arm(name)
        return write.answers(self.folder, self.result).get(arm.name, [])

    def limits(self, name: str | None = None) -> MeasuredLimits:
        """What was measured of the limits of an arm, by default of the pick. RiyazError where nothing was."""
        return MeasuredLimits.read(self.artifact(name))

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
        from riyaz.report.comparison import pictures, retrieval_pictures
        from riyaz.report.comparison.extra_findings import retrieving

        arms, pick, width = self.arms, self.pick, pictures.HALF
        metric = metric_name(next((arm.metric for arm in arms if arm.metric), None))
        return {
            "quality": lambda: pictures.quality_cost(arms, pick, metric, pictures.FULL, "figure"),
            "learning": lambda: pictures.learning_curves(arms, pick, width, "figure"),
            "forgetting": lambda: pictures.forgetting(arms, pick, metric, width, "figure"),
            "slices": lambda: pictures.slices(arms, pick, pictures.FULL, "figure"),
            "recall": lambda: retrieval_pictures.recall(retrieving(arms), width, "figure"),
            "contexts": lambda: retrieval_pictures.contexts(retrieving(arms), metric, width, "figure"),
            "rows": lambda: retrieval_pictures.data_curve(self.result, metric, width, "figure"),
        }

    @property
    def _in_python(self) -> results.Comparison:
        return comparison_in_python(self.result)

    def _repr_html_(self) -> str:
        shown, arms = self._in_python, self.arms
        notes = [element("div", f"{status}: {name}: {reason}") for name, status, reason in troubles(shown.ranked)]
        return join(
            arms_html(arms, self.pick),
            element("p", floor) if (floor := floor_line(shown)) else None,
            element("p", element("b", headline(shown)), element("br"), verdict(shown)),
            *notes,
        )

    def __repr__(self) -> str:
        return printed(lambda console: terminal.print_comparison(self._in_python, console))


@dataclass(frozen=True, eq=False, repr=False)
class Adapted:
    """What `adapt` made: the arm's result, and the folder of its artifact."""

    result: ArmResult
    path: Path

    def open(self) -> model.Model:
        """The artifact, ready to answer. Raises RiyazError."""
        return model.open(self.path)

    def _repr_html_(self) -> str:
        return arms_html([self.result], None)

    def __repr__(self) -> str:
        table = printed(lambda console: terminal.print_arm(self.result, console))
        return f"{table}\n{made(self.result, str(self.path))}"


def drawn(pictures: dict[str, Draw], name: str) -> "Figure":
    """The figure of one of the pictures. RiyazError for one that there is not, or for which nothing was measured."""
    from riyaz.report.media.svg import Picture

    if name not in pictures:
        raise unknown("picture", name, list(pictures))
    made = pictures[name]()
    if not isinstance(made, Picture):
        raise RiyazError(f"nothing was measured for the picture {name!r}", hint="figures lists those that there are")
    return made.figure


def unknown(kind: str, name: str, known: Sequence[str]) -> RiyazError:
    """What is said of a name that is none of those that there are."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else "choose from " + ", ".join(known)
    return RiyazError(f"there is no {kind} {name!r} here", hint=hint)
