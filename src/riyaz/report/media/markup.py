"""HTML that escapes every text but `Markup`, and text for a terminal without control characters."""

import html
import json
import re

from riyaz.json_files import finite

VOID = {"meta", "link", "br", "hr", "input"}
CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff"  # not allowed in HTML and SVG
BIDI = "\u202a-\u202e\u2066-\u2069"  # characters that reverse the text around them
# characters that could end a script block or a JavaScript line, as JSON escapes
JSON_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


class Markup(str):
    """Text that is HTML, so it is not escaped again."""


def clean(text: object) -> str:
    """A value as text for HTML, JSON and Markdown: control characters and direction overrides as `[U+202E]`."""
    return re.sub(f"[{CONTROLS}{BIDI}]", _named, str(text))


def printable(text: str) -> str:
    """Text for a terminal: control characters are removed, direction overrides shown as `[U+202E]`."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(f"[{BIDI}]", _named, re.sub(f"[{CONTROLS}]", "", lines))


def _named(sign: re.Match[str]) -> str:
    return f"[U+{ord(sign[0]):04X}]"


def printable_line(text: str) -> str:
    """`printable` text on one line."""
    return " ".join(printable(text).split())


def join(*children: object) -> Markup:
    """Concatenates the children: Markup unchanged, everything else escaped; None and "" are left out."""
    present = (child for child in children if child is not None and child != "")
    return Markup("".join(c if isinstance(c, Markup) else html.escape(clean(c), quote=False) for c in present))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name attributes>children</name>`; `class_` and `aria_label` are `class` and `aria-label`.

    An attribute that is None or False is left out; one that is True is written without a value.
    """
    written = []
    for key, value in attributes.items():
        if value is not None and value is not False:
            title = key.rstrip("_").replace("_", "-")
            written.append(f" {title}" if value is True else f' {title}="{html.escape(clean(value))}"')
    head = f"<{name}{''.join(written)}>"
    return Markup(head) if name in VOID else Markup(f"{head}{join(*children)}</{name}>")


def json_block(value: object) -> Markup:
    """JSON for a `<script type="application/json">` block: ASCII, no character that HTML or JavaScript interprets."""
    text = json.dumps(finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(JSON_ESCAPES))
