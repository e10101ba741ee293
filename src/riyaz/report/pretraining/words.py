"""Figures and sentences about a pretraining run, shared by its page and its summary on the terminal.

A run that is not finished has no result and no cost; sentences leave out what is unknown.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from riyaz.errors import RiyazError
from riyaz.report.words import MISSING, count, duration, number
from riyaz.results import METRICS, RUN, SAMPLES, PretrainRun, Samples, StepMetrics, Text, Word

ENOUGH = 20  # tokens per parameter with the lowest loss for given computation (Hoffmann et al. 2022, arXiv 2203.15556)
READINGS = 4  # readings of a text that help almost as much as new text (Muennighoff et al. 2023, arXiv 2305.16264)
EXACT = {"steps", "compute", "validate_every"}  # flags that replace values derived from the measured speed
PLANNED = {"batch": "batch_size", "steps": "steps", "validate-every": "validate_every"}
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SPACE, LINE, TAB = "␣", "⏎", "⇥"  # shown for a space at a token's edge, a line end, a tab
HINT = "give the folder that riyaz pretrain wrote"


def read_run(folder: Path) -> tuple[PretrainRun, list[StepMetrics], list[Samples]]:
    """(run, metrics, samples) of a folder of `riyaz pretrain`, metrics and samples by step. Raises RiyazError."""
    if not (folder / RUN).is_file():
        raise RiyazError("there is no pretraining run here", str(folder), HINT)
    return PretrainRun.read(folder / RUN), StepMetrics.read(folder / METRICS), Samples.read(folder / SAMPLES)


Figure = Literal["loss", "learning_rate", "seconds", "tokens_s", "peak_share", "valid_loss", "bits_per_byte"]


def points(metrics: list[StepMetrics], figure: Figure) -> list[tuple[float, float]]:
    """(step, value) of every step at which the figure was measured."""
    values: list[tuple[int, float | None]] = [(entry.step, getattr(entry, figure)) for entry in metrics]
    return [(step, value) for step, value in values if value is not None]


def best(metrics: list[StepMetrics]) -> StepMetrics | None:
    """The validation with the lowest loss."""
    validations = [(entry.valid_loss, entry) for entry in metrics if entry.valid_loss is not None]
    return min(validations, key=lambda pair: pair[0])[1] if validations else None


@dataclass(frozen=True)
class HeldOut:
    """The one figure on held-out text that a report states: nats per token, and bits per byte, at a step."""

    step: int
    loss: float
    bits: float | None
    finished: bool


def held_out(run: PretrainRun, metrics: list[StepMetrics]) -> HeldOut | None:
    """The result of a finished run, else its best validation; None before the first one."""
    if run.result is not None:
        return HeldOut(run.result.best_step, run.result.valid_loss, run.result.bits_per_byte, True)
    lowest = best(metrics)
    if lowest is None or lowest.valid_loss is None:
        return None
    return HeldOut(lowest.step, lowest.valid_loss, lowest.bits_per_byte, False)


def judged(run: PretrainRun, metrics: list[StepMetrics]) -> tuple[float | None, float | None]:
    """(nats per token, bits per byte) of `held_out`."""
    judgement = held_out(run, metrics)
    return (judgement.loss, judgement.bits) if judgement else (None, None)


def other_windows(run: PretrainRun) -> str:
    """A sentence where the validations were on other windows than the result; empty where they were on the same."""
    during = (run.plan or {}).get("valid_windows")
    if run.result is None or during is None or during == run.result.windows:
        return ""
    then, at_last = count(during, "piece"), count(run.result.windows, "piece")
    line = f" While it trained, it was judged on {then} of held-out text, the line"
    return f"{line}; the finished model on {at_last}, the mark, which is the figure of this page."


def length(run: PretrainRun, metrics: list[StepMetrics]) -> list[str]:
    """Sentences on the budget and the steps: how long it could take, what a step is, and when it was judged."""
    plan, model, took = run.plan or {}, run.model, cost(run, metrics)
    budget, steps, batch, every = (
        run.asked.get("budget"),
        plan.get("steps"),
        plan.get("batch_size"),
        plan.get("validate_every"),
    )
    lines = []
    if isinstance(budget, int | float):
        used = f"; it took {duration(took.seconds)}" if run.status == "done" and took.seconds is not None else ""
        lines.append(f"It had a budget of {duration(budget)} for everything, from reading the text to this page{used}.")
    if steps is not None:
        reason = next((one.why for one in run.derived or [] if one.name == "steps"), "")
        origin = " as asked" if reason == "given" else f": {reason}" if reason else ""
        lines.append(f"The plan was {count(steps, 'step')}{origin}.")
    if batch is not None and model is not None:
        read = (
            f"read {count(batch, 'piece')} of {number(model.context)} tokens ({number(batch * model.context)} tokens)"
        )
        weights = f"changed all its {compact(model.parameters)} weights a little"
        done, seconds = steps_done(metrics), metrics[-1].seconds if metrics else None
        each = f", which took {duration(seconds / done)}" if seconds is not None and done else ""
        lines.append(f"In each step it {read}, guessed every next token, and {weights}{each}.")
    if every is not None:
        windows = plan.get("valid_windows")
        on = f"{count(windows, 'piece')} of text" if windows is not None else "text"
        lines.append(f"After every {count(every, 'step')} it was judged on {on} that it never learned from.")
    return lines


def steps_done(metrics: list[StepMetrics]) -> int:
    """Steps the run has taken."""
    return metrics[-1].step if metrics else 0


@dataclass(frozen=True)
class Cost:
    """Time, tokens, computation (FLOP), speed and memory of a run; None where unknown."""

    seconds: float | None = None
    tokens: int | None = None
    flops: float | None = None
    tokens_s: float | None = None
    peak_share: float | None = None
    peak_rss_mb: float | None = None


def cost(run: PretrainRun, metrics: list[StepMetrics]) -> Cost:
    """The cost of the whole run; before it is finished, the last figures of metrics.jsonl."""
    if run.cost:
        return Cost(**vars(run.cost))

    def last(figure: Figure) -> float | None:
        return next((value for _, value in reversed(points(metrics, figure))), None)

    return Cost(seconds=last("seconds"), tokens_s=last("tokens_s"), peak_share=last("peak_share"))


def compact(count: float | None) -> str:
    """`5.2 million`, `1.3 billion`, `83,200`."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if count is not None and count >= 0.9995 * size:
            return f"{count / size:,.1f} {name}"
    return number(count)


