"""Cost of 1,000 answers, one at a time and 16 together: seconds, computation, energy, memory, money and CO2."""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from riyaz import hardware
from riyaz.data import Message
from riyaz.limits.energy import ESTIMATED, MEASURED, WATTS, Meter, Used
from riyaz.limits.inputs import Inputs, Work
from riyaz.limits.templates import read_data
from riyaz.predictor import Predictor
from riyaz.results import Figure, Part, Suite

TOGETHER, ALONE, LEAST = 16, 8, 2  # answers
TOKENS = 32  # of an answer where there are no rows
THOUSAND = 1000
BLIND = (
    "This machine at this hour, with what else ran on it; buying it, cooling it and the people who run it are not "
    "counted. Intervals are over the answers measured, not over machines."
)


def work(inputs: Inputs) -> Work:
    """The answers to a few prompts."""
    count = TOGETHER + ALONE
    return Work(rows=count) if inputs.rows else Work(read=60 * count, written=TOKENS * count)


def measure(inputs: Inputs, share: float = 1.0) -> Suite:
    """Answers to the user's rows, or to easy questions, and what they cost."""
    answering = inputs.answering or inputs.predictor
    limit = None
    if inputs.rows is not None:
        prompts, source = [list(row.messages) for row in inputs.rows.test[:TOGETHER]], inputs.rows.source
    else:
        questions = read_data("questions.json")["questions"][:TOGETHER]
        prompts, source = [[{"role": "user", "content": item["question"]}] for item in questions], "easy questions"
        limit = TOKENS
    alone = max(LEAST, min(len(prompts), round(ALONE * share)))
    answering.answers(prompts[:1], max_tokens=limit)
    times, used = [], []
    for prompt in prompts[:alone]:
        meter = Meter()
        answering.answers([prompt], max_tokens=limit)
        used.append(meter.stop())
        times.append(used[-1].seconds)
    meter = Meter()
    texts = [each.text for each in answering.answers(prompts, max_tokens=limit)]
    together = meter.stop()
    read, written = _tokens(answering, prompts, texts)
    single = Used(float(np.mean(times)), float(np.mean([each.joules for each in used])), used[0].measured)
    many = Used(together.seconds / len(prompts), together.joules / len(prompts), together.measured)
    spread = float(stdtrit(len(times) - 1, 0.975)) * float(np.std(times, ddof=1)) / len(times) ** 0.5
    peak = hardware.peak_rss() / hardware.MB
    figures = [
        Figure("time of 1,000 answers", THOUSAND * single.seconds, THOUSAND * max(0, single.seconds - spread),
               THOUSAND * (single.seconds + spread), alone, "seconds", "one at a time"),
        Figure("time of 1,000 answers", THOUSAND * many.seconds, n=len(prompts), unit="seconds",
               group=f"{TOGETHER} together"),
        *_energy(inputs, single, alone, "one at a time"), *_energy(inputs, many, len(prompts), f"{TOGETHER} together"),
        Figure("tokens read per answer", read, n=len(prompts), unit="tokens"),
        Figure("tokens written per answer", written, n=len(prompts), unit="tokens"),
        *([Figure("peak memory", peak, n=1, unit="MB")] if peak else []),
    ]  # fmt: skip
    if inputs.parameters:
        figures.append(Figure("computation of 1,000 answers", THOUSAND * 2.0 * inputs.parameters * (read + written),
                              n=len(prompts), unit="FLOP"))  # fmt: skip
    figures += _training(inputs)
    figures += _elsewhere(inputs, many, read + written)
    what = (
        f"{alone} answers one at a time and {len(prompts)} together, on {hardware.threads()} threads of "
        f"{hardware.cpu_model()}. Computation: 2 FLOP for each parameter and token, as is usual."
    )
    notes = [MEASURED if single.measured else ESTIMATED]
    if inputs.config.price_per_million is not None and inputs.config.price_per_hour is None:
        notes.append("To compare with --price-per-million, give the price of this machine too: --price-per-hour.")
    return Suite("cost", [Part("1,000 answers", source, what, figures, BLIND, notes)])


def _tokens(answering: Predictor, prompts: Sequence[Sequence[Message]], texts: Sequence[str]) -> tuple[float, float]:
    """Mean tokens read and written per answer."""
    if not answering.has_model:
        return 0.0, 0.0
    prepared = answering.prepare(prompts)
    written = answering.tokenizer.answer_ids(list(texts))
    return float(np.mean([each.request.length for each in prepared])), float(np.mean([len(ids) for ids in written]))


def _energy(inputs: Inputs, used: Used, n: int, group: str) -> list[Figure]:
    """Energy, money and CO2 of 1,000 answers that each use so much."""
    figures = [Figure("energy of 1,000 answers", THOUSAND * used.joules, n=n, unit="J", group=group)]
    config = inputs.config
    if config.price_per_hour is not None:
        price = THOUSAND * used.seconds * config.price_per_hour / 3600
        figures.append(Figure("price of 1,000 answers", price, n=n, unit="money", group=group))
    if config.carbon is not None:
        grams = THOUSAND * used.joules / 3.6e6 * config.carbon
        figures.append(Figure("CO2 of 1,000 answers", grams, n=n, unit="g", group=group))
    return figures


def _training(inputs: Inputs) -> list[Figure]:
    seconds = inputs.training_seconds
    if seconds is None:
        return []
    joules = seconds * WATTS * hardware.threads()
    figures = [
        Figure("time to make it, search included", seconds, n=1, unit="seconds", group="training"),
        Figure("energy to make it, estimated", joules, n=1, unit="J", group="training"),
    ]
    if inputs.config.carbon is not None:
        grams = joules / 3.6e6 * inputs.config.carbon
        figures.append(Figure("CO2 to make it, estimated", grams, n=1, unit="g", group="training"))
    if inputs.config.price_per_hour is not None:
        price = seconds * inputs.config.price_per_hour / 3600
        figures.append(Figure("price to make it", price, n=1, unit="money", group="training"))
    return figures


def _elsewhere(inputs: Inputs, used: Used, tokens: float) -> list[Figure]:
    """The price of the same tokens elsewhere, and after how many answers this machine is cheaper: None for never."""
    per_million, per_hour = inputs.config.price_per_million, inputs.config.price_per_hour
    if per_million is None:
        return []
    there = per_million * tokens / 1e6
    figures = [Figure("price of 1,000 answers", THOUSAND * there, n=1, unit="money", group="elsewhere")]
    if per_hour is not None:
        here, made = used.seconds * per_hour / 3600, (inputs.training_seconds or 0.0) * per_hour / 3600
        even = break_even(here, there, made)
        name = "cheaper here after so many answers" if even is not None else "never cheaper here at these prices"
        figures.append(Figure(name, even, n=1, unit="count", group=f"{TOGETHER} together"))
    return figures


def break_even(here: float, there: float, made: float) -> float | None:
    """After how many answers a price of `made` and `here` per answer is less than `there` per answer; None: never."""
    return made / (there - here) if here < there else None
