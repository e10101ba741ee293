"""The blocks of commands in the documents: which of them a test runs, and every `riyaz` command that stands in them.

A block that no test runs says so, and why, in its first line; behind a line `#!` in its second:

    # Not run by the tests: it needs four machines.
"""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELLS = {"bash", "sh", "shell", "console"}
MARK = re.compile(r"(?:#!.*\n)?# Not run by the tests: (\S.*\.)\n")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
# What a line of commands begins with, where a block does not say that it holds commands.
COMMAND = re.compile(
    r"^(?:\$ )?(?:riyaz [a-z]|make [a-z]|(?:uv )?pip install|(?:python|torchrun|docker|srun|curl|ray|git) \S)",
    re.MULTILINE,
)
NAMES = {"-t", "--model"}  # options of other programs behind which `riyaz` is no command
README = "README.md"  # its commands are run by tests/house/test_readme.py
# The pages whose blocks are run by tests/cli/test_pages_run.py, in the order in which they stand, if they have no mark.
RUN = (
    "docs/data.md",
    "docs/decisions.md",
    "docs/from-nothing-to-1.58-bits.md",
    "docs/how-a-model-learns.md",
    "docs/how-it-compares.md",
    "docs/inside.md",
    "docs/lesson.md",
    "docs/page.md",
    "docs/serving.md",
    "docs/what-a-model-cannot-do.md",
    "examples/tickets/README.md",
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page: the line of its fence, its language, its text without the page's indentation."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """`page:line`."""
        return f"{self.page}:{self.line}"

    @property
    def reason(self) -> str:
        """Why no test runs it, as its mark says; "" without a mark."""
        mark = MARK.match(self.text)
        return mark[1] if mark else ""

    @property
    def lines(self) -> list[str]:
        """Its commands, one a line, without comments."""
        lines = [line.removeprefix("$ ").strip() for line in self.text.replace("\\\n", " ").splitlines()]
        return [line for line in lines if line and not line.startswith("#")]


def pages(root: Path = ROOT) -> list[Path]:
    """Every page that people read; docs/reference.md is written by a program and holds help texts."""
    names = [README, "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md"]
    listed = [root / name for name in names] + sorted((root / "docs").rglob("*.md"))
    listed += sorted((root / "examples").rglob("*.md"))
    return [path for path in listed if path.is_file() and path.name != "reference.md"]


def blocks_of(page: Path, root: Path = ROOT) -> list[Block]:
    """Every fenced block of a page."""
    text, name = page.read_text(encoding="utf-8"), page.relative_to(root).as_posix()
    return [
        Block(name, text.count("\n", 0, each.start()) + 1, each["language"], textwrap.dedent(each["text"]))
        for each in FENCE.finditer(text)
    ]


def unmarked(page: str, root: Path = ROOT) -> list[Block]:
    """The blocks of commands of a page that have no mark."""
    return [each for each in blocks_of(root / page, root) if each.language in SHELLS and not each.reason]


def riyaz_calls(line: str) -> Iterator[list[str]]:
    """The words behind `riyaz` in each call of one line: after torchrun, in docker, in a text for ssh or srun."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if " " in word:
            yield from riyaz_calls(word)
        if not set(word) <= set(";|&<>()"):
            words.append(word)
            continue
        begins = [place for place, each in enumerate(words) if Path(each).name == "riyaz" and "=" not in each]
        begins = [place for place in begins if not place or words[place - 1] not in NAMES]
        if begins and words[begins[0] + 1 :]:
            yield words[begins[0] + 1 :]
        words = []
