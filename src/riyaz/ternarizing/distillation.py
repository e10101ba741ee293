"""The training of a ternary student: it learns the distributions of the model that it comes from, its teacher.

The student begins with the model's weights. In the first half of the run's opening its rounding grows from nothing to
all (1.58-bit fine-tuning: Mekkouri et al. 2024); its distributions are pulled to the model's own on the same text
(BitDistill: Wu et al. 2025, arXiv 2510.13998).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.data.rows import Row
from riyaz.events import Listen
from riyaz.pace import Pace
from riyaz.pretraining.speed import step_seconds
from riyaz.ranks import ALONE, Ranks
from riyaz.sources import Source
from riyaz.ternarizing.material import Material

if TYPE_CHECKING:
    from riyaz.train import TrainPlan, TrainState

MICRO_TOKENS = 2048
MEASURED, CALIBRATION = 3, 8  # steps that are timed, and rows on which the added norms are set


@dataclass(frozen=True)
class Distillation:
    """What all trainings of a run share."""

    source: Source
    teacher: Any
    material: Material
    group: int | None  # columns with one scale
    compute: str
    work: Path  # holds a folder of checkpoints for each training
    ranks: Ranks = ALONE

    def student(self) -> Any:
        """The student as it is before its first step."""
        from riyaz.models.student import student

        train = self.material.train
        rows = [train[place * len(train) // CALIBRATION] for place in range(CALIBRATION)]
        return student(self.source, self.teacher, rows, self.group)

    def loss(self, model: Any) -> float:
        """Nats per token of a model on the held-out rows."""
        from riyaz.train import answer_loss

        return answer_loss(model, self.material.valid, MICRO_TOKENS)

    def rounded_loss(self) -> float:
        """The loss of the model rounded to ternary weights and not trained."""
        from riyaz.models.student import rounded

        return self.loss(rounded(self.source, self.group))

    def train(
        self, model: Any, plan: "TrainPlan", name: str, listen: Listen, *,
        valid: Sequence[Row] | None = None, begun: Path | None = None, pace: Pace | None = None,
    ) -> "TrainState":  # fmt: skip
        """One run of the training loop, with its checkpoints in the folder `name`; the rounding grows over half of the
        plan's steady steps. `valid`: rows in place of the held-out ones, the first of them. Several processes train
        together: the first one announces it to the others."""
        from riyaz.layers.swaps.distil import distilling
        from riyaz.layers.swaps.ternary import set_share
        from riyaz.train import in_every_batch, train

        def adjust(plan: "TrainPlan", step: int) -> "TrainPlan":
            set_share(model, min(1.0, 2 * (step + 1) / plan.steady))
            return pace.adjusted(plan, step) if pace else plan

        rows, valid = self.material.train, valid or self.material.valid
        if self.ranks.count > 1 and not self.ranks.rank:
            self.ranks.first({"do": "train", "plan": asdict(plan), "name": name, "valid": len(valid)})
        return train(model, rows, valid, plan, self.work / name, listen, begun=begun, adjust=adjust,
                     objective=in_every_batch(distilling(self.teacher)), ranks=self.ranks)  # fmt: skip

    def seconds(self, name: str) -> float:
        """Seconds that the training in the folder `name` took up to its newest state; 0 before its first one."""
        folder = self.work / name
        for path in (folder / "state.json", *sorted(folder.glob("step-*/state.json"), reverse=True)):
            with suppress(OSError, ValueError, KeyError, TypeError):
                return float(loads(path.read_text(encoding="utf-8"))["seconds"])
        return 0.0

    def step_seconds(self, batch: int) -> float:
        """Seconds of a step of so many rows, measured."""
        from riyaz.train import TrainPlan

        later = MEASURED + 1  # so that no step but the last validates, and none saves
        plan = TrainPlan(MEASURED, 1e-5, batch, steady=later, validate_every=later, keep_best=False,
                         checkpoint_every=later, micro_tokens=MICRO_TOKENS, compute=self.compute)  # fmt: skip
        model, valid = self.student(), self.material.valid[:1]
        return step_seconds(lambda listen: self.train(model, plan, "measuring", listen, valid=valid))
