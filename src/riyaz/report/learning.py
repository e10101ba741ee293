"""report.html of a pretraining run: one self-contained page, made only from run.json, metrics.jsonl and samples.jsonl.

It needs no script at all: samples are leafed through by radio buttons and the style sheet. Text from the model and from
files enters as escaped text (`markup`), as in the page of a comparison.
"""

from collections.abc import Callable
from pathlib import Path

from riyaz.files import write_text
from riyaz.report import details
from riyaz.report import learning_pictures as drawn
from riyaz.report import learning_words as words
from riyaz.report.arms import megabytes
from riyaz.report.learning_words import Run, chance, compact, cost, known, part, points, powers, share, spaced, token
from riyaz.report.markup import Markup, element, join
from riyaz.report.page import Section, asset, page, tile
from riyaz.report.pictures import HALF, NARROW
from riyaz.report.tables import figure, grid, numbers
from riyaz.report.words import MISSING, duration, number, value

TABS = 9  # samples to leaf through; learning.css knows as many
LISTED = 300  # texts in the table of all samples
TABLED = 60  # rows of the figures behind a picture
COLUMNS, BARS = 5, 8  # looks at the next word, and words of each
STATUS = {"done": "sure", "stopped": "unsure", "running": "unsure"}
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


def html(run: Run, metrics: list[dict], samples: list[dict]) -> str:
    """The page of a run; shows whatever of the three files is there."""
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


def _head(run: Run, metrics: list[dict]) -> Markup:
    status = str(run.get("status") or "")
    loss, now = words.judged(run, metrics)
    bits = points(metrics, "bits_per_byte")
    times, peak = words.readings(run, metrics), cost(run, metrics, "peak_share")
    tiles = [
        ("validation loss", number(loss, 3), "nats per token, on held-out text"),
        (
            "bits per byte",
            number(now, 3),
            f"{number(bits[0][1], 2)} at step {number(bits[0][0])}" if bits else "of validation text",
        ),
        (
            "tokens read",
            compact(cost(run, metrics, "tokens")),
            words.often(times) if times is not None else "of training text",
        ),
        (
            "it took",
            duration(cost(run, metrics, "seconds")),
            f"{number(cost(run, metrics, 'tokens_s'))} tokens a second",
        ),
        (
            "computation",
            powers(cost(run, metrics, "flops")),
            "FLOP" + (f", at {share(peak)} of the peak" if peak is not None else ""),
        ),
        ("memory", megabytes(cost(run, metrics, "peak_rss_mb")), "at the peak"),
    ]
    shown = [tile(title, found, more) for title, found, more in tiles if found != MISSING]
    return element(
        "header",
        element("p", element("b", "Riyaz"), " · pretraining", class_="over"),
        element("h1", words.name(run),
                element("span", status, class_=f"badge {STATUS.get(status, 'unsure')}") if status else None),
        element("p", " ".join(words.story(run, metrics)), class_="lead"),
        element("dl", *shown, class_="tiles") if shown else None,
    )  # fmt: skip


Draw = Callable[[float, str], Markup | None]


def _figure(draw: Draw, name: str, caption: str, table: Markup | None) -> Markup | None:
    """A picture in its wide and its narrow form; None where nothing was measured."""
    pair = [draw(width, f"{name}{place}") for place, width in enumerate((HALF, NARROW))]
    return figure(pair, caption, table) if pair[0] else None


def _learning(run: Run, metrics: list[dict]) -> Markup | None:
    judged = [entry for entry in metrics if known(entry, "valid_loss") is not None] or metrics
    judged = [judged[place] for place in spaced(len(judged), TABLED)]
    rows = [[number(entry["step"]), *(number(known(entry, key), 3) for key in ("loss", "valid_loss", "bits_per_byte"))]
            for entry in judged]  # fmt: skip
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


def _next_title(samples: list[dict]) -> str:
    found = words.next_words(samples)
    return f"What comes after “{found[-1][1]}”" if found else ""


