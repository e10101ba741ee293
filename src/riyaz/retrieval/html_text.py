"""HTML to text: headings become lines `# …`, hidden elements are dropped, entities decoded, nothing is fetched."""

import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser

_VOID = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"),
}
_UNSEEN = {"script", "style", "template", "noscript", "iframe", "object", "svg", "math", "canvas", "select", "head"}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption"),
    *("figure", "footer", "form", "header", "hr", "main", "nav", "ol", "p", "section", "summary", "table", "ul"),
}
_LINES = {"br", "li", "tr", "caption", "option", "legend"}
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_BREAKING = {*_BLOCKS, *_LINES, *_HEADINGS, "pre"}
_CLOSED_BY = {"p": _BLOCKS | set(_HEADINGS), "li": {"li"}, "dt": {"dt", "dd"}, "dd": {"dt", "dd"}, "tr": {"tr"}}
_NUMBERED = re.compile(r"&#(?:([0-9]+)|[xX]([0-9a-fA-F]+));?")  # a character reference by number
_DIGITS = 7  # of the largest character, U+10FFFF; Python refuses to convert some thousand digits
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d]*[1-9])", re.IGNORECASE)


class _Reader(HTMLParser):
    """Collects the visible text in `pieces`, and the page's title."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.title: list[str] = []
        self._open: list[tuple[str, bool]] = []  # (tag, hides its contents)
        self._names: Counter[str] = Counter()
        self._hidden = 0
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        while self._open and tag in _CLOSED_BY.get(self._open[-1][0], ()):
            self._close()
        if tag == "body":
            while self._names.get("head"):
                self._close()
        attributes = dict(attrs)
        hides = tag in _UNSEEN or "hidden" in attributes or (attributes.get("aria-hidden") or "").lower() == "true"
        hides = hides or bool(_HIDING.search(attributes.get("style") or ""))
        if not (hides or self._hidden):
            self._break(tag)
            if tag == "li":
                self.pieces.append("- ")
            elif tag in ("td", "th") and self.pieces and not self.pieces[-1].endswith("\n"):
                self.pieces.append(" | ")
        if tag not in _VOID:
            self._open.append((tag, hides))
            self._names[tag] += 1
            self._hidden += hides
            if tag == "pre" and not self._hidden:
                self.pieces.append("```\n")
            self._preformatted += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)  # HTML has no self-closing elements: `<div/>` opens one

    def handle_endtag(self, tag: str) -> None:
        if not self._names[tag]:
            return
        while self._open[-1][0] != tag:
            self._close()
        self._close()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == "title" and "svg" not in self._names:
            self.title.append(data)
        elif not self._hidden:
            if not self._preformatted:
                data = re.sub(r"\s+", " ", data)
            self.pieces.append(data)

    def _close(self) -> None:
        tag, hides = self._open.pop()
        self._names[tag] -= 1
        self._preformatted -= tag == "pre"
        if tag == "pre" and not self._hidden:
            self.pieces.append("\n```")
        self._hidden -= hides
        if not self._hidden:
            self._break(tag, closing=True)

    def _break(self, tag: str, closing: bool = False) -> None:
        if tag not in _BREAKING:
            return
        while self.pieces and self.pieces[-1] == " " and not self._preformatted:
            self.pieces.pop()
        if tag in _HEADINGS:
            self.pieces.append("\n\n" if closing else f"\n\n{_HEADINGS[tag]}")
        elif tag in _BLOCKS or tag == "pre":
            self.pieces.append("\n\n")
        elif tag == "br" or (self.pieces and not self.pieces[-1].endswith("\n")):
            self.pieces.append("\n")


def html_text(source: str) -> tuple[str, str]:
    """(title, visible text) of a page; raises nothing, whatever the source."""
    reader = _Reader()
    body, tail = _bounded(_NUMBERED.sub(_in_range, source))
    reader.feed(body)
    reader.close()
    reader.handle_data(unescape(tail))
    lines = "".join(reader.pieces).split("\n")
    fenced, tidy = False, []
    for line in lines:
        fenced ^= line.strip() == "```"
        tidy.append(line.rstrip() if fenced else re.sub(r" +", " ", line).strip())
    return " ".join("".join(reader.title).split()), re.sub(r"\n{3,}", "\n\n", "\n".join(tidy)).strip()


def _in_range(reference: re.Match[str]) -> str:
    """The reference without leading zeros, or U+FFFD for more digits than any character has."""
    digits = (reference[1] or reference[2]).lstrip("0") or "0"
    if len(digits) > _DIGITS:
        return "\ufffd"
    return f"&#{digits};" if reference[1] else f"&#x{digits};"


def _bounded(source: str) -> tuple[str, str]:
    """The source up to its last tag, without comments, and the rest. The parser would search for the end of every
    unfinished comment, section or tag again: a megabyte of `<!--` would take minutes."""
    pieces, place = [], 0
    while (start := source.find("<!--", place)) >= 0:
        end = source.find("-->", start + 4)
        pieces.append(source[place:start])
        place = len(source) if end < 0 else end + 3
    plain = "".join([*pieces, source[place:]]).replace("<![", "<!")
    last = plain.rfind(">") + 1
    return plain[:last], plain[last:]
