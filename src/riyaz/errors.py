"""`RiyazError`, the one exception a user sees: what is wrong, where, and what to do next, in one line."""

from collections.abc import Iterable, Mapping, Sequence

FEW, LONGEST = 3, 160  # findings that a message lists, and characters of each
NAMES = 6  # names of columns, files or keys that a message lists
SHOWN = 60  # characters of a wrong value


class RiyazError(Exception):
    """A user's mistake or an invalid input; `str()` gives one line, `where: what; hint`.

    `options` are those with which the command would go on, such as {"encoding": "latin-1"}.
    """

    def __init__(
        self, what: str, where: str = "", hint: str = "", options: Mapping[str, str | bool] | None = None
    ) -> None:
        self.what, self.where, self.hint, self.options = what, where, hint, dict(options or {})
        super().__init__(what)

    def _render_traceback_(self) -> list[str]:  # IPython shows this in a notebook's cell
        return [f"RiyazError: {self}"]

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        line = f"{line}; {self.hint}" if self.hint else line
        line = " ".join(line.split())
        return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def shown(text: str) -> str:
    """Text from a file, made safe for an error message: quoted ASCII, at most 80 characters."""
    quoted = ascii(text[:81])
    return quoted if len(quoted) <= 82 else quoted[:78] + "...'"


def brief(value: object) -> str:
    """A wrong value, text in quotes, at most SHOWN characters."""
    try:
        written = str(value) if isinstance(value, (int, float)) else repr(_beginning(value, SHOWN))
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return written if len(written) <= SHOWN else f"{written[: SHOWN - 1]}…"


def _beginning(value: object, levels: int) -> object:
    """A value of which more than SHOWN characters are left to show, without the megabytes behind them."""
    if isinstance(value, str):
        return value[:SHOWN]
    if isinstance(value, list):
        return [_beginning(each, levels - 1) for each in value[:SHOWN]] if levels else []
    if isinstance(value, dict):
        members = list(value.items())[:SHOWN] if levels else []
        return {_beginning(name, 0): _beginning(each, levels - 1) for name, each in members}
    return value


def number(value: float) -> str:
    """A number as one writes it: a whole one with every digit, a float with six."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def few(findings: Iterable[str], between: str = ", ", count: int | None = None) -> str:
    """The first `count` of several findings, by default FEW, and how many more there are."""
    count = FEW if count is None else count
    distinct = list(dict.fromkeys(findings))
    first = [text if len(text) <= LONGEST else text[: LONGEST - 1] + "…" for text in distinct[:count]]
    more = [f"and {len(distinct) - count:,} more"] if len(distinct) > count else []
    return between.join(first + more)


def listed(names: Iterable[str]) -> str:
    """The first NAMES of the names of columns, files or keys, and how many more there are."""
    return few(names, count=NAMES)


def joined(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
