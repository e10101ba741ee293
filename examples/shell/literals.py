"""Read objects and lists out of minified JavaScript without running it.

Values that are no literals (calls, functions, conditions) read as None; a name reads as the object or list that it was
last set to. No network, no Node, no evaluation.
"""

import re
from typing import Any

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "", "f": "", "v": "", "0": ""}
ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]+)\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`(?:[^`\\]|\\.)*`', re.DOTALL)
PATTERN = re.compile(r"/(?![*/])(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*")  # a regular expression
NAME = re.compile(r"[A-Za-z_$][\w$]*")
NAMES = re.compile(rf"{NAME.pattern}(?:\.{NAME.pattern})*")  # of something inside an object
NUMBER = re.compile(r"-?\d[\d.e]*|!0|!1")
ENDS = ",}]);"
DEEPEST = 60


class Unread(ValueError):
    """The text ends inside a value."""


def unescaped(quoted: str) -> str:
    """The text of a string literal."""

    def one(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        return chr(int(code, 16)) if code else ESCAPES.get(found[4], found[4])

    return ESCAPE.sub(one, quoted[1:-1])


class Literals:
    """The literals of one file."""

    def __init__(self, source: str) -> None:
        self.source = source

    def value(self, at: int, depth: int = 0) -> tuple[Any, int]:
        """The value that begins at a place, and the place behind it. Raises Unread."""
        if depth > DEEPEST or at >= len(self.source):
            raise Unread
        read, end = None, at
        if self.source[at] in "{[":
            read, end = (self._object if self.source[at] == "{" else self._list)(at + 1, depth)
        elif found := TEXT.match(self.source, at):
            read, end = unescaped(found[0]), found.end()
        elif found := NUMBER.match(self.source, at):
            read, end = found[0] == "!0", found.end()
        elif found := NAMES.match(self.source, at):
            end = found.end()
            if self.source[end : end + 1] in ENDS:
                read = self._named(found[0], at, depth)
        if self.source[end : end + 1] not in ENDS or not self.source[end : end + 1]:
            return None, self.skipped(end)
        return read, end

    def skipped(self, at: int) -> int:
        """The place of the comma or bracket that ends an expression. Raises Unread."""
        depth = 0
        while at < len(self.source):
            sign = self.source[at]
            found = TEXT.match(self.source, at) if sign in "\"'`" else None
            if sign == "/" and self.source[at - 1] in "(,=:[!&|?{};>":
                found = PATTERN.match(self.source, at)
            if found:
                at = found.end()
                continue
            if not depth and sign in ENDS:
                return at
            depth += (sign in "([{") - (sign in ")]}")
            at += 1
        raise Unread

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        read: list[Any] = []
        while self.source[at : at + 1] != "]":
            spread = self.source.startswith("...", at)
            value, at = self.value(at + 3 * spread, depth + 1)
            read += (value if isinstance(value, list) else []) if spread else [value]
            at = self._next(at, "]")
        return read, at + 1

    def _object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        read: dict[str, Any] = {}
        while self.source[at : at + 1] != "}":
            key = TEXT.match(self.source, at) or NAME.match(self.source, at)
            if key and self.source[key.end() : key.end() + 1] == ":":
                name = unescaped(key[0]) if key[0][0] in "\"'`" else key[0]
                read[name], at = self.value(key.end() + 1, depth + 1)
            elif self.source.startswith("...", at):
                value, at = self.value(at + 3, depth + 1)
                read.update(value if isinstance(value, dict) else {})
            else:
                at = self.skipped(at)  # a method or a short form
            at = self._next(at, "}")
        return read, at + 1

    def _next(self, at: int, end: str) -> int:
        """The place of the next element, or of the closing bracket. Raises Unread."""
        sign = self.source[at : at + 1]
        if sign not in (",", end):
            raise Unread
        return at + (sign == ",")

    def _named(self, names: str, before: int, depth: int) -> Any:
        """What a name, or one inside its object, was last set to before a place; None where it is no literal."""
        name, *inner = names.split(".")
        settings = [*re.finditer(rf"(?<![\w$.]){re.escape(name)}=(?=[\[{{])", self.source[:before])]
        try:
            read = self.value(settings[-1].end(), depth + 1)[0] if settings else None
        except Unread:
            return None
        for key in inner:
            read = read.get(key) if isinstance(read, dict) else None
        return read


def largest(source: str, name: str) -> dict[str, Any]:
    """The largest object of a file whose first key is this `name`; empty if there is none."""
    literals, found = Literals(source), [(0, dict[str, Any]())]
    for start in re.finditer(rf'\{{name:(?="{re.escape(name)}"|\["{re.escape(name)}")', source):
        try:
            read, end = literals.value(start.start())
        except Unread:
            continue
        if isinstance(read, dict):
            found.append((end - start.start(), read))
    return max(found, key=lambda each: each[0])[1]
