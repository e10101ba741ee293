"""Find the ends of sentences."""

import re

_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？]")


def first_sentence(text: str) -> str:
    """The text up to the end of its first sentence, at most its first paragraph; all of it where no sentence ends."""
    paragraph = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
    end = _END.search(paragraph)
    return paragraph[: end.end()] if end else paragraph


def whole_sentences(text: str) -> str:
    """The text up to the end of its last whole sentence, or ""; a mark other than 。！？ needs a space after it."""
    ends = [match.end() for match in _END.finditer(text)]
    return text[: ends[-1]] if ends else ""
