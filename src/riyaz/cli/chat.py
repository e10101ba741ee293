"""`riyaz chat`: a conversation on the terminal, or one answer per line of piped input."""

import sys
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Target
from riyaz.cli.output import Screen

PROMPT = "> "


def chat(
    target: Target,
    /,
    *,
    max_tokens: Annotated[int, Parameter(help="longest answer, in tokens")] = 256,
) -> None:
    """Talk with a model or an artifact."""
    from riyaz.predictor import open_target

    screen = Screen()
    opened = open_target(target)
    asking = sys.stdin.isatty()
    if asking:
        screen.talk.print("an empty line starts anew, Ctrl-D ends", style="dim")
    messages: list[dict[str, str]] = []
    while (line := _line(asking)) is not None:
        if not line.strip():
            messages = []
            continue
        messages.append({"role": "user", "content": line})
        answer = opened.answer(messages, max_tokens)
        screen.data.print(answer, soft_wrap=True)
        messages.append({"role": "assistant", "content": answer})


def _line(asking: bool) -> str | None:
    """The next line without its end; None when the input is over."""
    if not asking:
        text = sys.stdin.readline()
        return text.rstrip("\n") if text else None
    try:
        return input(PROMPT)
    except EOFError:
        return None
