"""report.md: everything a reader needs to trust or doubt a comparison, from its document alone."""

import re

from riyaz.report import extra_findings
from riyaz.report.words import (
    MISSING,
    caveats,
    columns,
    duration,
    extras,
    headline,
    metric_of,
    number,
    ranked,
    signed,
    slices,
    troubles,
    value,
    verdict,
)

FACTS = ("model", "hardware", "versions")
TOTALS = (  # the figures of an arm that the comparison table leaves out
    ("other scores", lambda arm: ", ".join(" ".join(pair) for pair in extras(arm)) or MISSING),
    ("test rows", lambda arm: number(arm.get("n_test"))),
    ("search", lambda arm: duration(arm.get("search_seconds") or None)),
    ("training", lambda arm: duration(arm.get("train_seconds") or None)),
    ("evaluation", lambda arm: duration(arm.get("eval_seconds"))),
    ("trainable parameters", lambda arm: number(arm.get("trainable_params"))),
    ("prompt tokens", lambda arm: number(arm.get("prompt_tokens"), 1)),
    ("KL to the base", lambda arm: number(arm.get("kl_task"), 3)),
    ("MB while answering", lambda arm: number(arm.get("serve_rss_mb"))),
)


PAIRS = ["arms", "difference", "95 % interval", "p", "test"]


