"""Every block of commands in the documents is run by a test or says why not, and its `riyaz` commands can be read."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import command_blocks
import pytest
from command_blocks import COMMAND, MARK, README, RUN, SHELLS, blocks_of, pages, riyaz_calls
from cyclopts import App, CycloptsError

from riyaz.cli.main import build
from riyaz.errors import RiyazError
from riyaz.methods import METHODS

PAGE = "docs/page.md"


@cache
def application() -> App:
    """The command line; its commands are read and not started."""
    return build()


def unread(words: list[str]) -> str:
    """Why the command line does not take these words after `riyaz`; "" where it does."""
    try:
        application().parse_args(words, exit_on_error=False, print_error=False)
    except (CycloptsError, RiyazError) as error:
        return " ".join(str(error).split())
    named = words[1:2] if words[0] == "adapt" else []
    named += [value for option, value in pairwise(words) if option == "--methods"]
    methods = {name.partition("@")[0] for text in named for name in text.split(",")}
    return f"no method {', '.join(sorted(methods - METHODS.keys()))}" if methods - METHODS.keys() else ""


def problems_of(root: Path) -> list[str]:
    """Blocks that are neither run nor marked, commands in a block that is none of commands, commands that are wrong."""
    problems = []
    for page in pages(root):
        for block in blocks_of(page, root):
            if block.language not in SHELLS:
                if COMMAND.search(block.text):
                    problems.append(f"{block.where}: holds commands; name its language shell, not {block.language!r}")
                continue
            if not block.reason and block.page not in (README, *RUN):
                problems.append(f"{block.where}: no test runs it; its first line must be `# Not run by the tests: …`")
            calls = [words for line in block.lines for words in riyaz_calls(line)]
            told = [(words, unread(words)) for words in calls]
            problems += [f"{block.where}: riyaz {' '.join(words)}: {why}" for words, why in told if why]
    return problems


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    problems = problems_of(command_blocks.ROOT)
    assert not problems, "\n" + "\n".join(problems)


def test_the_pages_that_are_run_have_blocks_to_run() -> None:
    assert [page for page in RUN if not command_blocks.unmarked(page)] == []
    marked = [block for page in pages() for block in blocks_of(page) if block.reason]
    assert len(marked) > 20 and all(len(block.reason) < 120 for block in marked)


MARKED = "```bash\n# Not run by the tests: a.\n{}\n```"


@pytest.mark.parametrize(("block", "says"), [
    ("```bash\n# Not run by the tests: it takes hours.\nriyaz data x.jsonl\n```", ""),
    ("```bash\n#!/bin/bash\n# Not run by the tests: it takes hours.\nriyaz data x.jsonl\n```", ""),
    ("```bash\nriyaz data x.jsonl\n```", "no test runs it"),
    ("```bash\n# Not run by the tests:\nriyaz data x.jsonl\n```", "no test runs it"),
    ("- a\n\n  ```shell\n  ls\n  ```", "no test runs it"),
    ("```text\nriyaz data x.jsonl\n```", "holds commands"),
    ("```\n$ make demo\n```", "holds commands"),
    ("```text\nriyaz: a word\n```", ""),
    (MARKED.format('ssh a "cd /x && torchrun -m riyaz pretrain a --stepz 3" &'), "--stepz"),
    (MARKED.format("RIYAZ_HOME=/x/riyaz /opt/riyaz/bin/riyaz pul a > b"), 'Unknown command "pul"'),
    (MARKED.format("riyaz compare a \\\n  --budgt 3m"), "--budgt"),
    (MARKED.format("riyaz compare a --budget 3"), "--budget: '3' is not a duration"),
    (MARKED.format("riyaz compare a --methods lora,lorra"), "no method lorra"),
    (MARKED.format("riyaz adapt lora@b a --out b | cat"), ""),
    (MARKED.format("docker build -t riyaz .\ndocker run riyaz pull x"), ""),
])  # fmt: skip
def test_a_block_that_is_not_right_is_seen(tmp_path: Path, block: str, says: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / PAGE).write_text(f"Do\n\n{block}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_command_blocks.RUN", ())
        problems = problems_of(tmp_path)
    assert len(problems) == bool(says) and says in "".join(problems), problems


def test_a_mark_is_a_sentence() -> None:
    assert MARK.match("# Not run by the tests: it needs a GPU.\n") and not MARK.match("# not run: a\n")
    assert not re.search(MARK, "# Not run by the tests: it needs a GPU\n")