def _next(samples: list[dict]) -> Markup | None:
    """The likeliest next tokens at a few steps, on one scale; those that are likeliest in the end stand out."""
    found = words.next_words(samples)
    if not found:
        return None
    chosen = [found[place] for place in spaced(len(found), COLUMNS)]
    lasting = {text for text, _ in found[-1][2][:BARS]}
    most = max(p for _, _, pairs in chosen for _, p in pairs)
    cards = [_look(step, pairs, most, lasting) for step, _, pairs in chosen]
    note = (
        f"The {BARS} likeliest next tokens. All bars have one scale; those among the last {BARS} are blue and bold. "
        f"{words.SPACE} is a space, {words.LINE} a new line."
    )
    return join(element("p", note, class_="meta"), element("ol", *cards, class_="looks"))


def _look(step: float, pairs: list[tuple[str, float]], most: float, lasting: set[str]) -> Markup:
    rows = [
        element(
            "tr",
            element("th", element("b" if text in lasting else "span", token(text)), scope="row"),
            element("td", drawn.chance_bar(p, most, text in lasting)),
            element("td", chance(p), class_="figure"),
        )
        for text, p in pairs[:BARS]
    ]
    when = "before training" if step == 0 else f"after step {number(step)}"
    head = element("tr", element("th", "token", scope="col"), element("th", "chance", scope="col", colspan=2))
    return element("li", element("table", element("caption", when), element("thead", head), element("tbody", *rows)))


def _samples(samples: list[dict]) -> Markup | None:
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
        panels.append(element("div", *(_sample(prompt, text) for prompt, text in pairs), class_="look"))
    stepper = element("fieldset", element("legend", "Texts after step"), *buttons, *panels, class_="stepper")
    rows = [[number(step), element("span", prompt, class_="said-text"), element("span", text, class_="said-text")]
            for step, pairs in found for prompt, text in pairs]  # fmt: skip
    more = f", the first {LISTED}; samples.jsonl has all" if len(rows) > LISTED else ""
    table = grid(["step", "prompt", "text"], rows[:LISTED], f"Every text the run wrote{more}", text=3)
    key = join(element("mark", "Marked"), " is the prompt; the model wrote the rest, one token after the other.")
    return join(
        element("p", key), stepper, element("details", element("summary", f"All {number(len(rows))} texts"), table)
    )


def _sample(prompt: str, text: str) -> Markup:
    return element("p", element("mark", prompt) if prompt else None, text, class_="rendered")


def _derived(run: Run) -> Markup | None:
    listed = run.get("derived")
    rows = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    shown = [
        element(
            "div",
            element("dt", str(one.get("name", "")).replace("_", " ")),
            element(
                "dd", element("b", value(one.get("value"))), element("span", str(one.get("why", "")), class_="under")
            ),
        )
        for one in rows
    ]
    plan = details.named_values(part(run, "plan"))
    return join(
        element("dl", *shown, class_="facts") if shown else None,
        element("details", element("summary", "The whole plan"), plan) if plan else None,
    ) or None  # fmt: skip


def _cost(run: Run, metrics: list[dict]) -> Markup | None:
    tokens, peak = cost(run, metrics, "tokens"), cost(run, metrics, "peak_share")
    flops, rss = cost(run, metrics, "flops"), cost(run, metrics, "peak_rss_mb")
    said = {
        "time": duration(cost(run, metrics, "seconds")),
        "steps": number(words.steps_done(metrics)) if metrics else MISSING,
        "tokens read": number(tokens),
        "tokens a second": number(cost(run, metrics, "tokens_s")),
        "computation": f"{powers(flops)} FLOP" if flops else MISSING,
        "share of the peak": f"{share(peak)} of what its matrix products reach" if peak is not None else MISSING,
        "peak memory": megabytes(rss),
    }  # fmt: skip
    return details.named_values({name: shown for name, shown in said.items() if shown != MISSING})


def _text(run: Run) -> Markup | None:
    text, tokenizer = part(run, "text"), part(run, "tokenizer")
    counts = [(name, number(known(text, key))) for key, name in TEXT.items() if known(text, key) is not None]
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


def _made(run: Run, metrics: list[dict]) -> Markup:
    seed = run.get("seed")
    document = {key: run.get(key) for key in ("command", "model", "hardware", "versions")}
    return join(
        details.made(document | {"seconds": cost(run, metrics, "seconds")}),
        element("p", f"Seed {value(seed)}. {words.again(run)}")
        if seed is not None else None,
    )  # fmt: skip


def _caveats(run: Run, metrics: list[dict]) -> Markup:
    return element("ul", *(element("li", note) for note in words.keep_in_mind(run, metrics)))
