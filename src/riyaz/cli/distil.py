"""`riyaz distil`: one arm, a LoRA that learns what a teacher answers, trained and measured as in a comparison."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.adapt import show
from riyaz.cli.model_names import LANGUAGE_MODEL
from riyaz.cli.options import (
    DISTILLING_DEFAULTS,
    READING_DEFAULTS,
    Distilling,
    Json,
    Quiet,
    Reading,
    command_began,
    command_line,
    resolve_options,
)
from riyaz.cli.output import Screen
from riyaz.errors import RiyazError
from riyaz.extras import load


def distil(
    teacher: Annotated[
        str,
        LANGUAGE_MODEL,
        Parameter(
            help="an artifact, COMPARISON/METHOD, a model, or the address of an endpoint in OpenAI's form such as "
            "http://localhost:8000/v1, whose key is in the environment variable RIYAZ_TEACHER_KEY"
        ),
    ],
    /,
    *,
    into: Annotated[str, LANGUAGE_MODEL, Parameter(help="the student: a base model by name, folder or GGUF file")],
    rows: Annotated[
        Path | None,
        Parameter(help="a file or folder of rows: training takes their prompts alone, answers are for the test"),
    ] = None,
    prompts: Annotated[
        Path | None,
        Parameter(help="a file of prompts without answers; the test is then how often the student agrees"),
    ] = None,
    distilling: Distilling = DISTILLING_DEFAULTS,
    reading: Reading = READING_DEFAULTS,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a LoRA on what a teacher answers: a model, an artifact or an endpoint."""
    load("compare")
    from riyaz.comparison import run
    from riyaz.comparison.prompts import answered_prompts
    from riyaz.methods import METHODS
    from riyaz.report.comparison import terminal

    method = next(name for name in METHODS if METHODS[name].needs_teacher)
    data = rows or prompts
    if data is None or (rows and prompts):
        what = "both say what the teacher answers" if data else "neither is there"
        raise RiyazError(what, "--rows and --prompts", "give one of them: rows with answers, or prompts without")
    data_config, config = resolve_options(data, reading, distilling, others={"teacher": teacher, "model": (into,)})
    screen = Screen(json, quiet)
    with terminal.listener(screen.talk) as listen:
        if prompts:
            data, data_config = answered_prompts(prompts, data_config, config, listen)
            screen.talk.print(f"the teacher's answers are in {data}", soft_wrap=True)
        config = replace(config, teacher=teacher)
        arm = run.adapt(method, data, data_config, config, command=command_line(), began=command_began(), listen=listen)
    show(arm, config, screen)
