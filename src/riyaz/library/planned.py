"""What `plan` returns: the steps and seconds of a comparison that has not run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riyaz.events import Estimate
from riyaz.library.frames import frame_of
from riyaz.library.hints import in_words_of_python
from riyaz.library.showing import FAINT, printed, table_html
from riyaz.report.comparison import terminal
from riyaz.report.media.markup import element, join

if TYPE_CHECKING:
    import pandas

    from riyaz.comparison.run import DryRun
    from riyaz.methods.fitting.base import ArmPlan


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """The plan of a comparison: for every arm the seconds of its stages, its steps and learning rates.

    `result` holds all that `riyaz compare --dry-run --json` prints, as typed values.
    """

    result: "DryRun"

    @property
    def arms(self) -> "tuple[ArmPlan, ...]":
        """The plan of every arm."""
        return self.result.plan.arms

    @property
    def estimate(self) -> dict[str, float]:
        """What the whole comparison needs: `seconds`, `peak_rss_mb` of memory and `disk_mb`."""
        return self.result.estimate

    def frame(self) -> "pandas.DataFrame":
        """One row for each arm: seconds by stage, steps, steps of the full recipe, why it is skipped. RiyazError
        without pandas."""
        rows = [
            {
                "method": arm.name, **{f"{stage}_seconds": value for stage, value in arm.seconds.items()},
                "steps": arm.steps, "recipe_steps": arm.recipe_steps, "skipped": in_words_of_python(arm.skipped),
            }
            for arm in self.arms
        ]  # fmt: skip
        return frame_of(rows, "frame()", "arms")

    @property
    def _line(self) -> str:
        estimate = self.estimate
        return terminal.estimate_line(Estimate(estimate["seconds"], estimate["peak_rss_mb"], estimate["disk_mb"]))

    def _repr_html_(self) -> str:
        titles, rows = terminal.plan_rows(self.arms)
        skipped = [(arm.name, in_words_of_python(arm.skipped)) for arm in self.arms if arm.skipped]
        return join(
            table_html(titles, rows, terminal.PLAN_TEXTS),
            *(element("div", f"skipped: {name}: {why}") for name, why in skipped),
            element("div", self._line, style=FAINT),
        )

    def __repr__(self) -> str:
        text = printed(lambda console: terminal.print_plan(self.arms, self.estimate, console))
        return in_words_of_python(text)
