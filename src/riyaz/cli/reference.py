"""Generates docs/reference.md: `python -m riyaz.cli.reference > docs/reference.md`."""

import io
import sys

from rich.console import Console

from riyaz.cli.inside_keys import table
from riyaz.cli.main import NESTED, VERBS, build

WIDTH = 96
HEAD = """# Commands

Every command and option, written by `python -m riyaz.cli.reference`; a test compares it with the program.

Data goes to stdout, everything else to stderr. With `--json` the last line of stdout is one JSON document.
Options can stand in the `riyaz.toml` of a data folder under the same names (`limit_train = 300`); the command
line wins. `riyaz VERB --help` shows the common options where there are many, `--help all` every option.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | a bug in riyaz; `RIYAZ_TRACEBACK=1` shows where |
| 2 | wrong input or usage; one line on stderr says what, where and what to do next |
| 130 | stopped by Ctrl-C, SIGTERM or SIGHUP; the same command continues |
| 141 | the reader of stdout closed it |

| environment | meaning |
|---|---|
| `RIYAZ_HOME` | folder of the model cache |
| `RIYAZ_TRACEBACK` | if set, errors show their traceback |
| `RIYAZ_ENGINE` | the engine that answers: `native` (C++) or `torch`; if not set, native where it is built |
| `RIYAZ_ISA` | the instruction set of the C++ kernels, such as `avx2`; if not set, the fastest of this CPU |
| `RIYAZ_NATIVE` | the kernels that train: `0` torch's, `1` C++; if not set, C++ where they are faster |
| `RIYAZ_FROZEN` | the base that an adapter trains beside: `exact`, or `int8`; if not set, int8 where that is faster |
| `RIYAZ_LOOKUP` | `--lookup` where it is not given: `on`, `off` or `auto` |
| `RIYAZ_TEACHER_KEY` | the key of a teacher that is an address (`https://…/v1`); it is stored nowhere |
| `NO_COLOR` | if set, no colours |
"""


def reference() -> str:
    """The Markdown text of docs/reference.md."""
    groups: dict[str, str] = {}
    parts = [HEAD, _section([], groups)]
    for verb in (verb for verbs in VERBS.values() for verb in verbs):
        parts.append(_section([verb], groups))
        if verb == "inside":
            parts.append(
                f"Of one text; [Inside](inside.md#the-json-document-of---rows) has the keys of `--rows`.\n\n{table()}"
            )
        parts += [_section([verb, name], groups) for name in NESTED.get(verb, ())]
    return "\n".join(parts)


def help_blocks(words: list[str], width: int = WIDTH) -> list[str]:
    """The blocks of a command's help with every option: usage, description, one for each group of arguments or options.

    `words` name the command, such as `["rag", "add"]`; lines are wrapped at `width` characters.
    """
    page = io.StringIO()
    build(all_options=True).help_print(
        words, console=Console(file=page, width=width, force_terminal=False, color_system=None)
    )
    return page.getvalue().strip().split("\n\n")


def _section(words: list[str], groups: dict[str, str]) -> str:
    """The help of one command. A long group of options that an earlier command has too is named, not repeated."""
    title, blocks = " ".join(["riyaz", *words]), help_blocks(words)
    for place, block in enumerate(blocks):
        if block.count("\n") > 6 and groups.setdefault(block, title) != title:
            blocks[place] = f"{block.partition(':')[0]}: as in {groups[block]}"
    return "\n\n".join([f"## {title}", "```text\n" + blocks[0], *blocks[1:]]) + "\n```\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
