"""report.html of a pretraining run: one self-contained page, made only from run.json, metrics.jsonl and samples.jsonl.

It needs no script at all: samples are leafed through by radio buttons and the style sheet. Text from the model and from
files enters as escaped text (`markup`), as in the page of a comparison.
"""

from collections.abc import Callable
from pathlib import Path

from riyaz.files import to_document, write_text
from riyaz.report import details
from riyaz.report import learning_pictures as drawn
from riyaz.report import learning_words as words
from riyaz.report.arms import megabytes
from riyaz.report.learning_words import chance, compact, cost, points, powers, share, spaced, token
from riyaz.report.markup import Markup, element, join
from riyaz.report.page import Section, asset, page, tile
from riyaz.report.pictures import HALF, NARROW
from riyaz.report.tables import figure, grid, numbers
from riyaz.report.words import MISSING, duration, number, value
from riyaz.results import PretrainRun, Samples, StepMetrics, Text, Word

TABS = 9  # samples to leaf through; learning.css knows as many
LISTED = 300  # texts in the table of all samples
TABLED = 60  # rows of the figures behind a picture
COLUMNS, BARS = 5, 8  # looks at the next word, and words of each
TEXT = {"bytes": "bytes", "tokens": "tokens", "train_tokens": "to train on", "valid_tokens": "to validate on",
        "near_duplicates": "near-duplicate blocks"}  # fmt: skip


def write(folder: Path) -> Path:
    """Make `report.html` of the run in `folder` again, whole or not at all; its path.

    Raises RiyazError when there is no run or a file of it is damaged.
    """
    path = folder / "report.html"
    text = html(*words.read(folder))
    write_text(path, text)
    return path


def html(run: PretrainRun, metrics: list[StepMetrics], samples: list[Samples]) -> str:
    """The page of a run, also of one that is not finished."""
    sections: list[Section] = [
        ("learning", "Learning", "Learning", _learning(run, metrics)),
        ("next", "Next word", _next_title(samples), _next(samples)),
        ("samples", "Samples", "What it writes", _samples(samples)),
        ("derived", "Plan", "What was derived, and why", _derived(run)),
        ("cost", "Cost", "What it cost", _cost(run, metrics)),
        ("text", "Text", "The text it read", _text(run)),
        ("made", "How it was made", "How it was made", _made(run, metrics)),
        ("caveats", "Caveats", "What to keep in mind", _caveats(run, metrics)),
    ]
    foot = "Made by riyaz from run.json, metrics.jsonl and samples.jsonl; this file fetches nothing."
    style = Markup(asset("page.css") + asset("learning.css"))
    return page(f"Riyaz: {words.name(run)}", _head(run, metrics), sections, foot, style=style)


def _head(run: PretrainRun, metrics: list[StepMetrics]) -> Markup:
    loss, now = words.judged(run, metrics)
    bits = points(metrics, "bits_per_byte")
    times, took = words.readings(run, metrics), cost(run, metrics)
    tiles = [
        ("validation loss", number(loss, 3), "nats per token, on held-out text"),
        (
            "bits per byte",
            number(now, 3),
            f"{number(bits[0][1], 2)} at step {number(bits[0][0])}" if bits else "of validation text",
        ),
        (
            "tokens read",
            compact(took.tokens),
            words.often(times) if times is not None else "of training text",
        ),
        (
            "it took",
            duration(took.seconds),
            f"{number(took.tokens_s)} tokens a second",
        ),
        (
            "computation",
            powers(took.flops),
            "FLOP" + (f", at {share(took.peak_share)} of the peak" if took.peak_share is not None else ""),
        ),
        ("memory", megabytes(took.peak_rss_mb), "at the peak"),
    ]
    shown = [tile(title, found, more) for title, found, more in tiles if found != MISSING]
    return element(
        "header",
        element("p", element("b", "Riyaz"), " · pretraining", class_="over"),
        element("h1", words.name(run),
                element("span", run.status, class_=f"badge {'sure' if run.status == 'done' else 'unsure'}")),
        element("p", " ".join(words.story(run, metrics)), class_="lead"),
        element("dl", *shown, class_="tiles") if shown else None,
    )  # fmt: skip


Draw = Callable[[float, str], Markup | None]


def _figure(draw: Draw, name: str, caption: str, table: Markup | None) -> Markup | None:
    """A picture in its wide and its narrow form; None where nothing was measured."""
    pair = [draw(width, f"{name}{place}") for place, width in enumerate((HALF, NARROW))]
    return figure(pair, caption, table) if pair[0] else None


def _learning(run: PretrainRun, metrics: list[StepMetrics]) -> Markup | None:
    judged = [entry for entry in metrics if entry.valid_loss is not None] or metrics
    judged = [judged[place] for place in spaced(len(judged), TABLED)]
    rows = [
        [number(entry.step), *(number(value, 3) for value in (entry.loss, entry.valid_loss, entry.bits_per_byte))]
        for entry in judged
    ]
    table = numbers(["step", "training loss", "validation loss", "bits per byte"], rows)
    shown = [
        _figure(
            lambda width, name: drawn.loss(run, metrics, width, name), "l",
            "How surprised the model is by the next token, lower is better. Where validation turns up while training "
            "goes on down, the model learns its text by heart.", table,
        ),
        _figure(
            lambda width, name: drawn.bits(metrics, width, name), "b",
            "The same surprise for each byte of text: what a byte shrinks to, from 8 bits, when the model packs the "
            "text. It does not depend on the tokenizer.", None,
        ),
        _figure(
            lambda width, name: drawn.rate(metrics, width, name), "r",
            "How far each step moves the weights: a short rise, since the first gradients are wild, then a long fall.",
            None,
        ),
        _figure(
            lambda width, name: drawn.speed(metrics, width, name), "s",
            "Tokens that went through the model, forward and back, in a second.", None,
        ),
    ]  # fmt: skip
    return element("div", *shown, class_="pair") if any(shown) else None


