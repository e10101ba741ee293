"""`RiyazError`, the one exception a user sees: what is wrong, where, and what to do next, in one line."""

from collections.abc import Iterable

FEW, LONGEST = 3, 160  # findings that a message lists, and characters of each


class RiyazError(Exception):
    """A user's mistake or an invalid input; `str()` gives one line, `where: what; hint`."""

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        line = f"{line}; {self.hint}" if self.hint else line
        return " ".join(line.split())


def shown(text: str) -> str:
    """Text from a file, made safe for an error message: quoted ASCII, at most 80 characters."""
    quoted = ascii(text[:81])
    return quoted if len(quoted) <= 82 else quoted[:78] + "...'"


def few(findings: Iterable[str], between: str = ", ") -> str:
    """The first of several findings, and how many more there are."""
    distinct = list(dict.fromkeys(findings))
    first = [text if len(text) <= LONGEST else text[: LONGEST - 1] + "…" for text in distinct[:FEW]]
    more = [f"and {len(distinct) - FEW:,} more"] if len(distinct) > FEW else []
    return between.join(first + more)


def install(extra: str) -> str:
    """The hint for a package that is not installed: the command that installs one of pyproject.toml's extras."""
    return f"in riyaz's folder: pip install -e '.[{extra}]'"
