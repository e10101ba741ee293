"""The summary of a pretraining run on the terminal."""

import textwrap

from rich.console import Console
from rich.text import Text

from riyaz.report.pretraining import words
from riyaz.report.pretraining.words import chance, compact, cost, points, powers, share, token
from riyaz.report.words import duration, number
from riyaz.results import PretrainRun, Samples, StepMetrics

SHOWN = 3  # next tokens shown of the first and the last step
LETTERS = 300  # characters shown of the last sample


def print_run(run: PretrainRun, metrics: list[StepMetrics], samples: list[Samples], out: Console) -> None:
    """Prints a few sentences, the key figures, the next tokens at the first and last step, and one sample."""
    out.print(Text.assemble((f"{run.status}  ", "dim"), (words.name(run), "bold")))
    out.print(textwrap.fill(" ".join(words.story(run, metrics)), out.width))
    out.print()
    for title, line in [*_figures(run, metrics), *_next(samples)]:
        out.print(Text.assemble((f"{title:<17}", "dim"), line), soft_wrap=True)
    texts = words.sampled(samples)
    if texts:
        first = texts[-1][1][0]
        written = f"{first.prompt}{first.text}"
        sample = textwrap.indent(written[:LETTERS] + ("…" if len(written) > LETTERS else ""), "  ")
        out.print(Text.assemble(("sample\n", "dim"), sample), soft_wrap=True)


def _figures(run: PretrainRun, metrics: list[StepMetrics]) -> list[tuple[str, str]]:
    (loss, now), bits = words.judged(run, metrics), points(metrics, "bits_per_byte")
    times, took = words.readings(run, metrics), cost(run, metrics)
    peak = took.peak_share
    lines = [
        ("validation loss", f"{number(loss, 3)} nats per token"),
        ("bits per byte", number(now, 3)
         + (f", {number(bits[0][1], 3)} at step {number(bits[0][0])}" if len(bits) > 1 else "")),
        ("tokens read", compact(took.tokens)
         + (f", {words.often(times)}" if times is not None else "")),
        ("speed", f"{number(took.tokens_s)} tokens per second"
         + (f", {share(peak)} of the machine's peak" if peak is not None else "")),
        ("cost", f"{duration(took.seconds)}, {powers(took.flops)} FLOP, "
         f"{number(took.peak_rss_mb or None)} MB"),
    ]  # fmt: skip
    return lines


def _next(samples: list[Samples]) -> list[tuple[str, str]]:
    looks = words.next_words(samples)
    if not looks:
        return []
    sides = [looks[0], looks[-1]] if len(looks) > 1 else looks
    lines = [("next word", f"after “{looks[-1][1]}”")]
    for step, _, pairs in sides:
        likely = ", ".join(f"{token(word.text)} {chance(word.p)}" for word in pairs[:SHOWN])
        lines.append((f"  step {number(step)}", likely))
    return lines