def powers(value: float | None) -> str:
    """A positive number as `4.1 × 10¹⁴`; a dash for others."""
    if value is None or value <= 0:
        return MISSING
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(SUPERSCRIPT)}"


def share(value: float | None) -> str:
    """A share as `43 %`."""
    return MISSING if value is None else f"{100 * value:.0f} %"


def chance(p: float | None) -> str:
    """A probability as `12.3 %`, `0.02 %`, `<0.01 %`."""
    if p is None:
        return MISSING
    return "<0.01 %" if p < 0.00005 else f"{100 * p:.{1 if p >= 0.00995 else 2}f} %"


def token(text: object) -> str:
    """A token with visible spaces at its edges and visible line ends and tabs: `␣jumps`."""
    shown = str(text).replace("\n", LINE).replace("\t", TAB)
    inner = shown.strip(" ")
    left = len(shown) - len(shown.lstrip(" "))
    return SPACE * left + inner + SPACE * (len(shown) - left - len(inner)) if inner else SPACE * len(shown) or "(empty)"


def readings(run: PretrainRun, metrics: list[StepMetrics]) -> float | None:
    """How many times the training text was read: tokens read over tokens of training text."""
    tokens, there = cost(run, metrics).tokens, run.text.train_tokens
    return tokens / there if tokens is not None and there else None


def name(run: PretrainRun) -> str:
    """`llama, 5.2 million parameters`."""
    return f"{run.model.family}, {compact(run.model.parameters)} parameters" if run.model else "model"


def story(run: PretrainRun, metrics: list[StepMetrics]) -> list[str]:
    """Sentences on what was read, what was learned and how the run ended."""
    tokens, seconds = cost(run, metrics).tokens, cost(run, metrics).seconds
    took = f" in {duration(seconds)}" if seconds is not None else ""
    times = readings(run, metrics)
    much = f", {often(times)}," if times is not None else ""
    what = f"{compact(tokens)} tokens of text{much}" if tokens is not None else "text"
    begun = f"A model that began with random weights read {what}{took}."
    return [begun, *_shortened(run), *_learned(run, metrics), *_ended(run, metrics)]


def _shortened(run: PretrainRun) -> list[str]:
    planned = (run.plan or {}).get("steps")
    if run.length is None or planned is None or run.length >= planned:
        return []
    why = "because the machine was slower than when it was measured; the learning rate fell to its end all the same"
    return [f"To stay within its budget it took {number(run.length)} instead of {number(planned)} steps, {why}."]


def often(times: float) -> str:
    """The readings of the training text as text: `1.5 times its training text`, `3 % of its training text`."""
    if times < 0.005:
        return "less than 1 % of its training text"
    return f"{number(times, 1)} times its training text" if times > 1 else f"{share(times)} of its training text"


def _learned(run: PretrainRun, metrics: list[StepMetrics]) -> list[str]:
    (loss, bits), vocabulary = judged(run, metrics), run.tokenizer.vocab if run.tokenizer else None
    if loss is None:
        return ["It was never validated, so its loss on held-out text is unknown."]
    begins = f"{number(math.log(vocabulary), 2)} for guessing evenly" if vocabulary and vocabulary > 1 else ""
    first = next((value for _, value in points(metrics, "valid_loss")), loss)
    before = begins or (f"{number(first, 2)} at first" if first != loss else "")
    line = f"On held-out text its loss is {number(loss, 2)} nats per token"
    line += f" ({before})" if before else ""
    line += f", which is {number(bits, 2)} bits per byte" if bits is not None else ""
    ways = math.exp(min(loss, 60))
    wide = f": on average that is as uncertain as a draw from {compact(round(ways)) if ways >= 10 else number(ways, 1)}"
    wide += " tokens with equal chances"
    wide += f", out of {number(vocabulary)}" if vocabulary else ""
    return [f"{line}{wide}."]


