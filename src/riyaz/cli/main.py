"""`riyaz VERB …`: the verbs; every error becomes one line and an exit status here.

Verbs are named by import path, so that `riyaz --help` loads neither torch nor numpy. Data goes to stdout,
everything else to stderr. Exit status: 0 done, 1 a bug, 2 wrong input, 130 interrupted (SIGINT, SIGTERM, SIGHUP),
141 broken pipe.
"""

import contextlib
import difflib
import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO

from cyclopts import (
    App,
    ArgumentCollection,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnusedCliTokensError,
)

from riyaz import __version__
from riyaz.cli import signals
from riyaz.cli.help import SHORT, Formatter
from riyaz.cli.pages import page_of
from riyaz.commit import version_line
from riyaz.errors import SHOWN, RiyazError, brief, listed
from riyaz.extras import absence
from riyaz.ranks import ProcessError, ToldElsewhere, launched
from riyaz.report.media.screen import PipeConsole

VERBS = {  # group -> verb -> help; each verb is the function of its name in riyaz.cli.VERB
    "Models": {
        "pull": "Download a base model once; every later use is offline",
        "models": "List the models in the cache",
        "doctor": "Show versions, packages, hardware, the model cache and what is wrong with any of them",
        "verify": "Check hashes, shapes, numbers, links and counts of a file or folder, without loading or changing it",
        "completion": "Print the script that completes commands and options in bash, zsh or fish",
    },
    "Compare and adapt": {
        "data": "Show how a data file is read, and what may be wrong with its rows: labels, duplicates, leakage",
        "compare": "Run every way of adapting the model, measure each on held-out rows, pick one",
        "report": "Write the report of a comparison or of a pretraining run again",
        "adapt": "Run one method and keep its artifact",
        "distil": "Train a LoRA on what a teacher answers: a model, an artifact or an endpoint",
        "evaluate": "Score a model or an artifact on test rows",
        "limits": "Measure what a model or an artifact cannot do: bias, truth, context, cost, fragility",
    },
    "Train from scratch": {
        "tokenizer": "Make a tokenizer from text: pieces of words (byte-level BPE), bytes or characters",
        "pretrain": "Train a new model from random weights on your text",
        "ternarize": "Make a model with weights -1, 0 and 1 from a full-precision one, by training on text",
    },
    "Use": {
        "run": "Answer every row of a file; after a stop, the same command continues",
        "decide": "Answer typed questions about every row of a file, with calibrated probabilities",
        "join": "Put together what run, decide or evaluate --shard I/N has answered",
        "chat": "Talk with a model or an artifact",
        "generate": "Answer one prompt",
        "predict": "Show the most likely next tokens, before and after adapting",
        "inside": "Show what a model computes between a text and its next token, and what adapting changed in it",
        "ui": "Open the page: chat, next words, data, runs and comparisons of a folder",
        "serve": "Serve models, adapters and artifacts to OpenAI's clients over HTTP",
        "rag": "Search your own documents: rag add, rag ask, rag verify",
    },
    "Export": {
        "merge": "Write an artifact's adapter into the weights: a whole model that needs no adapter",
        "blend": "Average the LoRA adapters of several artifacts that were trained on one base",
        "export": "Write a model or an artifact in a format that other tools load",
        "card": "Write the model card of an artifact, from what was measured only",
        "quantize": "Write a model or an artifact with small weights, and say what that costs",
    },
}
OLD = {"info": "doctor"}  # names that verbs had; they work and no list shows them
ALONE = ("compare", "distil")  # verbs that train, and not in several processes
TOGETHER = ("adapt", "pretrain", "ternarize")  # verbs of which several processes do one work
TABLES = (
    "riyaz data",
    "riyaz compare",
    "riyaz adapt",
    "riyaz run",
    "riyaz decide",
)  # commands whose data is one file, one folder or one pattern
NESTED = {  # verb -> its subcommands -> help; each is the function of its name in riyaz.cli.VERB
    "rag": {
        "add": "Add documents to a collection, all or none; a changed document replaces its old version",
        "ask": "Find the passages that answer a question, each with its document and place in it",
        "verify": "Check every text, chunk and vector of a collection against its hash",
    },
}
GONE = "the working folder is gone, deleted or no longer mounted; cd to one that is there and run the command again"
ABOUT = """Train, adapt, compare and run language models on the CPU you already have.

Start with:  riyaz pull smollm2-135m
             riyaz chat smollm2-135m
             riyaz compare ROWS --budget 10m"""


