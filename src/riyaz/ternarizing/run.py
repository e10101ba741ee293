"""A run from a full-precision model to a ternary one: read, judge, measure, plan, search a learning rate, train, write.

The learning rate is searched as for adaptations: every rate trains the opening, whose second half shows what it does to
weights rounded in full, and the best one's run goes on. Everything is frozen in plan.json, from which a stopped run
continues.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz import hardware
from riyaz.config import Seconds, TernarizeConfig
from riyaz.engine.opening import open_engine
from riyaz.errors import RiyazError
from riyaz.events import Event, Listen, Progress, quiet
from riyaz.families import Family, describe
from riyaz.joining import announce_start, joined
from riyaz.json_files import from_json
from riyaz.pace import Pace
from riyaz.pretraining.folder import PLAN, RunFolder
from riyaz.pretraining.running import Running
from riyaz.pretraining.shapes import memory_with
from riyaz.ranks import Ranks
from riyaz.results import ELSEWHERE, TERNARIZE, TernarizeRun
from riyaz.sources import Source, open_source
from riyaz.ternarizing.distillation import MICRO_TOKENS, Distillation
from riyaz.ternarizing.following import follow, started_with
from riyaz.ternarizing.material import ROWS, Material, gather, store_material

if TYPE_CHECKING:
    from riyaz.train import TrainPlan

NAME = "ternarize"  # label of the progress bar
RATES = (3e-4, 1e-3)
OPENING = 0.2  # share of the steps that every rate trains; the rounding grows in the first half of them
STEP_TOKENS, CONTEXT = 256, 256  # one window a step: with more a short budget has too few steps
END_SECONDS = 10.0  # of judging and writing the finished model
SHARE = 0.9  # of the time that is left; validations and checkpoints take the rest
LEAST_STEPS = 20
VALIDATIONS = 10
BYTES = 24  # of memory for each parameter in float32: weights, gradients, moments, the model, partly rounded weights


def ternarize(
    model: str, paths: Sequence[Path], options: TernarizeConfig, out: Path, *,
    resume: bool = False, command: str = "", listen: Listen = quiet,
) -> TernarizeRun:  # fmt: skip
    """Train a ternary model from the model of this name or path on the texts and rows under `paths`, write it to `out`
    and return the content of ternarize.json.

    `resume` continues the run in `out`. Raises RiyazError, and KeyboardInterrupt with a line that says how to resume.
    """
    if not paths:
        raise RiyazError("there is nothing to train on", hint="name a text")
    with joined() as ranks:
        if ranks.rank:
            return follow(ranks, model, paths, options, out)
        return _ternarize(model, paths, options, out, resume, command, listen, ranks)


def _ternarize(
    model: str, paths: Sequence[Path], options: TernarizeConfig, out: Path, resume: bool, command: str, listen: Listen,
    ranks: Ranks,
) -> TernarizeRun:  # fmt: skip
    """The run of this process, which is alone or the first of several."""
    alike = started_with(model, paths, options) if ranks.count > 1 else {}
    written = {"model": model, "paths": [str(Path(path).absolute()) for path in paths], **asdict(options)}
    folder = RunFolder(out, TERNARIZE)
    with folder.locked(resume):
        run = Running[TernarizeRun](folder, NAME, listen)
        document = TernarizeRun("running", command, written)
        if folder.resumed:
            earlier = TernarizeRun.read(out / TERNARIZE)
            _refuse_another(folder, earlier.asked, written)
            if earlier.status == "done":
                return earlier
            document = replace(earlier, status="running")
        with run.recorded(document, command):
            folder.work.mkdir(exist_ok=True)
            announce_start(ranks, folder.work, alike)
            return _Ternarizing(run, options, ranks).go()


def _refuse_another(folder: RunFolder, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises RiyazError naming the options that the run in the folder began with, where those of now differ."""
    others = [f"{name} {value}" for name, value in then.items() if now.get(name) != value]
    if others:
        what = f"the run in this folder has {', '.join(others)}"
        raise RiyazError(what, str(folder.path), "give the same options, or choose another --out")


