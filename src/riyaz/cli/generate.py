"""`riyaz generate`: prints the answer to one prompt."""

import sys
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json, Target
from riyaz.cli.output import Screen
from riyaz.cli.stream import MaxTokens, cite, say
from riyaz.errors import RiyazError


def generate(
    target: Target,
    prompt: Annotated[str, Parameter(help="the prompt; - reads it from stdin", allow_leading_hyphen=True)],
    /,
    *,
    max_tokens: MaxTokens = None,
    json: Json = False,
) -> None:
    """Answer one prompt."""
    from riyaz.predictor import open_target

    screen = Screen(json)
    text = sys.stdin.read() if prompt == "-" else prompt
    if prompt == "-" and not text.strip():
        raise RiyazError("stdin holds no prompt", hint="give it as an argument or pipe it in")
    stream = open_target(target).stream([{"role": "user", "content": text}], max_tokens=max_tokens)
    answer = say(screen, stream)
    cite(screen, stream.citations)
    screen.finish({"target": target, "prompt": text, "answer": answer, "citations": stream.citations})
