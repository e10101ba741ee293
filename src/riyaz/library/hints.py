"""What riyaz says, in the words of Python: options as arguments, commands as calls, `%pip` in a notebook."""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

from riyaz.config import AdaptConfig, CompareConfig, DataConfig, PretrainConfig, SamplingConfig
from riyaz.errors import RiyazError
from riyaz.results import Comparison

FLAG = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
CONFIGS = (DataConfig, CompareConfig, AdaptConfig, PretrainConfig, SamplingConfig)
OPTIONS = {option.name for config in CONFIGS for option in fields(config)}
SWITCHES = {
    "accept_licence", "allow_answer_in_prompt", "allow_leakage", "data_curve", "limits", "merge_labels", "resume",
    "skip_incomplete", "unsafe_code",
}  # fmt: skip
PATTERN = r"\briyaz (pull|compare|adapt|pretrain)\b"
QUOTED = re.compile(rf"`{PATTERN}([^`]*)`")
WORD = r"(?:'[^']*'|[^\s;,'`]*[^\s;,.'`])"
WITH_OPTIONS = re.compile(rf"{PATTERN}((?: …)?(?: --[a-z-]+(?: (?!--){WORD})?)+)")
ALONE = re.compile(PATTERN)
PIP = re.compile(r"(?<![%\w])pip install ")


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook: of Jupyter, Colab or an editor."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return hasattr(shell, "kernel")


def in_words_of_python(text: str) -> str:
    """A sentence with its commands as calls: `riyaz pull minilm` as `riyaz.pull('minilm')`, --max-ms as `max_ms`."""
    text = QUOTED.sub(lambda command: f"`{_call(command[1], command[2])}`", text)
    text = WITH_OPTIONS.sub(lambda command: f"`{_call(command[1], command[2])}`", text)
    text = ALONE.sub(lambda command: f"riyaz.{command[1]}", FLAG.sub(_argument, text))
    return PIP.sub("%pip install ", text) if in_notebook() else text


def comparison_in_python(result: Comparison) -> Comparison:
    """A comparison whose sentences name calls in place of commands."""
    arms = [replace(arm, reason=arm.reason and in_words_of_python(arm.reason)) for arm in result.arms]
    return replace(result, reason=in_words_of_python(result.reason), arms=arms)


@contextmanager
def in_python() -> Iterator[None]:
    """Errors name calls and arguments, as Python writes them: `answer_column` for --answer-column."""
    try:
        yield
    except RiyazError as error:
        what, where, hint = (in_words_of_python(part) for part in (error.what, error.where, error.hint))
        raise RiyazError(what, where, hint) from error.__cause__


def _call(function: str, rest: str) -> str:
    """The call of a command with these words behind it."""
    try:
        words = shlex.split(rest)
    except ValueError:  # a quotation mark without its partner
        return f"riyaz.{function}({rest.strip()!r})"
    arguments, place = [], 0
    while place < len(words):
        word, following = words[place], words[place + 1] if place + 1 < len(words) else "--"
        flag = FLAG.fullmatch(word)
        if flag is None:
            arguments.append(word if word == "…" or word.isupper() else repr(word))
        elif _argument(flag).endswith("=True") or following.startswith("--"):
            arguments.append(f"{flag[1].replace('-', '_')}=True")
        else:
            arguments.append(f"{_argument(flag)}={following!r}")
            place += 1
        place += 1
    return f"riyaz.{function}({', '.join(arguments)})" if arguments else f"riyaz.{function}"


def _argument(flag: re.Match[str]) -> str:
    name = flag[1].replace("-", "_")
    if name in SWITCHES:
        return f"{name}=True"
    return next((option for option in (name, f"{name}_") if option in OPTIONS), flag[0])
