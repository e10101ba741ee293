"""Find the ends of sentences."""

import re

_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？]")


def whole_sentences(text: str) -> str:
    """The text up to the end of its last whole sentence, or ""; a mark other than 。！？ needs a space after it."""
    ends = [match.end() for match in _END.finditer(text)]
    return text[: ends[-1]] if ends else ""
