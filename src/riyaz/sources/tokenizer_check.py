"""Tries a stranger's tokenizer in a process with limits before it is opened: its regular expressions may never end.

A tokenizer that passed is remembered in the store by its hash. One whose patterns are all known is not tried.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import tokenizers

from riyaz.confined import module_command
from riyaz.errors import RiyazError
from riyaz.files import new_sha256, write_text
from riyaz.sources import store
from riyaz.system import CPU_LIMIT_REACHED
from riyaz.text import tokenizer_files
from riyaz.text.tokenizer import Tokenizer
from riyaz.text.tokenizer_gguf import LLAMA3_SPLIT, QWEN2_SPLIT

KNOWN = (LLAMA3_SPLIT, QWEN2_SPLIT)  # patterns that are quick on every text
WALL_SECONDS = 300  # unlike the limit on CPU time, which ends it earlier, dependent on load
PARTS = ("normalizer", "pre_tokenizer", "decoder")
HINT = "it cannot be used; take the tokenizer.json of another copy of this model"


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a stranger's folder. Raises RiyazError when it is not safe to use."""
    files = tokenizer_files.from_folder(folder)
    expect_safe(files.definition, folder)
    return Tokenizer(files, str(folder))


def expect_safe(definition: str, folder: Path) -> None:
    """Raises RiyazError when the tokenizer of this tokenizer.json fails on ordinary text, or needs more time or memory
    for it than any real one."""
    where = str(folder / "tokenizer.json")
    parsed = tokenizer_files.parse_json(definition, where)
    if set(_patterns([parsed.get(part) for part in PARTS])) <= set(KNOWN):
        return
    digest = new_sha256(f"1 {tokenizers.__version__} {definition}".encode()).hexdigest()
    passed = store.home() / "tokenizers" / digest[:32]
    if passed.is_file():
        return
    _try(definition, where)
    with suppress(RiyazError, OSError):  # without a writable store it is tried again next time
        passed.parent.mkdir(parents=True, exist_ok=True)
        write_text(passed, f"{where}\n")


def _patterns(value: Any) -> Iterator[str]:
    """Every regular expression in parts of a tokenizer.json; its nesting was bounded when it was parsed."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict) and "Regex" in value:
        yield str(value["Regex"])
    for item in inside:
        yield from _patterns(item)


def _try(definition: str, where: str) -> None:
    arguments, environment = module_command("riyaz.text.tokenizer_worker")
    try:
        done = subprocess.run(
            arguments, input=definition.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, timeout=WALL_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RiyazError("the tokenizer does not finish in time on ordinary text", where, HINT) from None
    except OSError as error:
        hint = f"run `{Path(sys.executable).name} -m riyaz.text.tokenizer_worker` to see why"
        raise RiyazError(f"the process that tries it failed to start: {error}", where, hint) from None
    if done.stdout == b"ok\n":
        return
    if done.returncode == CPU_LIMIT_REACHED:
        raise RiyazError("the tokenizer does not finish in time on ordinary text", where, HINT)
    raise RiyazError("the tokenizer crashes on ordinary text, or needs too much memory for it", where, HINT)