def render(document: dict) -> str:
    """The Markdown report of a comparison document (`compare.json`)."""
    parts = [
        f"# Comparison: {_escape(headline(document))}",
        _escape(verdict(document)),
        _table(document),
        _troubles(document),
        _seeds(document),
        _slices(document),
        _pairs(document),
        _retrieval(document),
        _data_curve(document),
        "## How it was measured",
        _measured(document),
        "## The arms in detail",
        _grid(["method", *(title for title, _ in TOTALS)], [_totals(arm) for arm in ranked(document)]),
        *(_arm(arm) for arm in ranked(document)),
        "## What to keep in mind",
        "\n".join(f"* {_escape(caveat)}" for caveat in caveats(document)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(document: dict) -> str:
    chosen, arms = columns(document), ranked(document)
    table = _grid([c.title for c in chosen], [[c.fill(arm) for c in chosen] for arm in arms], [c.text for c in chosen])
    return f"{table}\n\n\\* the pick. Intervals are 95 %; forgetting is nats per token on general text."


def _troubles(document: dict) -> str:
    lines = [f"* **{_escape(m)}** {status}: {_escape(reason)}" for m, status, reason in troubles(document)]
    return "\n".join(lines)


def _seeds(document: dict) -> str:
    found = [(arm["method"], extra_findings.seeds(arm)) for arm in ranked(document)]
    return "\n".join(f"* **{_escape(method)}** scored {_escape(said)}" for method, said in found if said)


def _slices(document: dict) -> str:
    arms = [arm for arm in ranked(document) if arm.get("slices")]
    scores = [dict(slices(arm)) for arm in arms]
    names = list(dict.fromkeys(name for found in scores for name in found))
    if not names:
        return ""
    rows = [[name, *(found.get(name, MISSING) for found in scores)] for name in names]
    return f"## Scores per slice ({metric_of(document)})\n\n" + _grid(["slice", *(arm["method"] for arm in arms)], rows)


def _pairs(document: dict) -> str:
    rows = [
        [" − ".join(pair["arms"]), signed(pair["difference"]), f"{signed(pair['low'])} to {signed(pair['high'])}",
         f"{pair['p_value']:.2g}", pair["test"]]
        for pair in document.get("pairs", [])
    ]  # fmt: skip
    return "## Arms in pairs, on the same rows\n\n" + _grid(PAIRS, rows) if rows else ""


def _retrieval(document: dict) -> str:
    titles, rows = extra_findings.retrieval_table(document)
    return f"## Retrieval\n\n{_grid(titles, rows)}\n\n{_escape(extra_findings.RETRIEVAL_NOTE)}" if rows else ""


def _data_curve(document: dict) -> str:
    titles, rows = extra_findings.curve_table(document)
    if not rows:
        return ""
    table = _grid(titles, rows, [False] * len(titles))
    return f"## {_escape(extra_findings.CURVE_TITLE)}\n\n{table}\n\n{_escape(extra_findings.CURVE_NOTE)}"


def _measured(document: dict) -> str:
    command = document.get("command")
    shown = " ".join(command) if isinstance(command, list) else str(command or "")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    blocks = [f"{fence}console\n$ {shown}\n{fence}"] if shown else []
    took, planned = document.get("seconds"), document.get("estimate_seconds")
    if took is not None:
        said = f", estimated {duration(planned)}" if planned is not None else ""
        blocks.append(f"The whole command took {duration(took)}{said}.")
    blocks.append(_facts({key: document.get(key) for key in FACTS}))
    if document.get("data"):
        blocks.append(f"The data:\n\n{_facts(_briefly(document['data']))}")
    return "\n\n".join(filter(None, blocks))


def _briefly(data: dict) -> dict:
    """The data facts with the rows of every label of a closed set in one line."""
    labels = data.get("labels")
    if not isinstance(labels, dict) or not labels:
        return data
    counts = [sum(parts.values()) if isinstance(parts, dict) else parts for parts in labels.values()]
    return data | {"labels": f"{len(counts)}, with {min(counts)} to {max(counts)} rows each"}


def _arm(arm: dict) -> str:
    lines = [f"### {_escape(arm['method'])}"]
    if arm.get("status") != "ok" and arm.get("reason"):
        lines.append(_escape(str(arm["reason"])))
    if arm.get("chosen"):
        lines.append(f"Chosen:\n\n{_facts(arm['chosen'])}")
    if arm.get("checks"):
        lines.append(f"Checks:\n\n{_facts({name: _check(found) for name, found in arm['checks'].items()})}")
    return "\n\n".join(lines) if len(lines) > 1 else ""


def _check(found: object) -> object:
    """A check `{"ok": …, further figures}` in one line; whatever else was recorded as it is."""
    if not isinstance(found, dict) or "ok" not in found:
        return found
    figures = ", ".join(f"{name} {_value(value)}" for name, value in found.items() if name != "ok")
    return ("held" if found["ok"] else "NOT HELD") + (f" ({figures})" if figures else "")


def _totals(arm: dict) -> list[str]:
    return [arm["method"], *(fill(arm) for _, fill in TOTALS)]


def _facts(values: dict) -> str:
    """Named values, one a line; lists of records become tables below. What is empty is left out."""
    lines, tables = [], []
    for name, fact in values.items():
        if fact in (None, "", [], {}, ()):
            continue
        if isinstance(fact, list) and all(isinstance(item, dict) for item in fact):
            tables.append(f"{_escape(name)}\n\n{_records(fact)}")
        elif isinstance(fact, dict) and any(isinstance(item, dict) for item in fact.values()):
            lines.append(f"* {_escape(name)}:")
            lines += [f"  * {_escape(key)}: {_value(item)}" for key, item in fact.items()]
        else:
            lines.append(f"* {_escape(name)}: {_value(fact)}")
    return "\n\n".join(["\n".join(lines), *tables] if lines else tables)


def _records(records: list[dict]) -> str:
    """A table of records; a mapping inside one gives a column to each of its names."""
    flat = [
        {key: value for name, item in record.items() for key, value in _columns(name, item).items()}
        for record in records
    ]
    titles = list(dict.fromkeys(key for record in flat for key in record))
    rows = [[_value(record[key]) if key in record else MISSING for key in titles] for record in flat]
    return _grid(titles, rows, escaped=True)


def _columns(name: str, value: object) -> dict:
    return dict(value) if isinstance(value, dict) else {name: value}


def _value(found: object) -> str:
    return value(found, _escape)


def _grid(titles: list[str], rows: list[list[str]], text: list[bool] | None = None, *, escaped: bool = False) -> str:
    """A Markdown table; `text` says which columns stand left, by default the first."""
    left = text or [True] + [False] * (len(titles) - 1)
    cell = str if escaped else _escape
    lines = ["| " + " | ".join(map(_escape, titles)) + " |", "|" + "|".join("---" if t else "---:" for t in left) + "|"]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _escape(text: object) -> str:
    """Any text as one line that Markdown and HTML take literally."""
    flat = " ".join(str(text).split())
    flat = re.sub(r"[\\`*|\[\]]|(?<![^\W_])_|_(?![^\W_])|^#|^[+-](?= )", r"\\\g<0>", flat)
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", flat)
