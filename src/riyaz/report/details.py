"""The parts of report.html that say what was used and checked: data, arms in detail, pairs, versions, caveats."""

from riyaz.report.markup import Markup, element, join
from riyaz.report.tables import grid
from riyaz.report.words import MISSING, caveats, duration, extras, number, signed, value

ROWS = {
    "file": "in the file", "test_file": "in the test file", "train": "to train on", "valid": "to validate on",
    "test": "to judge on", "folds": "folds", "skipped": "left out",
}  # fmt: skip
SHOWN_LABELS = 100


def data(document: dict) -> Markup | None:
    """Files, rows, repeats and leakage, labels, notes, and rows as the model sees them."""
    found = document.get("data") or {}
    if not isinstance(found, dict) or not found:
        return None
    named = {"files", "rows", "labels", "notes", "rendered", "slices", "leakage"}
    rest = {name.replace("_", " "): value for name, value in found.items() if name not in named}
    rows = found.get("rows")
    rows = rows if isinstance(rows, dict) else {}
    counted = [
        (ROWS.get(name, name), number(value)) for name, value in rows.items() if isinstance(value, int) and value
    ]
    notes = found.get("notes") or []
    return join(
        element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in counted),
                class_="counts") if counted else None,
        named_values(rest | _leakage(found)),
        _files(found.get("files")),
        element("h3", "Noticed in the rows") if notes else None,
        element("ul", *(element("li", str(note)) for note in notes)) if notes else None,
        _labels(found.get("labels")),
        _rendered(found.get("rendered")),
    )  # fmt: skip


def _leakage(found: dict) -> dict:
    leakage = found.get("leakage")
    if not isinstance(leakage, dict):
        return {} if leakage is None else {"leakage": leakage}
    said = f"test rows that stand in the training rows too: {number(leakage.get('test_rows'))}"
    return {"leakage": f"{said}; training rows dropped for it: {number(leakage.get('dropped'))}"}


def _files(files: object) -> Markup | None:
    if not isinstance(files, dict) or not files:
        return None
    rows = [
        [part, *(value(file.get(key)) for key in ("path", "format")), element("code", value(file.get("sha256")))]
        for part, file in files.items()
        if isinstance(file, dict)
    ]
    return grid(["part", "file", "columns", "sha256"], rows, "Files", text=4)


def _labels(labels: object) -> Markup | None:
    if not isinstance(labels, dict) or not labels:
        return None
    parts = list(dict.fromkeys(part for counts in labels.values() if isinstance(counts, dict) for part in counts))
    rows = [
        [label, *(number(counts.get(part)) for part in parts)] if isinstance(counts, dict) else [label, value(counts)]
        for label, counts in list(labels.items())[:SHOWN_LABELS]
    ]
    more = f", the first {SHOWN_LABELS}" if len(labels) > SHOWN_LABELS else ""
    table = grid(["label", *(parts or ["rows"])], rows, f"Rows of each label{more}")
    return element("details", element("summary", f"{len(labels)} labels"), table)


def _rendered(rows: object) -> Markup | None:
    """Rows as the model sees them; what it learns to say is marked."""
    if not isinstance(rows, list) or not rows:
        return None
    shown = []
    for row in rows:
        pieces = [element("mark" if learned else "span", str(text)) for text, learned in row]
        shown.append(element("li", element("div", *pieces, class_="rendered")))
    key = join(
        "As the model sees them. ", element("mark", "Marked"), " is what training learns to say; the rest is read."
    )
    return join(element("h3", "Rows with their mask"), element("p", key), element("ol", *shown, class_="plain"))


def pairs(document: dict) -> Markup | None:
    """Differences between arms on the same rows."""
    rows = [
        [" − ".join(map(str, pair["arms"])), signed(pair["difference"]),
         f"{signed(pair['low'])} to {signed(pair['high'])}", f"{pair['p_value']:.2g}", pair["test"]]
        for pair in document.get("pairs") or []
    ]  # fmt: skip
    if not rows:
        return None
    table = grid(["arms", "difference", "95 % interval", "p", "test"], rows, "Differences on the same test rows")
    return element("details", element("summary", f"{len(rows)} pairs"), table) if len(rows) > 10 else table


