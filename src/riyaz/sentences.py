"""Where a text's sentences end."""

import re

_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？]")


def ended(text: str) -> str:
    """The text up to the end of its last whole sentence, after which something must follow; "" when none ends."""
    ends = [match.end() for match in _END.finditer(text)]
    return text[: ends[-1]] if ends else ""
