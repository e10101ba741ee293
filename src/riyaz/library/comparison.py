"""What `compare` and `adapt` return: results that show themselves in a notebook and open what was made."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz import results
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.errors import RiyazError
from riyaz.library import model
from riyaz.library.options import Place
from riyaz.report import write
from riyaz.report.comparison import terminal
from riyaz.report.media.markup import Markup, element, join
from riyaz.report.words import columns, floor_line, has_bases, headline, made, metric_name, troubles, verdict
from riyaz.results import Answer, ArmResult

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

Draw = Callable[[], Markup | None]
# fields of an arm that are no figures
NESTED = {"slices", "extras", "chosen", "checks", "curve", "retrieval", "seeds", "batch_flips", "remeasured"}
RIGHT, LEFT, STRONG = "text-align: right", "text-align: left", "font-weight: bold"


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
        return verdict(self.result)

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

    def frame(self) -> "pandas.DataFrame":
        """One row for each arm, best score first: its figures and second scores. RiyazError without pandas."""
        return frame_of([_figures(arm, self.pick, has_bases(self.arms)) for arm in self.arms])

    def answers(self, name: str) -> list[Answer]:
        """What an arm answered on the test rows, and how each answer scored. Raises RiyazError."""
        arm = self.arm(name)
        return write.answers(self.folder, self.result).get(arm.name, [])

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

    def _repr_html_(self) -> str:
        arms = self.arms
        notes = [element("div", f"{status}: {name}: {reason}") for name, status, reason in troubles(arms)]
        return join(
            table_of(arms, self.pick),
            element("p", floor) if (floor := floor_line(self.result)) else None,
            element("p", element("b", headline(self.result)), element("br"), self.reason),
            *notes,
        )

    def __repr__(self) -> str:
        return printed(lambda console: terminal.print_comparison(self.result, console))


@dataclass(frozen=True, eq=False, repr=False)
class Adapted:
    """What `adapt` made: the arm's result, and the folder of its artifact."""

    result: ArmResult
    path: Path

    def open(self) -> model.Model:
        """The artifact, ready to answer. Raises RiyazError."""
        return model.open(self.path)

    def _repr_html_(self) -> str:
        return table_of([self.result], None)

    def __repr__(self) -> str:
        table = printed(lambda console: terminal.print_arm(self.result, console))
        return f"{table}\n{made(self.result, str(self.path))}"


def table_of(arms: Sequence[ArmResult], pick: str | None) -> Markup:
    """The arms as a table of HTML; that of the pick is bold."""
    shown = columns(arms, pick)
    head = element("tr", *(element("th", column.title, style=LEFT if column.text else RIGHT) for column in shown))
    rows = [
        element(
            "tr",
            *(element("td", column.fill(arm), style=LEFT if column.text else RIGHT) for column in shown),
            style=STRONG if arm.name == pick else None,
        )
        for arm in arms
    ]
    return element("table", element("thead", head), element("tbody", *rows))


def printed(show: Callable[[Any], None]) -> str:
    """What a function prints on a console of a fixed width, as text."""
    text = StringIO()
    show(terminal.PipeConsole(file=text, width=terminal.PLAIN_WIDTH, highlight=False, markup=False, emoji=False))
    return text.getvalue().rstrip()


def drawn(pictures: dict[str, Draw], name: str) -> "Figure":
    """The figure of one of the pictures. RiyazError for one that there is not, or for which nothing was measured."""
    from riyaz.report.media.svg import Picture

    if name not in pictures:
        raise unknown("picture", name, list(pictures))
    made = pictures[name]()
    if not isinstance(made, Picture):
        raise RiyazError(f"nothing was measured for the picture {name!r}", hint="figures lists those that there are")
    return made.figure


def frame_of(rows: list[dict[str, Any]]) -> "pandas.DataFrame":
    """The rows as a frame of pandas. RiyazError when that is not installed."""
    try:
        import pandas
    except ImportError:
        raise RiyazError("a frame needs pandas", hint="pip install pandas") from None
    return pandas.DataFrame(rows)


def _figures(arm: ArmResult, pick: str | None, bases: bool) -> dict[str, Any]:
    plain = {each.name: getattr(arm, each.name) for each in fields(arm) if each.name not in NESTED}
    base = plain.pop("base")
    head = {"method": plain.pop("method"), **({"base": base} if bases else {})}
    return {**head, "pick": arm.name == pick, **plain, **arm.extras}


def unknown(kind: str, name: str, known: Sequence[str]) -> RiyazError:
    """What is said of a name that is none of those that there are."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else "choose from " + ", ".join(known)
    return RiyazError(f"there is no {kind} {name!r} here", hint=hint)
