"""What the processes that train together do while the first one fits: they prepare the same rows and train as it
announces (`learning_rate.trained`)."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from riyaz.events import quiet
from riyaz.families import describe
from riyaz.json_files import from_json
from riyaz.methods.fitting.base import Context, Method
from riyaz.methods.fitting.label_rows import with_label_head
from riyaz.methods.fitting.learning_rate import trained
from riyaz.methods.fitting.weights import all_rows, judging_rows, training_rows
from riyaz.ranks import Ranks
from riyaz.results import ELSEWHERE


class Following:
    """The part of another process than the first in one fit of a method."""

    def __init__(self, method: Method, context: Context, ranks: Ranks) -> None:
        """Reads the rows, which the first process has read before."""
        assert method.build is not None
        self.context = context = method.with_prompt(replace(context, ranks=ranks))
        self.build = with_label_head(context, method.build)
        self.rows, valid, _ = training_rows(context, describe(context.source).config.context)
        self.valid = judging_rows(context, valid)

    def train(self, order: dict[str, Any]) -> None:
        """Train a new model as the first process has ordered; what comes of it is in that process."""
        from riyaz.train import Diverged, TrainPlan

        plan = from_json(TrainPlan, order["plan"], "the first process", ELSEWHERE)
        rows, valid = (all_rows(self.context, self.rows), []) if order["every"] else (self.rows, self.valid)
        folder = self.context.folder / Path(order["folder"])
        with suppress(Diverged):  # which the first process has found too
            trained(self.context, self.build(self.context), rows, valid, plan, folder, quiet)
