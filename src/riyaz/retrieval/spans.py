"""Candidate answers in a passage: every run of a few words that does not cross the end of a clause."""

import re

_WORD = re.compile(r"\S+")
_AROUND = " .,;:!?()[]{}\"'“”‘’«»"
_ENDS = ".;:!?"


def spans(text: str, longest: int) -> list[str]:
    """The distinct runs of at most `longest` words, in text order, without surrounding punctuation."""
    words = [match.span() for match in _WORD.finditer(text)]
    runs: dict[str, None] = {}
    for first, (start, _) in enumerate(words):
        for _, end in words[first : first + longest]:
            run = " ".join(text[start:end].split()).strip(_AROUND)
            if run:
                runs[run] = None
            if text[end - 1] in _ENDS:
                break
    return list(runs)
