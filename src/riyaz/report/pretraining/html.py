"""report.html of a pretraining run: one page without other files, made from run.json, metrics.jsonl and samples.jsonl.

It has no script: radio buttons and the style sheet switch between samples. Text from the model and from files enters as
escaped text (`markup`), as in the page of a comparison.
"""

from collections.abc import Callable
from pathlib import Path

from riyaz.files import write_text
from riyaz.json_files import to_document
from riyaz.report.comparison import details
from riyaz.report.comparison.arms import megabytes
from riyaz.report.comparison.pictures import HALF, NARROW
from riyaz.report.media.markup import Markup, element, join
from riyaz.report.media.page import Section, asset, page, tile
from riyaz.report.media.tables import figure, grid, numbers
from riyaz.report.names import key_name
from riyaz.report.pretraining import pictures as drawn
from riyaz.report.pretraining import words
from riyaz.report.pretraining.words import chance, compact, cost, points, powers, share, spaced, token
from riyaz.report.words import MISSING, duration, number, value
from riyaz.results import PretrainRun, Samples, StepMetrics, Text, Word

TABS = 9  # steps with a radio button; page.css has rules for as many
LISTED = 300  # most rows of the table of all samples
TABLED = 60  # most rows of the table below a picture
COLUMNS, BARS = 5, 8  # steps at which next tokens are shown, and tokens of each
TEXT = {"bytes": "bytes", "tokens": "tokens", "train_tokens": "training tokens", "valid_tokens": "validation tokens",
        "near_duplicates": "near-duplicate blocks"}  # fmt: skip


def write(folder: Path) -> Path:
    """Write `report.html` of the run in `folder`, atomically; returns its path.

    Raises RiyazError when the folder holds no run or a file of it is damaged.
    """
    path = folder / "report.html"
    text = html(*words.read_run(folder))
    write_text(path, text)
    return path


def html(run: PretrainRun, metrics: list[StepMetrics], samples: list[Samples]) -> str:
    """The page of a finished or unfinished run."""
    sections: list[Section] = [
        ("learning", "Learning", "Learning", _learning(run, metrics)),
        ("next", "Next word", _next_title(samples), _next(samples)),
        ("samples", "Samples", "Sample texts", _samples(samples)),
        ("derived", "Plan", "Steps and budget", _derived(run, metrics)),
        ("cost", "Cost", "Cost", _cost(run, metrics)),
        ("text", "Text", "Training text", _text(run)),
        ("made", "How it was made", "How it was made", _made(run, metrics)),
        ("caveats", "Caveats", "What to keep in mind", _caveats(run, metrics)),
    ]
    foot = "Made by riyaz from run.json, metrics.jsonl and samples.jsonl; this file fetches nothing."
    style = Markup(asset("media/page.css") + asset("pretraining/page.css"))
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
            "time",
            duration(took.seconds),
            f"{number(took.tokens_s)} tokens per second",
        ),
        (
            "computation",
            powers(took.flops),
            "FLOP" + (f", at {share(took.peak_share)} of the machine's peak" if took.peak_share is not None else ""),
        ),
        ("peak memory", megabytes(took.peak_rss_mb or None), "of the process"),
    ]
    measured = [tile(title, figure, note) for title, figure, note in tiles if figure != MISSING]
    return element(
        "header",
        element("p", element("b", "Riyaz"), " · pretraining", class_="over"),
        element("h1", words.name(run),
                element("span", run.status, class_=f"badge {'sure' if run.status == 'done' else 'unsure'}")),
        element("p", " ".join(words.story(run, metrics)), class_="lead"),
        element("dl", *measured, class_="tiles") if measured else None,
    )  # fmt: skip


Draw = Callable[[float, str], Markup | None]


def _figure(draw: Draw, name: str, caption: str, table: Markup | None) -> Markup | None:
    """A picture drawn wide and narrow, with its caption; None when nothing was measured."""
    pair = [draw(width, f"{name}{place}") for place, width in enumerate((HALF, NARROW))]
    return figure(pair, caption, table) if pair[0] else None


def _learning(run: PretrainRun, metrics: list[StepMetrics]) -> Markup | None:
    judged = [entry for entry in metrics if entry.valid_loss is not None] or metrics
    judged = [judged[place] for place in spaced(len(judged), TABLED)]
    rows = [
        [number(entry.step), *(number(value, 3) for value in (entry.loss, entry.valid_loss, entry.bits_per_byte))]
        for entry in judged
    ]
    mark = words.held_out(run, metrics)
    if mark is not None and mark.finished:
        rows.append(["finished", MISSING, number(mark.loss, 3), number(mark.bits, 3)])
    table = numbers(["step", "training loss", "validation loss", "bits per byte"], rows)
    shown = [
        _figure(
            lambda width, name: drawn.loss(run, metrics, width, name), "l",
            "Mean loss per token (cross-entropy), lower is better. If validation loss rises while training loss falls, "
            "the model memorises its training text." + words.other_windows(run), table,
        ),
        _figure(
            lambda width, name: drawn.bits(run, metrics, width, name), "b",
            "Validation loss per byte of text: the bits that a byte (8 bits) would take if the model compressed the "
            "text. It does not depend on the tokenizer." + words.other_windows(run), None,
        ),
        _figure(
            lambda width, name: drawn.rate(metrics, width, name), "r",
            "The size of each step: a short warm-up, because the first gradients vary strongly, then a long decay.",
            None,
        ),
        _figure(
            lambda width, name: drawn.speed(metrics, width, name), "s",
            "Tokens per second, forward and backward pass together.", None,
        ),
    ]  # fmt: skip
    return element("div", *shown, class_="pair") if any(shown) else None