class _Ternarizing:
    """What one run does: its options and its clock."""

    def __init__(self, run: Running[TernarizeRun], options: TernarizeConfig, ranks: Ranks) -> None:
        self.run, self.folder, self.options, self.ranks = run, run.folder, options, ranks
        self.planned = 0.0  # seconds until the run was planned, by this command or an earlier one
        self.plans = False  # whether by this one

    def go(self) -> TernarizeRun:
        """The whole run, or the rest of it."""
        import torch

        from riyaz.models import load
        from riyaz.models.student import with_norms

        run = self.run
        source = open_source(run.document.asked["model"])
        family = describe(source)
        _refuse_family(source, family)
        compute = "bfloat16" if hardware.bf16_is_fast() else "float32"
        memory = memory_with(family.parameters * BYTES, family.config, compute, MICRO_TOKENS)
        hardware.expect_memory(f"training {source.name} ternary", memory, "take a smaller model")
        sha256 = source.sha256()
        if run.document.sha256 not in ("", sha256):
            raise RiyazError("the model has changed since the run began", str(source.path), "begin anew")
        run.write(sha256=sha256, norms=with_norms(source), parameters=family.parameters)
        material = self._material(source)
        torch.set_num_threads(hardware.threads())
        teacher = load(source, getattr(torch, compute))
        work = self.folder.work
        if self.ranks.count > 1:
            store_material(material, work / ROWS)
            self.ranks.first({"do": "open", "compute": compute})
            self.ranks.expect_alike({"the model": sha256})
        distillation = Distillation(source, teacher, material, self.options.group, compute, work, self.ranks)
        self._judge(distillation)
        plan = self._plan(distillation, memory)
        return self._train(replace(plan, learning_rate=self._rate(plan, distillation)), distillation)

    def _material(self, source: Source) -> Material:
        """What is trained on. Raises RiyazError if it has changed since the run began."""
        self.run.phase("read")
        context = min(CONTEXT, describe(source).config.context)
        paths = [Path(path) for path in self.run.document.asked["paths"]]
        material = gather(paths, source.tokenizer(), lambda: open_engine(source), context, self.folder.work,
                          self.folder.path, self.run.listen)  # fmt: skip
        if self.run.document.text_sha256 not in ("", material.sha256):
            raise RiyazError("the text has changed since the run began", str(paths[0]), "begin anew")
        self.run.write(text_sha256=material.sha256)
        return material

    def _judge(self, distillation: Distillation) -> None:
        """Measure the model as it is, and rounded without training, where that is not done."""
        run = self.run
        if run.document.loss_rounded is not None:
            return
        run.phase("measure", "the model as it is, and rounded only")
        if run.document.loss_before is None:
            run.write(loss_before=distillation.loss(distillation.teacher))
        run.write(loss_rounded=distillation.rounded_loss())

    def _plan(self, distillation: Distillation, memory: float) -> "TrainPlan":
        """The plan of the run, measured and written to plan.json at first. Raises RiyazError where the budget holds too
        few steps."""
        from riyaz.train import TrainPlan

        written = self.folder.read(PLAN)
        if written is not None:
            self.planned = float(written.pop("before"))
            plan: TrainPlan = from_json(TrainPlan, written, str(self.folder.path / PLAN), ELSEWHERE)
            return plan
        options, rows = self.options, distillation.material.train
        longest = max(len(row.prompt) + len(row.answer) for row in rows)
        batch = max(1, min(STEP_TOKENS // longest, len(rows)))
        self.run.phase("measure", "speed of this machine")
        seconds = distillation.step_seconds(batch)
        rates = (options.learning_rate,) if options.learning_rate else RATES
        trained = 1 + OPENING * (len(rates) - 1)  # the openings of other rates counted, as a share of the steps
        left = (options.budget - self.run.spent() - END_SECONDS) * SHARE
        steps = options.steps or int(left / seconds / trained)
        if steps < LEAST_STEPS and not options.steps:
            what = f"the budget of {Seconds(options.budget)} holds {max(steps, 0)} steps of {seconds:.1f}s"
            raise RiyazError(f"{what}; {LEAST_STEPS} are the fewest", "--budget", "give more time or a smaller model")
        every = max(1, steps // VALIDATIONS)
        plan = TrainPlan(
            steps, rates[0], batch_size=batch, final=0.0, steady=max(1, round(OPENING * steps)), betas=(0.9, 0.95),
            validate_every=every, patience=steps, checkpoint_every=every, micro_tokens=MICRO_TOKENS,
            compute=distillation.compute, seed=options.seed,
        )  # fmt: skip
        self.planned, self.plans = self.run.spent(), True
        disk = self.run.document.parameters * 4 * (7 + 3 * len(rates)) / hardware.MB
        self.run.estimate(self.planned + seconds * steps * trained / SHARE + END_SECONDS, memory, disk)
        self._keep(plan)
        self.run.write(plan=asdict(plan))
        return plan

    def _rate(self, plan: "TrainPlan", distillation: Distillation) -> float:
        """The learning rate: the given one, else that whose opening ends with the lowest loss on held-out text, where
        the run goes on."""
        import numpy as np

        from riyaz.methods.fitting.learning_rate import chosen
        from riyaz.train import Diverged, row_nats

        known = self.run.document.rate or self.options.learning_rate
        if known:
            return known
        losses, valid = {}, distillation.material.valid
        for rate in RATES:
            self.run.phase("search", f"rate {rate:g}")
            model, opening = distillation.student(), replace(plan, learning_rate=rate).opening()
            try:
                distillation.train(model, opening, _opening(rate), self.run.listen)
                losses[rate] = np.array(row_nats(model.eval(), valid))
            except Diverged:
                losses[rate] = np.full(len(valid), np.inf)
        rate, record = chosen(losses, np.array([len(row.answer) for row in valid]))
        self.run.write(search=record, rate=rate)
        self.run.note(f"learning rate: {rate:g}, of {', '.join(f'{rate:g}' for rate in RATES)} the lowest loss")
        return rate

    def _train(self, plan: "TrainPlan", distillation: Distillation) -> TernarizeRun:
        """The run, from the opening on; then the model is rounded to the compute type, judged and written."""
        run = self.run
        run.phase("train")
        opening, start = _opening(plan.learning_rate), time.monotonic()
        begun = distillation.seconds("train") or distillation.seconds(opening)
        if self.plans:
            before = max(0.0, start - run.began - begun)
        else:  # what an earlier command took beside training is not known
            others = {_opening(rate) for rate in RATES} - {opening}
            before = self.planned + sum(map(distillation.seconds, others))
        clock: float | None = None  # seconds of the run at its last step, those of its opening included

        def listen(event: Event) -> None:
            nonlocal clock
            clock = begun + time.monotonic() - start
            run.listen(replace(event, method=NAME) if isinstance(event, Progress) else event)

        pace = Pace(
            budget=None if self.options.steps else self.options.budget, before=before, step_seconds=1.0,
            end=END_SECONDS, clock=lambda: clock, record=self._keep,
        )  # fmt: skip
        model = distillation.student()
        state = distillation.train(model, plan, "train", listen, begun=self.folder.work / opening, pace=pace)
        material, tokenizer = distillation.material, distillation.source.tokenizer()
        loss, written = run.write_model(model, tokenizer, material.valid, MICRO_TOKENS, plan.compute)
        run.write(status="done", loss=loss, tokens=state.tokens, seconds=before + state.seconds, mb=written.mb)
        self.folder.clean()
        return run.document

    def _keep(self, plan: "TrainPlan") -> None:
        self.folder.write(PLAN, asdict(plan) | {"before": self.planned})


def _refuse_family(source: Source, family: Family[Any]) -> None:
    """Raises RiyazError for a model that is ternary already, or that cannot be a teacher."""
    if family.has_ternary:
        raise RiyazError(f"{source.name} is ternary already", str(source.path), "give a full-precision model")
    if getattr(family.config, "logit_cap", None):
        raise RiyazError(f"{source.name} caps its logits, which riyaz cannot distil", str(source.path))


def _opening(rate: float) -> str:
    """The folder in work/ of an opening's checkpoint."""
    return f"opening-{rate:g}"
