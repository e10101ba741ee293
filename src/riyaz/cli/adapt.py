"""`riyaz adapt`: one method, trained and measured as in a comparison."""

from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import (
    ADAPTING_DEFAULTS,
    READING_DEFAULTS,
    Adapting,
    Data,
    Json,
    Reading,
    command_line,
    settle,
)
from riyaz.cli.output import Screen


def adapt(
    method: Annotated[str, Parameter(help="nearest, zero_shot, few_shot, rag, prompt_tuning, lora, full or rag_lora")],
    data: Data,
    /,
    *,
    adapting: Adapting = ADAPTING_DEFAULTS,
    reading: Reading = READING_DEFAULTS,
    json: Json = False,
) -> None:
    """Run one method and keep its artifact."""
    from riyaz.comparison import run
    from riyaz.library.options import require_torch
    from riyaz.report import terminal
    from riyaz.report.words import made

    require_torch()
    data_config, config = settle(data, reading, adapting)
    screen = Screen(json)
    with terminal.listener(screen.talk) as listen:
        arm = run.adapt(method, data, data_config, config, command=command_line(), listen=listen)
    terminal.print_arm(arm, screen.data)
    out = config.out
    screen.talk.print(f"\n{made(arm, str(out))}", soft_wrap=True)
    screen.talk.print(f"use it: riyaz chat {out}, or riyaz run {out} QUESTIONS --out ANSWERS.jsonl", soft_wrap=True)
    screen.finish(arm)
