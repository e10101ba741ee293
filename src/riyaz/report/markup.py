"""HTML that is safe by construction: text is escaped where it enters, and only Markup passes as it is; and text that
is safe on a terminal."""

import html
import json
import re

from riyaz.files import finite

VOID = {"meta", "link", "br", "hr", "input"}
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # no place in HTML nor in SVG
BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")  # turn the text around them: shown as what they are
# what could end a script block or a JavaScript line; JSON strings may hold all of it as escapes
JSON_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


class Markup(str):
    """Text that is HTML already."""


def clean(text: object) -> str:
    """Any value as text that a page can hold: control and direction signs become visible."""
    return BIDI.sub(lambda sign: f"[U+{ord(sign[0]):04X}]", CONTROLS.sub("\ufffd", str(text)))


def printable(text: str) -> str:
    """Text from a model, a document or a file without anything that a terminal obeys; signs that turn the text around
    them are shown as what they are."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return BIDI.sub(lambda sign: f"[U+{ord(sign[0]):04X}]", CONTROLS.sub("", lines))


def printable_line(text: str) -> str:
    """Such a text as one line."""
    return " ".join(printable(text).split())


def join(*children: object) -> Markup:
    """Children one after the other: Markup as it is, everything else escaped; None and "" are left out."""
    shown = (child for child in children if child is not None and child != "")
    return Markup("".join(c if isinstance(c, Markup) else html.escape(clean(c), quote=False) for c in shown))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name attributes>children</name>`; `class_` and `aria_label` are `class` and `aria-label`.

    An attribute that is None or False is left out, one that is True stands without a value.
    """
    written = []
    for key, value in attributes.items():
        if value is not None and value is not False:
            title = key.rstrip("_").replace("_", "-")
            written.append(f" {title}" if value is True else f' {title}="{html.escape(clean(value))}"')
    head = f"<{name}{''.join(written)}>"
    return Markup(head) if name in VOID else Markup(f"{head}{join(*children)}</{name}>")


def json_block(value: object) -> Markup:
    """JSON for a `<script type="application/json">` block: ASCII, and no sign that HTML or JavaScript would read."""
    text = json.dumps(finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(JSON_ESCAPES))
