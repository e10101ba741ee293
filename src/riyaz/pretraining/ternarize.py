"""From a full-precision model to a ternary one, by quantisation-aware training on text: `riyaz ternarize`.

The student begins with the model's weights. In the first half of the run's opening its rounding grows from nothing to
all (1.58-bit fine-tuning: Mekkouri et al. 2024); its distributions are pulled to the model's own on the same text
(BitDistill: Wu et al. 2025, arXiv 2510.13998). The learning rate is searched as for adaptations: every rate trains the
opening, whose second half shows what it does to weights rounded in full, and the best one's run goes on. Everything is
frozen in plan.json, from which a stopped run continues.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from riyaz import hardware
from riyaz.config import Seconds
from riyaz.engine.opening import open_engine
from riyaz.errors import RiyazError
from riyaz.events import EVENTS, Estimate, Event, Listen, Note, Phase, Planned, Progress, kept, quiet
from riyaz.families import Family, describe
from riyaz.json_files import OPTIONAL, from_json, read_json
from riyaz.pretraining.folder import PLAN, RunFolder
from riyaz.pretraining.material import Material, gather
from riyaz.pretraining.pace import Pace
from riyaz.pretraining.shapes import ACTIVATIONS, BASE_MB, LOGITS, LOGITS_BYTES
from riyaz.results import ELSEWHERE
from riyaz.sources import Source, open_source

DOCUMENT, NAME = "ternarize.json", "ternarize"
RATES = (3e-4, 1e-3)
OPENING = 0.2  # share of the steps that every rate trains; the rounding grows in the first half of them
# one window a step: with more a short budget has too few steps
STEP_TOKENS, MICRO_TOKENS, CONTEXT = 256, 2048, 256
MEASURED, CALIBRATION = 3, 8  # steps that are timed, and rows on which the added norms are set
END_SECONDS = 10.0  # of judging and writing the finished model
SHARE = 0.9  # of the time that is left; validations and checkpoints take the rest
LEAST_STEPS = 20
VALIDATIONS = 10
BYTES = 24  # of memory for each parameter in float32: weights, gradients, moments, the model, partly rounded weights


@dataclass(frozen=True)
class Asked:
    """What the user chose."""

    model: str
    paths: tuple[str, ...]
    budget: float = 20 * 60.0
    group: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    steps: int | None = None

    def __post_init__(self) -> None:
        """Raises RiyazError for values that no run can have, naming the flag."""
        if not self.paths:
            raise RiyazError("there is nothing to train on", hint="name a text")
        if self.group is not None and (self.group < 16 or self.group % 16):
            raise RiyazError(f"{self.group} is no multiple of 16", "--group", "take 128, or leave it out")
        if self.steps is not None and self.steps < 1:
            raise RiyazError(f"{self.steps} steps are too few", "--steps", "give at least 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise RiyazError(f"{self.learning_rate} is no learning rate", "--learning-rate", "give 0.0001 to 0.01")


@dataclass(frozen=True)
class Ternarized:
    """ternarize.json: losses in nats per token on the same held-out text, None where not measured yet."""

    status: Literal["running", "stopped", "done"]
    command: str
    asked: dict[str, Any]
    sha256: str = ""  # of the model
    text_sha256: str = ""
    norms: bool = False  # whether norms were added
    parameters: int = 0
    plan: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    search: list[dict[str, Any]] = field(default_factory=list)  # losses at the end of the openings, by rate
    rate: float | None = None  # the searched learning rate
    loss_before: float | None = None  # of the model as it was
    loss_rounded: float | None = None  # of the model rounded to ternary weights and not trained
    loss: float | None = None
    seconds: float | None = None
    tokens: int | None = None
    mb: float | None = None  # of the files
    schema: Literal[1] = 1


def ternarize(asked: Asked, out: Path, resume: bool = False, command: str = "", listen: Listen = quiet) -> Ternarized:
    """Train a ternary model from the asked one, write it to `out` and return what was measured. `resume` continues the
    run in `out`. Raises RiyazError, and KeyboardInterrupt with a line that says how to resume."""
    folder = RunFolder(out, DOCUMENT)
    with folder.locked(resume):
        run = _Run(folder, asked, command, listen)
        if folder.resumed:
            earlier = from_json(Ternarized, read_json(out / DOCUMENT, ELSEWHERE), str(out / DOCUMENT), ELSEWHERE)
            run.resume(earlier)
            if earlier.status == "done":
                return earlier
        run._write()  # from now on the folder is a run's
        try:
            with kept(out / EVENTS, command, listen) as run.listen:
                return run.go()
        except KeyboardInterrupt:
            run.stopped()
            raise KeyboardInterrupt("stopped; the same command with --resume goes on") from None
        except (RiyazError, OSError, MemoryError):
            run.stopped()
            raise


class _Run:
    """One run: its options, and its ternarize.json."""

    def __init__(self, folder: RunFolder, asked: Asked, command: str, listen: Listen) -> None:
        self.folder, self.asked, self.listen = folder, asked, listen
        self.began = time.monotonic()
        self.planned = 0.0  # seconds until the run was planned, by this command or an earlier one
        self.plans = False  # whether by this one
        self.first = 0.0  # seconds of the run in which none of its steps was trained
        self.document = Ternarized("running", command, asdict(asked))
        self.training: float | None = None  # seconds of the run at its last step, those of its opening included

    def resume(self, earlier: Ternarized) -> None:
        """Go on with an earlier run's document. Raises RiyazError naming options that differ."""
        now = asdict(self.asked) | {"paths": list(self.asked.paths)}
        other = [name for name, value in earlier.asked.items() if now.get(name) != value]
        if other:
            what = f"the run in this folder has {', '.join(f'{name} {earlier.asked[name]}' for name in other)}"
            raise RiyazError(what, str(self.folder.path), "give the same options, or choose another --out")
        self.document = replace(earlier, status="running" if earlier.status != "done" else "done")

    def stopped(self) -> None:
        """Marks the document stopped; if the disk is full the old file remains."""
        with suppress(RiyazError, OSError):
            self._write(status="stopped")

    def go(self) -> Ternarized:
        """The whole run, or the rest of it."""
        import torch

        from riyaz.models import load
        from riyaz.models.student import with_norms

        source = open_source(self.asked.model)
        family = describe(source)
        if family.has_ternary:
            raise RiyazError(f"{source.name} is ternary already", str(source.path), "give a full-precision model")
        if getattr(family.config, "logit_cap", None):
            raise RiyazError(f"{source.name} caps its logits, which riyaz cannot distil", str(source.path))
        compute = "bfloat16" if hardware.bf16_is_fast() else "float32"
        memory = memory_mb(family, compute)
        hardware.expect_memory(f"training {source.name} ternary", memory, "take a smaller model")
        sha256 = source.sha256()
        if self.document.sha256 not in ("", sha256):
            raise RiyazError("the model has changed since the run began", str(source.path), "begin anew")
        self._write(sha256=sha256, norms=with_norms(source), parameters=family.parameters)
        material = self._material(source)
        torch.set_num_threads(hardware.threads())
        teacher = load(source, getattr(torch, compute))
        begin = self._beginning(source, teacher, material)
        if self.document.loss_rounded is None:
            self._judge(source, teacher, material)
        plan = self._plan(begin, teacher, material, compute, memory)
        rate = self._searched(plan, begin, teacher, material)
        return self._train(replace(plan, learning_rate=rate), begin, teacher, material, source)

    def _material(self, source: Source) -> Material:
        """What is trained on. Raises RiyazError if it has changed since the run began."""
        self.listen(Phase("read", "", NAME))
        self.folder.work.mkdir(exist_ok=True)
        context = min(CONTEXT, describe(source).config.context)
        paths = [Path(path) for path in self.asked.paths]
        material = gather(paths, source.tokenizer(), lambda: open_engine(source), context, self.folder.work,
                          self.folder.path, self.listen)  # fmt: skip
        if self.document.text_sha256 not in ("", material.sha256):
            raise RiyazError("the text has changed since the run began", str(paths[0]), "begin anew")
        self._write(text_sha256=material.sha256)
        return material

    def _beginning(self, source: Source, teacher: Any, material: Material) -> Callable[[], Any]:
        """Makes the student as it is before its first step."""
        from riyaz.models.student import student

        rows = [material.train[place * len(material.train) // CALIBRATION] for place in range(CALIBRATION)]
        return lambda: student(source, teacher, rows, self.asked.group)

    def _judge(self, source: Source, teacher: Any, material: Material) -> None:
        """Measure the model as it is, and rounded without training."""
        from riyaz.models.student import rounded
        from riyaz.train import answer_loss

        self.listen(Phase("measure", "the model as it is, and rounded only", NAME))
        if self.document.loss_before is None:
            self._write(loss_before=answer_loss(teacher, material.valid, MICRO_TOKENS))
        self._write(loss_rounded=answer_loss(rounded(source, self.asked.group), material.valid, MICRO_TOKENS))

    def _plan(self, begin: Callable[[], Any], teacher: Any, material: Material, compute: str, memory: float) -> Any:
        """The `train.TrainPlan` of the run, measured and written to plan.json at first. Raises RiyazError where the
        budget holds too few steps."""
        from riyaz.train import TrainPlan

        kept = self.folder.read(PLAN)
        if kept is not None:
            self.planned = float(kept.pop("before"))
            return from_json(TrainPlan, kept, str(self.folder.path / PLAN), ELSEWHERE)
        longest = max(len(row.prompt) + len(row.answer) for row in material.train)
        batch = max(1, min(STEP_TOKENS // longest, len(material.train)))
        seconds = self._pace(begin, teacher, material, compute, batch)
        rates = (self.asked.learning_rate,) if self.asked.learning_rate else RATES
        left = (self.asked.budget - (time.monotonic() - self.began) - END_SECONDS) * SHARE
        steps = self.asked.steps or int(left / seconds / (1 + OPENING * (len(rates) - 1)))
        if steps < LEAST_STEPS and not self.asked.steps:
            what = f"the budget of {Seconds(self.asked.budget)} holds {max(steps, 0)} steps of {seconds:.1f}s"
            raise RiyazError(f"{what}; {LEAST_STEPS} are the fewest", "--budget", "give more time or a smaller model")
        every = max(1, steps // VALIDATIONS)
        plan = TrainPlan(
            steps, rates[0], batch_size=batch, final=0.0, steady=max(1, round(OPENING * steps)), betas=(0.9, 0.95),
            validate_every=every, patience=steps, checkpoint_every=every, micro_tokens=MICRO_TOKENS, compute=compute,
            seed=self.asked.seed,
        )  # fmt: skip
        self.planned, self.plans = time.monotonic() - self.began, True
        needs = self.planned + seconds * steps * (1 + OPENING * (len(rates) - 1)) / SHARE + END_SECONDS
        disk = describe(open_source(self.asked.model)).parameters * 4 * (7 + 3 * len(rates)) / hardware.MB
        self.listen(Estimate(needs, memory, disk, (Planned(NAME, needs),)))
        self._keep(plan)
        self._write(plan=asdict(plan))
        return plan

    def _pace(self, begin: Callable[[], Any], teacher: Any, material: Material, compute: str, batch: int) -> float:
        """Seconds of a step, after one that warms up."""
        from riyaz.train import TrainPlan

        plan = TrainPlan(MEASURED, 1e-5, batch, steady=MEASURED, validate_every=MEASURED + 1, keep_best=False,
                         checkpoint_every=MEASURED + 1, micro_tokens=MICRO_TOKENS, compute=compute)  # fmt: skip
        ends: list[float] = []
        self.listen(Phase("measure", "speed of this machine", NAME))
        self._trained(plan, begin(), teacher, material.train, material.valid[:1], "measuring",
                      lambda event: ends.append(time.monotonic()))  # fmt: skip
        return min(after - before for before, after in zip(ends, ends[1:-1] or ends[1:]))

    def _searched(self, plan: Any, begin: Callable[[], Any], teacher: Any, material: Material) -> float:
        """The learning rate whose opening ends with the lowest loss on held-out text; its checkpoint stays."""
        import numpy as np

        from riyaz.methods.learning_rate import chosen
        from riyaz.train import Diverged, row_nats

        if self.document.rate or self.asked.learning_rate:
            return float(self.document.rate or self.asked.learning_rate)  # type: ignore[arg-type]
        losses = {}
        for rate in RATES:
            self.listen(Phase("search", f"rate {rate:g}", NAME))
            model, opening = begin(), replace(plan, learning_rate=rate).opening()
            try:
                self._trained(opening, model, teacher, material.train, material.valid, _opening(rate), self.listen)
                losses[rate] = np.array(row_nats(model.eval(), material.valid))
            except Diverged:
                losses[rate] = np.full(len(material.valid), np.inf)
        tokens = np.array([len(row.answer) for row in material.valid])
        rate, record = chosen(losses, tokens)
        self._write(search=record, rate=rate)
        self.listen(Note(f"learning rate: {rate:g}, of {', '.join(f'{rate:g}' for rate in RATES)} the lowest loss"))
        return rate

    def _train(
        self, plan: Any, begin: Callable[[], Any], teacher: Any, material: Material, source: Source
    ) -> Ternarized:
        """The run, from the opening on; then the model is rounded to the compute type, written and judged."""
        import torch

        from riyaz.export import hf
        from riyaz.export.check import logits
        from riyaz.train import answer_loss

        self.listen(Phase("train", "", NAME))
        opening, start = _opening(plan.learning_rate), time.monotonic()
        begun = self._seconds("train") or self._seconds(opening)
        if self.plans:
            self.first = max(0.0, start - self.began - begun)
        else:  # what an earlier command took beside training is not known
            others = {_opening(rate) for rate in RATES} - {opening}
            self.first = self.planned + sum(map(self._seconds, others))
        pace = Pace(
            budget=None if self.asked.steps else self.asked.budget, before=self.first, step_seconds=1.0,
            end=END_SECONDS, clock=lambda: self.training, record=self._keep,
        )  # fmt: skip
        model = begin()

        def timed(event: Event) -> None:
            self.training = begun + time.monotonic() - start
            self.listen(replace(event, method=NAME) if isinstance(event, Progress) else event)

        state = self._trained(plan, model, teacher, material.train, material.valid, "train", timed, pace,
                              self.folder.work / opening)  # fmt: skip
        self.listen(Phase("write", "", NAME))
        model.eval().to(getattr(torch, plan.compute)).float()
        loss, tokenizer = answer_loss(model, material.valid, MICRO_TOKENS), source.tokenizer()
        written = hf.write_model(model, tokenizer, logits(model, tokenizer), self.folder.work / "model", plan.compute)
        self.folder.keep(self.folder.work / "model")
        self._write(status="done", loss=loss, tokens=state.tokens, seconds=self.first + state.seconds, mb=written.mb)
        self.folder.clean()
        return self.document

    def _trained(
        self, plan: Any, model: Any, teacher: Any, rows: Any, valid: Any, name: str, listen: Listen,
        pace: Pace | None = None, begun: Path | None = None,
    ) -> Any:  # fmt: skip
        """One run of the training loop, whose rounding grows over half of the plan's steady steps."""
        from riyaz.layers.swaps.distil import distilling
        from riyaz.layers.swaps.ternary import set_share
        from riyaz.train import train

        def adjust(plan: Any, step: int) -> Any:
            set_share(model, min(1.0, 2 * (step + 1) / plan.steady))
            return pace.adjusted(plan, step) if pace else plan

        return train(model, rows, valid, plan, self.folder.work / name, listen, begun=begun, adjust=adjust,
                     objective=distilling(teacher))  # fmt: skip

    def _seconds(self, name: str) -> float:
        """Seconds that training in this folder of work/ took up to its newest state; 0 before its first one."""
        folder = self.folder.work / name
        for path in (folder / "state.json", *sorted(folder.glob("step-*/state.json"), reverse=True)):
            with suppress(OSError, ValueError, KeyError, TypeError):
                return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
        return 0.0

    def _keep(self, plan: Any) -> None:
        self.folder.write(PLAN, asdict(plan) | {"before": self.planned})

    def _write(self, **changes: Any) -> None:
        self.document = replace(self.document, **changes)
        self.folder.write(DOCUMENT, self.document)


def memory_mb(family: Family[Any], compute: str) -> float:
    """Estimated peak memory in MB: of the parameters, and of one forward pass with what backward needs of it."""
    config, size = family.config, 2 if compute == "bfloat16" else 4
    layers = MICRO_TOKENS * config.hidden_size * config.n_layers * ACTIVATIONS * size
    rows, numbers = LOGITS
    logits = max(rows * config.vocab_size, numbers) * LOGITS_BYTES
    return BASE_MB + (family.parameters * BYTES + layers + logits) / hardware.MB


def _opening(rate: float) -> str:
    """The folder in work/ of an opening's checkpoint."""
    return f"opening-{rate:g}"


def lines(found: Ternarized) -> Sequence[str]:
    """What was measured, for the terminal."""
    import math

    def shown(name: str, loss: float | None) -> str:
        return f"{name:<14}{loss:8.3f} nats per token, perplexity {math.exp(min(loss, 50)):,.4g}" if loss else ""

    size = f"{found.parameters / 1e6:,.1f} million parameters, {found.mb or 0:,.1f} MB with its masters"
    rows = [("full precision", found.loss_before), ("rounded only", found.loss_rounded), ("trained", found.loss)]
    return [*filter(None, (shown(name + " ", loss) for name, loss in rows)), f"{'size':<14} {size}"]
