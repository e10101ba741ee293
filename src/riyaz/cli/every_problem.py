"""Everything that is wrong with a file of rows, in one line that ends in a command with the options that mend it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from riyaz.cli.row_problems import command_with
from riyaz.config import DataConfig
from riyaz.errors import RiyazError

READ = ("prompt_column", "answer_column", "encoding", "skip_incomplete")  # options that are tried to read on


def every_problem(
    first: RiyazError, verb: str, data: Path, test: Path | None, config: DataConfig, flags: Mapping[str, Any]
) -> RiyazError:
    """`first`, which options mend, and the problems behind it, which show once these options are given.

    The hint ends in `riyaz VERB DATA` with `flags`, the flags of the command that failed, and these options.
    """
    from riyaz.data import formats, split, task
    from riyaz.data.answer_in_prompt import OPTION, answer_in_prompt, refuse_telling

    problems, options = [first], dict(first.options)
    while True:
        try:
            reading = config.reading() | {name: value for name, value in options.items() if name in READ}
            folder = formats.open_data(data, test=test, **reading)
            rows = task.detect(folder.train, config.instruction, config.metric, config.task, config.schema,
                               max_new_tokens=config.max_new_tokens)  # fmt: skip
            split.split(folder.train, folder.test, rows, allow_leakage="allow_leakage" in options or verb == "data")
            allowed = verb == "data" or OPTION in options or bool(flags.get(OPTION))
            telling = None if allowed else answer_in_prompt(folder.train, folder.test, rows)
            refuse_telling(telling, str(folder.train.path), allowed)
            break
        except RiyazError as error:
            problems.append(error)
            if not error.options.keys() - options.keys():
                break
            options |= error.options
    command = command_with(verb, data, {**flags, **options})
    if len(problems) == 1:
        return RiyazError(first.what, first.where, f"{first.hint}: {command}", options)
    said = "; ".join(f"({number}) {error.where}: {error.what}" for number, error in enumerate(problems, start=1))
    mended = all(error.options for error in problems)
    hint = f"run {command}" if mended else f"{problems[-1].hint}; then run {command}"
    return RiyazError(f"{len(problems)} things are wrong: {said}", str(data), hint, options)