def _ended(run: PretrainRun, metrics: list[StepMetrics]) -> list[str]:
    done, planned, lowest = steps_done(metrics), run.length or (run.plan or {}).get("steps"), best(metrics)
    of = f" of {number(planned)}" if planned is not None else ""
    if run.status == "running":
        return [f"It is at step {number(done)}{of} and still running, or was killed; these are its figures so far."]
    if run.status == "stopped":
        return [f"It was stopped at step {number(done)}{of}; the same command with --resume continues it."]
    losses = points(metrics, "valid_loss")
    if lowest is None or len(losses) < 2:
        return []
    held = run.result.best_step if run.result else None
    if held is not None and held != lowest.step:
        line = f"Its validation loss was lowest at step {number(lowest.step)}{of}, but the folder holds the weights"
        return [
            f"{line} of step {number(held)}: the others were lost, or measured differently before and after a stop."
        ]
    if planned is not None and done < planned:
        worse = f"its validation loss had not fallen since step {number(lowest.step)}, whose weights the folder holds"
        return [f"It ended early at step {number(done)}{of}: {worse}."]
    if losses[-1][0] == lowest.step:
        return ["Its validation loss was lowest at the end: a longer run would probably reach a lower one."]
    line = f"Its validation loss was lowest at step {number(lowest.step)}{of}; the folder holds those weights"
    above = losses[-1][1] - min(value for _, value in losses)
    return [f"{line}. After that it memorised its training text." if above > 0.05 else f"{line}."]


def keep_in_mind(run: PretrainRun, metrics: list[StepMetrics]) -> list[str]:
    """Limits of the figures that follow from the run's files, one sentence each."""
    parameters = run.model.parameters if run.model else None
    tokens, times, twins = cost(run, metrics).tokens, readings(run, metrics), run.text.near_duplicates
    notes = ["Validation blocks come from the same files as the training text: on other text the loss is higher."]
    if twins:
        notes.append(f"{number(twins)} validation blocks almost repeat training text, so the loss is slightly too low.")
    if tokens is not None and parameters:
        ratio = tokens / parameters
        line = f"{number(ratio, 1 if ratio < 10 else 0)} tokens were read per parameter; about {ENOUGH} give the lowest"
        notes.append(f"{line} loss for a given computation (Hoffmann et al. 2022).")
    if times is not None and times > READINGS:
        line = f"It read its text {number(times, 1)} times; after about {READINGS} readings"
        notes.append(f"{line}, each further one helps less (Muennighoff et al. 2023).")
    notes += [
        "It imitates its training text. What it writes is not checked against anything and is mostly not true.",
        "Models with different tokenizers can be compared in bits per byte, not in nats per token.",
        "One seed. Times and memory were measured on the machine named above.",
    ]
    return notes


def again(run: PretrainRun) -> str:
    """Which command gives the same weights again, if there is one."""
    options, plan = run.asked, run.plan or {}
    if run.resumed_with:
        named = ", ".join(f"{name} {version}" for name, version in run.resumed_with.items())
        return f"It was stopped and continued with {named}, so no command gives the same weights to the last bit."
    if run.length is not None:
        return "Its length was changed while it trained, by the clock, so no command gives the same weights."
    if options.keys() >= EXACT:
        return "The same command on the same text and machine gives the same weights."
    values = [("layers", run.model.layers), ("heads", run.model.heads), ("width", run.model.width)] if run.model else []
    values += [(name, plan[key]) for name, key in PLANNED.items()] if plan else []
    flags = [f"--{name} {value:g}" if value < 1e6 else f"--{name} {value:.0f}" for name, value in values if value]
    if plan.get("compute") in ("bfloat16", "float32"):
        flags.append(f"--compute {plan['compute']}")
    reason = "Some values come from the measured speed, which differs each time; plan.json has them."
    return f"{reason} The same command without --budget and --size, but with {' '.join(flags)}, gives the same weights."


def spaced(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, with the first and the last, denser at the beginning, where most changes."""
    if count <= most:
        return list(range(count))
    last, chosen = count - 1, [0]
    for turn in range(1, most):
        wanted = round(last ** (turn / (most - 1)))
        chosen.append(min(max(wanted, chosen[-1] + 1), last - (most - 1 - turn)))
    return chosen


def sampled(samples: list[Samples]) -> list[tuple[int, list[Text]]]:
    """(step, sample texts) of every step at which the run wrote samples."""
    return [(entry.step, entry.texts) for entry in samples if entry.texts]


def next_words(samples: list[Samples]) -> list[tuple[int, str, list[Word]]]:
    """(step, prompt, next tokens, most likely first) of every step at which the run recorded them."""
    return [
        (entry.step, entry.next.prompt, sorted(entry.next.words, key=lambda word: -word.p))
        for entry in samples
        if entry.next and entry.next.words
    ]