def build(all_options: bool = False) -> App:
    """The cyclopts application; the modules of the verbs are imported on use. `all_options`: help pages show them."""
    made = App(
        name="riyaz",
        help=ABOUT,
        version=lambda: f"riyaz {version_line(__version__)}",
        help_format="plaintext",
        help_formatter=Formatter(),
        console=PipeConsole(),
        default_parameter=Parameter(negative=(), negative_iterable=()),
        config=[whole_numbers, durations],
        group_arguments=Group("Arguments", sort_key=0),
        group_parameters=Group("Options", sort_key=1),
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for title, verbs in VERBS.items():
        group = Group.create_ordered(title)
        for place, (verb, help_text) in enumerate(verbs.items()):
            if verb not in NESTED:
                path = f"riyaz.cli.{verb}:{verb}"
                pages = Formatter(verb if verb in SHORT and not all_options else "")
                made.command(path, name=verb, help=help_text, help_formatter=pages, group=group, sort_key=place)
                continue
            family = App(name=verb, help=help_text, group=group, sort_key=place)
            for inner, (name, inner_help) in enumerate(NESTED[verb].items()):
                family.command(f"riyaz.cli.{verb}:{name}", name=name, help=inner_help, sort_key=inner)
            made.command(family)
    for old, verb in OLD.items():
        made.command(f"riyaz.cli.{verb}:{verb}", name=old, help=f"The old name of riyaz {verb}", show=False)
    made["--help"].help, made["--version"].help = "show this help", "show the version"
    made["--help"].group = made["--version"].group = Group.create_ordered("Options")
    return made


def read_help(tokens: list[str]) -> tuple[list[str], bool]:
    """(tokens without the `all` of `--help all`, whether it was there). Raises RiyazError for another word there."""
    flag = next((place for place, token in enumerate(tokens) if token in ("--help", "-h", "--")), len(tokens))
    before, after = tokens[: flag + 1], tokens[flag + 1 :]
    if not after or before[-1] == "--" or after[0].startswith("-"):
        return tokens, False
    if after[0] == "all":
        return before + after[1:], True
    if flag and before[:flag] not in [[verb] for verb in NESTED]:  # where a verb can follow, cyclopts looks for it
        hint = "write --help, or --help all for every option"
        raise RiyazError(f"unknown {brief(after[0])}", f"riyaz {before[0]} --help", hint)
    return tokens, False


def whole_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse values such as 2.7 for integer options; cyclopts would round them."""
    for argument in arguments:
        if argument.hint in (int, int | None):
            for token in argument.tokens:
                if "." in token.value:
                    raise CoercionError(token=token, argument=argument, target_type=int)


def durations(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse a duration without a unit; the message names the flag, which cyclopts' own would not."""
    from riyaz.config import Seconds, parse_budget

    for argument in arguments:
        if argument.hint in (Seconds, Seconds | None):
            for token in argument.tokens:
                parse_budget(token.value, token.keyword or "")


def main(tokens: Sequence[str] | None = None) -> int:
    """Run one command line, by default sys.argv without the program's name, and return the exit status."""
    tokens, closed = list(sys.argv[1:] if tokens is None else tokens), _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):  # characters that the locale cannot encode are escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    os.environ.pop("MPLBACKEND", None)  # pictures are drawn as SVG; matplotlib refuses to start with an unknown one
    try:
        if "stdout" in closed:
            raise RiyazError("stdout is closed, so the result has nowhere to go", hint="redirect it, as with > out.txt")
        from riyaz import hardware

        hardware.expect_start()
        with signals.heard():
            words, all_options = read_help(tokens)
            if words[:1] and words[0] in ALONE and launched()[1] > 1:
                raise RiyazError("works in one process only", f"riyaz {words[0]}", "start it without torchrun")
            status = build(all_options)(words)
            if not words:
                _print_next_step()
            sys.stdout.flush()
        return status if type(status) is int else 0
    except BrokenPipeError:
        _drop_unwritten(sys.stdout)
        return 141
    except ToldElsewhere:
        return 2
    except KeyboardInterrupt as stop:  # some commands say how to continue
        _drop_unwritten(sys.stdout)
        if not _follows(tokens):
            _tell(str(stop) or "stopped; run the same command again to continue")
        return 130
    except Exception as error:
        if os.environ.get("RIYAZ_TRACEBACK"):
            raise
        from riyaz.report.media.markup import printable_line  # the error may quote a file's name or content

        unwritten = _drop_unwritten(sys.stdout)
        if unwritten and isinstance(error, OSError) and error.errno == unwritten.errno and not error.filename:
            error.filename = "stdout"
        line, status = explain(error)
        usual = isinstance(error, (RiyazError, CycloptsError)) and not isinstance(error, ProcessError)
        if usual and _follows(tokens):  # the first process says the same
            return status
        _tell(f"error: {printable_line(line)}")
        return status