def _next_title(samples: list[Samples]) -> str:
    found = words.next_words(samples)
    return f"What comes after “{found[-1][1]}”" if found else ""


def _next(samples: list[Samples]) -> Markup | None:
    """The likeliest next tokens at a few steps, on one scale; those that are likeliest in the end stand out."""
    found = words.next_words(samples)
    if not found:
        return None
    chosen = [found[place] for place in spaced(len(found), COLUMNS)]
    lasting = {word.text for word in found[-1][2][:BARS]}
    most = max(word.p for _, _, pairs in chosen for word in pairs)
    cards = [_look(step, pairs, most, lasting) for step, _, pairs in chosen]
    note = (
        f"The {BARS} likeliest next tokens. All bars have one scale; those among the last {BARS} are blue and bold. "
        f"{words.SPACE} is a space, {words.LINE} a new line."
    )
    return join(element("p", note, class_="meta"), element("ol", *cards, class_="looks"))


def _look(step: float, pairs: list[Word], most: float, lasting: set[str]) -> Markup:
    rows = [
        element(
            "tr",
            element("th", element("b" if word.text in lasting else "span", token(word.text)), scope="row"),
            element("td", drawn.chance_bar(word.p, most, word.text in lasting)),
            element("td", chance(word.p), class_="figure"),
        )
        for word in pairs[:BARS]
    ]
    when = "before training" if step == 0 else f"after step {number(step)}"
    head = element("tr", element("th", "token", scope="col"), element("th", "chance", scope="col", colspan=2))
    return element("li", element("table", element("caption", when), element("thead", head), element("tbody", *rows)))


def _samples(samples: list[Samples]) -> Markup | None:
    """Texts from the fixed prompts, one step at a time by radio buttons, then all of them as a table."""
    found = words.sampled(samples)
    if not found:
        return None
    chosen = [found[place] for place in spaced(len(found), TABS)]
    buttons, panels = [], []
    for place, (step, pairs) in enumerate(chosen):
        key, last = f"look-{place}", place == len(chosen) - 1
        buttons += [
            element("input", type="radio", name="look", id=key, checked=last),
            element("label", "before training" if step == 0 else number(step), for_=key),
        ]
        panels.append(element("div", *(_sample(one) for one in pairs), class_="look"))
    stepper = element("fieldset", element("legend", "Texts after step"), *buttons, *panels, class_="stepper")
    rows = [
        [number(step), *(element("span", said, class_="said-text") for said in (one.prompt, one.text))]
        for step, pairs in found
        for one in pairs
    ]
    more = f", the first {LISTED}; samples.jsonl has all" if len(rows) > LISTED else ""
    table = grid(["step", "prompt", "text"], rows[:LISTED], f"Every text the run wrote{more}", text=3)
    key = join(element("mark", "Marked"), " is the prompt; the model wrote the rest, one token after the other.")
    return join(
        element("p", key), stepper, element("details", element("summary", f"All {number(len(rows))} texts"), table)
    )


def _sample(one: Text) -> Markup:
    return element("p", element("mark", one.prompt) if one.prompt else None, one.text, class_="rendered")


def _derived(run: PretrainRun) -> Markup | None:
    shown = [
        element(
            "div",
            element("dt", one.name.replace("_", " ")),
            element("dd", element("b", value(one.value)), element("span", one.why, class_="under")),
        )
        for one in run.derived or []
    ]
    plan = details.named_values(run.plan or {})
    return join(
        element("dl", *shown, class_="facts") if shown else None,
        element("details", element("summary", "The whole plan"), plan) if plan else None,
    ) or None  # fmt: skip


def _cost(run: PretrainRun, metrics: list[StepMetrics]) -> Markup | None:
    took = cost(run, metrics)
    peak = took.peak_share
    said = {
        "time": duration(took.seconds),
        "steps": number(words.steps_done(metrics)) if metrics else MISSING,
        "tokens read": number(took.tokens),
        "tokens a second": number(took.tokens_s),
        "computation": f"{powers(took.flops)} FLOP" if took.flops else MISSING,
        "share of the peak": f"{share(peak)} of what its matrix products reach" if peak is not None else MISSING,
        "peak memory": megabytes(took.peak_rss_mb),
    }  # fmt: skip
    return details.named_values({name: shown for name, shown in said.items() if shown != MISSING})


def _text(run: PretrainRun) -> Markup | None:
    text, tokenizer = to_document(run.text), to_document(run.tokenizer) or {}
    counts = [(name, number(text[key])) for key, name in TEXT.items() if key in text]
    rest = {key.replace("_", " "): found for key, found in text.items() if key not in TEXT}
    listed = [element("div", element("dt", name), element("dd", shown)) for name, shown in counts]
    return (
        join(
            element("dl", *listed, class_="counts") if listed else None,
            details.named_values(rest),
            element("h3", "Tokenizer") if tokenizer else None,
            details.named_values(tokenizer),
        )
        or None
    )


def _made(run: PretrainRun, metrics: list[StepMetrics]) -> Markup:
    return join(
        details.made(run.command, cost(run, metrics).seconds, None, run.model, run.hardware, run.versions),
        element("p", f"Seed {value(run.seed)}. {words.again(run)}") if run.seed is not None else None,
    )


def _caveats(run: PretrainRun, metrics: list[StepMetrics]) -> Markup:
    return element("ul", *(element("li", note) for note in words.keep_in_mind(run, metrics)))
