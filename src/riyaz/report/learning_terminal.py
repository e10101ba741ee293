"""What a person sees on the terminal when a pretraining run has ended."""

import textwrap

from rich.console import Console
from rich.text import Text

from riyaz.report import learning_words as words
from riyaz.report.learning_words import Run, chance, compact, cost, points, powers, share, token
from riyaz.report.words import duration, number

SHOWN = 3  # next words before and after
LETTERS = 300  # of the last sample


def print_learning(run: Run, metrics: list[dict], samples: list[dict], out: Console) -> None:
    """What happened in a few sentences, the key figures, the next word before and after, and one sample."""
    out.print(Text.assemble((f"{run.get('status') or 'run'}  ", "dim"), (words.name(run), "bold")))
    out.print(textwrap.fill(" ".join(words.story(run, metrics)), out.width))
    out.print()
    for title, line in [*_figures(run, metrics), *_next(samples)]:
        out.print(Text.assemble((f"{title:<17}", "dim"), line), soft_wrap=True)
    texts = words.sampled(samples)
    if texts:
        prompt, text = texts[-1][1][0]
        out.print(
            Text.assemble(("sample\n", "dim"), textwrap.indent(f"{prompt}{text}"[:LETTERS], "  ")), soft_wrap=True
        )


def _figures(run: Run, metrics: list[dict]) -> list[tuple[str, str]]:
    (loss, now), bits = words.judged(run, metrics), points(metrics, "bits_per_byte")
    times, peak = words.readings(run, metrics), cost(run, metrics, "peak_share")
    lines = [
        ("validation loss", f"{number(loss, 3)} nats per token"),
        ("bits per byte", number(now, 3)
         + (f", {number(bits[0][1], 3)} at step {number(bits[0][0])}" if len(bits) > 1 else "")),
        ("tokens read", compact(cost(run, metrics, "tokens"))
         + (f", {words.often(times)}" if times is not None else "")),
        ("speed", f"{number(cost(run, metrics, 'tokens_s'))} tokens a second"
         + (f", {share(peak)} of the machine's peak" if peak is not None else "")),
        ("cost", f"{duration(cost(run, metrics, 'seconds'))}, {powers(cost(run, metrics, 'flops'))} FLOP, "
         f"{number(cost(run, metrics, 'peak_rss_mb'))} MB"),
    ]  # fmt: skip
    return lines


def _next(samples: list[dict]) -> list[tuple[str, str]]:
    found = words.next_words(samples)
    if not found:
        return []
    sides = [found[0], found[-1]] if len(found) > 1 else found
    lines = [("next word", f"after “{found[-1][1]}”")]
    for step, _, pairs in sides:
        said = ", ".join(f"{token(text)} {chance(p)}" for text, p in pairs[:SHOWN])
        lines.append((f"  step {number(step)}", said))
    return lines
