"""`riyaz chat`: a conversation on the terminal, or one answer per line of piped input."""

import sys

from riyaz.cli.options import Target
from riyaz.cli.output import Screen
from riyaz.cli.stream import MaxTokens, cite, say
from riyaz.errors import RiyazError
from riyaz.report.markup import printable_line

PROMPT = "> "


def chat(
    target: Target,
    /,
    *,
    max_tokens: MaxTokens = None,
) -> None:
    """Talk with a model or an artifact."""
    from riyaz.predictor import open_target

    screen = Screen()
    predictor = open_target(target)
    asking = sys.stdin.isatty()
    if asking:
        screen.talk.print("an empty line starts a new conversation, Ctrl-D ends", style="dim")
    messages: list[dict[str, str]] = []
    while (line := _line(asking)) is not None:
        if not line.strip():
            messages = []
            continue
        question = {"role": "user", "content": line}
        try:
            stream = predictor.stream([*messages, question], max_tokens=max_tokens)
            answer = say(screen, stream)
            cite(screen, stream.citations)
        except RiyazError as error:
            if not asking:
                raise
            screen.talk.print(printable_line(f"error: {error}"), soft_wrap=True)
            continue
        messages += [question, {"role": "assistant", "content": answer}]


def _line(asking: bool) -> str | None:
    """The next input line without its line end; None at the end of the input."""
    if asking:
        try:
            return input(PROMPT)
        except EOFError:
            return None
    text = sys.stdin.readline()
    return text.rstrip("\n") if text else None
