"""General text: two to measure forgetting on, another for training to rehearse."""

import ast
import pydoc_data.topics
import re
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from riyaz.errors import RiyazError
from riyaz.files import refuse_device

TOKENS, BLOCK = 4096, 512  # tokens of all measured blocks, and of one
# Modules and packages of the standard library with much prose in their docstrings. Every Python has them; the help
# topics quote none of them, as they do pdb.
MODULES = (
    "_pydecimal", "_pyio", "argparse", "ast", "asyncio", "base64", "cmd", "codecs", "collections", "concurrent",
    "configparser", "difflib", "email", "fileinput", "ftplib", "functools", "getopt", "gzip", "http", "importlib",
    "inspect", "ipaddress", "json", "logging", "lzma", "mimetypes", "os", "pathlib", "pickle", "pkgutil", "platform",
    "queue", "random", "re", "shelve", "shutil", "smtplib", "socket", "socketserver", "ssl", "statistics", "subprocess",
    "tarfile", "tempfile", "textwrap", "threading", "timeit", "traceback", "turtle", "typing", "urllib", "wave",
    "wsgiref", "xml", "xmlrpc", "zipfile",
)  # fmt: skip
SHORTEST_PARAGRAPH = 100  # characters
LETTERS = 0.95  # least share of letters, spaces and common punctuation in a paragraph of prose


def general_text(path: str | None) -> str:
    """The text of a file, or without a path the topics of Python's help: forgetting is measured on it. Raises
    RiyazError if the file cannot be read or has fewer than 2,000 characters."""
    if path is None:
        return "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
    refuse_device(Path(path))
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RiyazError(f"cannot be read as text ({error})", path, "give a UTF-8 text file to --general") from error
    if len(text) < 2000:
        raise RiyazError(f"{len(text)} characters are too few to measure forgetting on", path, "give more text")
    return text


@cache
def prose_text() -> str:
    """English prose that riyaz brings along: a second text that forgetting is measured on, of another kind than help
    topics about code."""
    return resources.files("riyaz.data").joinpath("prose.txt").read_text(encoding="utf-8")


def general_blocks(stream: Sequence[int]) -> list[list[int]]:
    """Evenly spaced blocks of a token stream, about TOKENS tokens in all, on which forgetting is measured."""
    size = min(BLOCK, len(stream))
    count = max(1, min(TOKENS // size, len(stream) // size))
    starts = [round(i * (len(stream) - size) / max(1, count - 1)) for i in range(count)]
    return [list(stream[start : start + size]) for start in starts]


@cache
def replay_text() -> str:
    """Text that training may rehearse: the prose in the docstrings of MODULES, about half a million characters.

    The modules are read, not imported. Raises RiyazError if this Python has no sources of them.
    """
    library = Path(sysconfig.get_path("stdlib"))
    paragraphs: dict[str, None] = {}
    for name in MODULES:
        alone = library / f"{name}.py"
        for file in [alone] if alone.exists() else sorted((library / name).rglob("*.py")):
            paragraphs |= dict.fromkeys(_prose(file))
    if not paragraphs:
        what = "the sources of Python's standard library, whose docstrings are rehearsed, are missing"
        raise RiyazError(what, str(library), "leave out --replay")
    return "\n\n".join(paragraphs)


def _prose(file: Path) -> Iterator[str]:
    """The paragraphs of a Python file's docstrings that are prose: no code, no tables, not indented."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
            letters = sum(character.isalpha() or character in " \n,.'-" for character in paragraph)
            if len(paragraph) >= SHORTEST_PARAGRAPH and letters >= LETTERS * len(paragraph) and paragraph[0] != " ":
                yield paragraph
