"""`riyaz pretrain`: trains a new model from random weights on text."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import PRETRAINING_DEFAULTS, Json, Pretraining, Quiet, command_line
from riyaz.cli.output import Screen
from riyaz.extras import require
from riyaz.ranks import launched


def pretrain(
    *text: Annotated[Path, Parameter(help="texts: .txt, .md, .jsonl with a text column, each also .gz, or folders")],
    out: Annotated[Path, Parameter(help="folder to write the model, its metrics and its report to")],
    pretraining: Pretraining = PRETRAINING_DEFAULTS,
    resume: Annotated[bool, Parameter(help="continue the stopped run in --out")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a new model from random weights on your text."""
    require("train")
    from riyaz.pretraining.run import pretrain as train
    from riyaz.report.comparison import terminal
    from riyaz.report.pretraining import html as run_page
    from riyaz.report.pretraining import terminal as run_terminal
    from riyaz.report.pretraining import words as run_words

    screen = Screen(json, quiet)
    with terminal.listener(screen.talk) as listen:
        document = train(text, pretraining, out, resume=resume, command=command_line(), listen=listen)
    if launched()[0]:  # the first process shows the run
        return
    page = run_page.write(out)
    run_terminal.print_run(*run_words.read_run(out), screen.data)
    screen.talk.print(f"\nthe model is in {out}, its report is {page}; try it: riyaz chat {out}", soft_wrap=True)
    screen.finish(document)