def arms(found: list[dict]) -> Markup | None:
    """The checks of every arm, then what each chose and all that was recorded."""
    if not found:
        return None
    names = list(dict.fromkeys(name for arm in found for name in arm.get("checks") or {}))
    rows = [[name.replace("_", " "), *(_held(arm, name) for arm in found)] for name in names]
    checks = grid(
        ["check", *(arm["method"] for arm in found)], rows, "Checks: an arm that fails one has failed", text=99
    )
    return join(checks if names else None, *(_arm(arm) for arm in found))


def _held(arm: dict, name: str) -> Markup | str:
    check = (arm.get("checks") or {}).get(name)
    if check is None:
        return MISSING
    if isinstance(check, bool) or (isinstance(check, dict) and "ok" in check):
        ok = check["ok"] if isinstance(check, dict) else check
        return element("span", "held" if ok else "NOT HELD", class_="held" if ok else "broken")
    return value(check)


def _arm(arm: dict) -> Markup:
    said = {
        "status": arm.get("status"), "reason": arm.get("reason"), "test rows": number(arm.get("n_test")),
        **dict(extras(arm)),
        "search": duration(arm.get("search_seconds") or None), "training": duration(arm.get("train_seconds") or None),
        "evaluation": duration(arm.get("eval_seconds")), "trainable parameters": number(arm.get("trainable_params")),
        "prompt tokens": number(arm.get("prompt_tokens"), 1), "KL to the base": number(arm.get("kl_task"), 3),
        "MB while answering": number(arm.get("serve_rss_mb")),
    }  # fmt: skip
    checks = {name.replace("_", " "): found for name, found in (arm.get("checks") or {}).items()}
    return element(
        "details",
        element("summary", arm["method"]),
        named_values({name: shown for name, shown in said.items() if shown != MISSING}),
        element("h3", "Chosen") if arm.get("chosen") else None,
        named_values(arm.get("chosen") or {}),
        element("h3", "Checks") if checks else None,
        named_values(checks),
    )


def made(document: dict) -> Markup:
    """The command, how long it took, model, machine and versions."""
    command = document.get("command")
    shown = " ".join(map(str, command)) if isinstance(command, list) else str(command or "")
    took, planned = document.get("seconds"), document.get("estimate_seconds")
    times = f"The whole command took {duration(took)}" + (f", estimated {duration(planned)}." if planned else ".")
    parts = [
        (title, named_values(document[key]))
        for key, title in (("model", "Model"), ("hardware", "Machine"), ("versions", "Versions"))
        if isinstance(document.get(key), dict) and document[key]
    ]
    return join(
        element("pre", element("code", f"$ {shown}")) if shown else None,
        element("p", times) if took is not None else None,
        element("div", *(element("div", element("h3", title), content) for title, content in parts), class_="thirds"),
    )  # fmt: skip


def keep_in_mind(document: dict) -> Markup:
    """What the figures do not show."""
    return element("ul", *(element("li", note) for note in caveats(document)))


def named_values(values: dict) -> Markup | None:
    """Named values as a definition list; lists of records become tables below it. What is empty is left out."""
    plain, tables = [], []
    for name, item in values.items():
        if item in (None, "", [], {}, ()):
            continue
        if isinstance(item, list) and all(isinstance(entry, dict) for entry in item):
            titles = list(dict.fromkeys(key for entry in item for key in entry))
            rows = [[value(entry.get(key)) for key in titles] for entry in item]
            tables.append(grid(titles, rows, str(name).replace("_", " ")))
        else:
            plain.append(element("div", element("dt", str(name).replace("_", " ")), element("dd", value(item))))
    return join(element("dl", *plain, class_="facts") if plain else None, *tables) or None
