"""`riyaz limits` from a target to limits.json: opens it, estimates, measures every suite within the budget.

    limits = measure_target("smollm2-135m", LimitsConfig(suite=("bias",)))

The time of everything is estimated first, from a few measured seconds; where it is more than the budget the suites get
equal times and take fewer items, and say so.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from riyaz import adapters, artifact, hardware
from riyaz.artifact import Artifact
from riyaz.config import LimitsConfig
from riyaz.data.tables import read_table
from riyaz.engine.request import Request
from riyaz.errors import RiyazError, brief
from riyaz.events import Estimate, Listen, Note, Phase, quiet
from riyaz.families import describe
from riyaz.limits import bbq, bias, context, cost, fragile, own_rows, pairs, truth, truths
from riyaz.limits.ask import first_token, plain
from riyaz.limits.inputs import Inputs, Speed
from riyaz.limits.limits_file import artifact_hash
from riyaz.predictor import Predictor, open_target
from riyaz.results import FIT, SUITES, Fit, Limits
from riyaz.sources import open_source

MODULES = {"bias": bias, "truth": truth, "context": context, "cost": cost, "fragile": fragile}
PROBE, WRITTEN = 24, 12  # texts read and tokens written to measure the speed
PROBE_TEXT = "The meeting begins at nine, and we will talk about the plans for the coming year before lunch."


def measure_target(
    target: str, config: LimitsConfig, *, command: str = "", listen: Listen = quiet, opened: Predictor | None = None
) -> Limits:
    """What the model, artifact or adapter of this name or path cannot do; `opened` is it where it is open already, in
    the precision to measure in. Raises RiyazError."""
    began = time.monotonic()
    names = _suites(config)
    inputs = _inputs(target, config, opened, listen)
    listen(Phase("measure", "speed"))
    speed = _speed(inputs)
    works = {name: MODULES[name].work(inputs) for name in names}
    seconds = {name: speed.seconds(work) for name, work in works.items()}
    needed = sum(seconds.values())
    left = max(1.0, float(config.budget) - (time.monotonic() - began))
    shares = divided(seconds, left)
    listen(Estimate(min(needed, left), hardware.peak_rss() / hardware.MB, 0.0))
    short = [f"{name} {share:.0%}" for name, share in shares.items() if share < 1]
    if short:
        listen(Note(f"the budget is too short for all items; about so many are measured: {', '.join(short)}"))
    suites = []
    for name in names:
        listen(Phase("limits", f"{name}, about {shares[name] * seconds[name]:,.0f} s"))
        since = time.monotonic()
        suite = MODULES[name].measure(inputs, shares[name])
        suites.append(replace(suite, seconds=time.monotonic() - since))
    return Limits(
        target=target, sha256=_hash(target), suites=suites, served=inputs.predictor.served,
        budget_seconds=float(config.budget), estimate_seconds=needed,
        seconds=time.monotonic() - began, date=time.strftime("%Y-%m-%d"), hardware=hardware.describe(Path(".")),
        command=command, version=hardware.versions(["riyaz"]).get("riyaz", ""),
    )  # fmt: skip


def divided(seconds: Mapping[str, float], budget: float) -> dict[str, float]:
    """The share of its items that each suite measures, by the seconds of all of them: equal times, and what a suite
    does not need goes to the others."""
    shares, left = {}, budget
    for place, name in enumerate(sorted(seconds, key=seconds.__getitem__)):
        taken = min(seconds[name], left / (len(seconds) - place))
        shares[name] = taken / seconds[name] if seconds[name] else 1.0
        left -= taken
    return {name: shares[name] for name in seconds}


def _suites(config: LimitsConfig) -> list[str]:
    """The suites to measure, in their order. Raises RiyazError for an unknown one."""
    for name in config.suite:
        if name not in SUITES:
            raise RiyazError(f"unknown suite {brief(name)}", "--suite", f"choose from {', '.join(SUITES)}")
    return [name for name in SUITES if name in (config.suite or SUITES)]


def _inputs(target: str, config: LimitsConfig, opened: Predictor | None, listen: Listen) -> Inputs:
    """Everything that is measured on, read and checked before anything is measured. Raises RiyazError."""
    sets, questions = [], []
    for name in config.pairs:
        path = Path(name)
        table = read_table(path, numbered=True) if path.is_file() and path.suffix != ".json" else None
        if table is not None and bbq.is_bbq(set(table.columns)):
            questions.append(bbq.read(table))
        else:
            sets.append(pairs.read(path))
    claims = [truths.read(read_table(Path(name), numbered=True)) for name in config.questions]
    predictor = open_target(target, precision=config.precision) if opened is None else opened
    if predictor.has_questions:
        raise RiyazError("answers several questions, and limits are measured of one answer", target, "give its base")
    rows, answering = own_rows.own_rows(target, predictor, config, listen)
    documents = own_rows.named_documents(config.documents, rows, listen) if config.documents else {}
    return Inputs(
        predictor, config, sets, questions, claims, answering, rows, documents, _parameters(target), _fitted(target)
    )  # fmt: skip


def _parameters(target: str) -> int | None:
    """The number of the model's parameters; None where no language model answers."""
    folder = artifact.resolve(target)
    if (folder / artifact.NAME).is_file():
        base = Artifact.read(folder).base
        return base.parameters if base else None
    return describe(open_source(target)).parameters if not (folder / adapters.CONFIG).is_file() else None


def _fitted(target: str) -> float | None:
    """Seconds of search and training of an arm of a comparison; None for any other target."""
    path = artifact.resolve(target).parent / FIT
    if not path.is_file():
        return None
    fit = Fit.read(path)
    return fit.search_seconds + fit.train_seconds


def _hash(target: str) -> str | None:
    """The hash by which limits.json knows what it was measured on: of an artifact's riyaz.json, else of the weights."""
    folder = artifact.resolve(target)
    if (folder / artifact.NAME).is_file():
        return artifact_hash(folder)
    try:
        return open_source(target).sha256()
    except RiyazError:  # an adapter's folder
        return None


def _speed(inputs: Inputs) -> Speed:
    """Tokens read and written per second, and seconds for one of the user's rows, from a few of each."""
    row = 0.0
    if inputs.rows is not None and inputs.answering is not None:
        few = [each.messages for each in inputs.rows.test[:8]]
        inputs.answering.answers(few[:1])
        began = time.perf_counter()
        inputs.answering.answers(few)
        row = (time.perf_counter() - began) / len(few)
    if inputs.model is None:
        return Speed(math.inf, math.inf, row)
    model = plain(inputs.model)
    ids = tuple(model.tokenizer.encode(PROBE_TEXT))
    requests = [Request(i, first_token(model), adapter=model.adapter) for i in range(PROBE)]
    model.lm.logprobs(requests[:2], [ids] * 2)
    began = time.perf_counter()
    model.lm.logprobs(requests, [ids] * PROBE)
    read = PROBE * len(ids) / (time.perf_counter() - began)
    began = time.perf_counter()
    model.lm.generate([Request(0, (*first_token(model), *ids), adapter=model.adapter, limit=WRITTEN)])
    return Speed(read, WRITTEN / (time.perf_counter() - began), row)