def _next_title(samples: list[Samples]) -> str:
    looks = words.next_words(samples)
    return f"What comes after “{looks[-1][1]}”" if looks else ""


def _next(samples: list[Samples]) -> Markup | None:
    """The most likely next tokens at a few steps, all bars on one scale; those likely at the last step are coloured."""
    looks = words.next_words(samples)
    if not looks:
        return None
    chosen = [looks[place] for place in spaced(len(looks), COLUMNS)]
    lasting = {word.text for word in looks[-1][2][:BARS]}
    most = max(word.p for _, _, pairs in chosen for word in pairs)
    cards = [_look(step, pairs, most, lasting) for step, _, pairs in chosen]
    note = (
        f"The {BARS} most likely next tokens, all bars on one scale. Blue and bold: also likely at the last step. "
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
    head = element("tr", element("th", "token", scope="col"), element("th", "chance", scope="col", colspan=2))
    return element(
        "li", element("table", element("caption", _when(step)), element("thead", head), element("tbody", *rows))
    )


def _samples(samples: list[Samples]) -> Markup | None:
    """The first text of the first and the last step; folded, the texts of a few steps behind radio buttons, and all."""
    steps = words.sampled(samples)
    if not steps:
        return None
    chosen = [steps[place] for place in spaced(len(steps), TABS)]
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
        [number(step), *(element("span", text, class_="said-text") for text in (one.prompt, one.text))]
        for step, pairs in steps
        for one in pairs
    ]
    limit = f", the first {LISTED}; samples.jsonl has all" if len(rows) > LISTED else ""
    table = grid(["step", "prompt", "text"], rows[:LISTED], f"All sample texts of the run{limit}", text=3)
    key = join(element("mark", "Marked"), " text is the prompt; the model wrote the rest, token by token.")
    ends = [chosen[0], *chosen[1:][-1:]]
    shown = [element("div", element("h3", _when(step)), _sample(pairs[0])) for step, pairs in ends]
    summary = f"All {number(len(rows))} texts"
    folded = join(stepper, element("details", element("summary", f"{summary} in one table"), table))
    return join(
        element("p", key), element("div", *shown, class_="pair"),
        element("details", element("summary", f"{summary}, step by step"), folded),
    )  # fmt: skip


def _when(step: float) -> str:
    return "before training" if step == 0 else f"after step {number(step)}"


def _sample(one: Text) -> Markup:
    return element("p", element("mark", one.prompt) if one.prompt else None, one.text, class_="rendered")


def _derived(run: PretrainRun, metrics: list[StepMetrics]) -> Markup | None:
    reasons = [
        element(
            "div",
            element("dt", key_name(one.name)),
            element("dd", element("b", value(one.value)), element("span", one.why, class_="under")),
        )
        for one in run.derived or []
    ]
    plan = details.named_values(run.plan or {})
    said = words.length(run, metrics)
    return join(
        element("p", " ".join(said)) if said else None,
        element("h3", "What was derived, and why") if reasons else None,
        element("dl", *reasons, class_="facts") if reasons else None,
        element("details", element("summary", "The whole plan"), plan) if plan else None,
    ) or None  # fmt: skip


def _cost(run: PretrainRun, metrics: list[StepMetrics]) -> Markup | None:
    took = cost(run, metrics)
    peak = took.peak_share
    figures = {
        "time": duration(took.seconds),
        "steps": number(words.steps_done(metrics)) if metrics else MISSING,
        "tokens read": number(took.tokens),
        "tokens per second": number(took.tokens_s),
        "computation": f"{powers(took.flops)} FLOP" if took.flops else MISSING,
        "share of the peak": f"{share(peak)} of the measured matrix-product speed" if peak is not None else MISSING,
        "peak memory": megabytes(took.peak_rss_mb or None),
    }  # fmt: skip
    return details.named_values({name: figure for name, figure in figures.items() if figure != MISSING})


def _text(run: PretrainRun) -> Markup | None:
    text, tokenizer = to_document(run.text), to_document(run.tokenizer) or {}
    counts = [(name, number(text[key])) for key, name in TEXT.items() if key in text]
    rest = {key: fact for key, fact in text.items() if key not in TEXT}
    listed = [element("div", element("dt", name), element("dd", count)) for name, count in counts]
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
