"""Writes the manual pages of riyaz and each of its commands: `python -m riyaz.cli.manual FOLDER`."""

import re
import sys
from pathlib import Path

from riyaz import __version__
from riyaz.cli.main import NESTED, VERBS
from riyaz.cli.reference import HEAD, help_blocks
from riyaz.errors import RiyazError
from riyaz.files import write_text

WIDE = 10_000  # characters in a line, so that no text of a help page is wrapped
ENTRY = re.compile(r"^  (\S.*?)(?:  +(.*))?$")  # a label, and its text on the same line or on the next
ROW = re.compile(r"^\| `?([^|`]+?)`? \| (.+) \|$", re.MULTILINE)
TABLES = {"exit status": "EXIT STATUS", "environment": "ENVIRONMENT"}  # of the reference's head -> a section


def manual_pages() -> dict[str, str]:
    """The manual pages by their file names, such as `riyaz-compare.1`, as text of roff."""
    commands = [[verb] for verbs in VERBS.values() for verb in verbs]
    commands += [[verb, name] for verb, names in NESTED.items() for name in names]
    return {f"{'-'.join(['riyaz', *words])}.1": _page(words) for words in [[], *commands]}


def _page(words: list[str]) -> str:
    """The page of one command."""
    usage, *blocks = help_blocks(words, WIDE)
    name, about = "-".join(["riyaz", *words]), blocks[0]
    lines = [f'.TH {name.upper()} 1 "" "riyaz {__version__}" "Riyaz"', ".ad l", ".SH NAME"]
    lines += [f"{roff(name)} \\- {roff(about.removesuffix('.'))}", ".SH SYNOPSIS", roff(usage.removeprefix("Usage: "))]
    for block in blocks[1:]:
        title, *rest = block.strip("\n").splitlines()
        if rest and title.endswith(":") and not title.startswith(" "):
            lines += [f".SH {roff(title.removesuffix(':').upper())}", *_entries(rest)]
        else:
            lines += [".SH DESCRIPTION", ".nf", *map(roff, [title, *rest]), ".fi"]
    if not words:
        for head, title in TABLES.items():
            table = HEAD.partition(f"| {head} | meaning |\n|---|---|\n")[2].partition("\n\n")[0]
            lines += [f".SH {title}"]
            for label, meaning in ROW.findall(table):
                lines += [".TP", f"\\fB{roff(label)}\\fR", roff(meaning.replace("`", ""))]
    else:
        lines += [".SH SEE ALSO", "\\fBriyaz\\fR(1)"]
    return "\n".join(lines) + "\n"


def _entries(lines: list[str]) -> list[str]:
    """Labels in bold, each with its text below it."""
    made: list[str] = []
    for line in lines:
        if entry := ENTRY.match(line):
            made += [".TP", f"\\fB{roff(entry[1])}\\fR", *([roff(entry[2])] if entry[2] else [])]
        else:
            made.append(roff(line.strip()))
    return made


def roff(text: str) -> str:
    """A line of text as roff shows it unchanged: backslashes, hyphens, characters beyond ASCII, and a control character
    at its beginning."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in text)
    return rf"\&{text}" if text.startswith((".", "'")) else text


def main(arguments: list[str]) -> int:
    """Write the pages into a folder and print it; returns the exit status, 2 for wrong input."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m riyaz.cli.manual FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in manual_pages().items():
            write_text(folder / name, text)
    except (OSError, RiyazError) as error:
        print(f"error: {folder}: no manual pages written: {error}; name a folder that can be written", file=sys.stderr)
        return 2
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