def _print_next_step() -> None:
    """Print what one can do next in this folder; nothing where it cannot be read."""
    from pathlib import Path

    from riyaz.cli.next_step import next_step
    from riyaz.report.media.markup import printable_line  # names and commands come from the folder's files

    with contextlib.suppress(OSError):
        try:
            step = next_step(Path.cwd())
        except RiyazError as error:  # such as no home folder
            step = f"{error.hint} ({error.what})"
        print(f"\nNext, in this folder:  {printable_line(step)}")


def _follows(tokens: Sequence[str]) -> bool:
    """Whether torchrun has started this process as another than the first of several that do one work, or would. A
    command such as `run` works by itself, whatever its rank in a job."""
    with contextlib.suppress(RiyazError):
        return tokens[:1] in [[verb] for verb in (*ALONE, *TOGETHER)] and launched()[0] > 0
    return False


def _drop_unwritten(stream: TextIO) -> OSError | None:
    """Drop what a standard stream could not take, because its disk is full or its reader has gone, and return why. The
    interpreter would try again on exit, report a second error and change the exit status."""
    try:
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def _tell(line: str) -> None:
    """Print to stderr, unless its disk is full or the terminal has gone."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
    _drop_unwritten(sys.stderr)


def _open_closed_streams() -> list[str]:
    """Open the null device in the place of standard streams that were closed when the process started, so that no file
    of this process or of its children gets their numbers; returns their names."""
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is that of the closed stream
        os.set_inheritable(number, True)
        setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w"))
    return closed


def explain(error: BaseException) -> tuple[str, int]:
    """(line, exit status): what is wrong and what to do next, 2 for the user's mistakes and 1 for bugs."""
    if isinstance(error, CycloptsError):
        return _usage(error), 2
    line, status = _explained(error)
    if status == 2 and _folder_is_gone():
        return GONE if isinstance(error, OSError) and not error.filename else f"{line}; {GONE}", 2
    return line, status


def _explained(error: BaseException) -> tuple[str, int]:
    if isinstance(error, RiyazError):
        page = page_of(error)
        return f"{error} (see {page})" if page else str(error), 2
    if line := absence(error):
        return line, 2
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a path holds a NUL character; no file can have that name", 2
    from riyaz import hardware

    if hardware.ran_out(error):
        return f"{hardware.OUT_OF_MEMORY}; {hardware.MORE_MEMORY}", 2
    if isinstance(error, OSError) and error.strerror:
        hint = "; free some space and run the same command again" if error.errno == errno.ENOSPC else ""
        from riyaz.cli.unnamed import file_of

        where = error.filename or file_of(error)
        return f"{where}: {error.strerror.lower()}{hint}" if where else f"{error.strerror.lower()}{hint}", 2
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"unexpected {what}; this is a bug, RIYAZ_TRACEBACK=1 shows where", 1


def _folder_is_gone() -> bool:
    """Whether the working folder is not there any more, so that no relative path leads anywhere."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _usage(error: CycloptsError) -> str:
    """A usage error of cyclopts as one line that ends with the help command to run."""
    chain = " ".join(["riyaz", *(error.command_chain or ())])
    if isinstance(error, UnknownCommandError):
        name = (error.unused_tokens or [""])[0]
        verbs = NESTED.get(chain.rpartition(" ")[2]) or [verb for group in VERBS.values() for verb in group]
        near = difflib.get_close_matches(name, verbs, n=1)
        text = f"unknown command {name!r}" + (f"; did you mean {near[0]}?" if near else "")
    elif isinstance(error, UnusedCliTokensError):
        text = "unexpected " + listed([repr(token) for token in error.unused_tokens or ()])
        if chain in TABLES and any(map(os.path.exists, error.unused_tokens or ())):  # the shell expanded a pattern
            text += "; several files are one pattern in quotes, such as 'part-*.jsonl'"
    elif isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.keyword or error.argument.name
        has_value = error.keyword or error.argument.tokens
        text = f"{name} needs a value" if has_value else f"{name} is missing"
    else:
        text = " ".join(str(error).split())
        text = (text[:1].lower() + text[1:]).rstrip(".").replace(". Did you mean", "; did you mean")
        if itself := re.fullmatch(r"unknown option: (\S+); did you mean \1\?", text):
            text = f"{itself[1]} stands after --, where nothing is an option; write it before --"
    text = re.sub(rf"\S{{{SHOWN},}}", lambda word: f"{word[0][:SHOWN]}…", text)
    return f"{text}; see {chain} --help"


if __name__ == "__main__":
    sys.exit(main())
