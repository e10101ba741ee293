"""`riyaz generate`: one prompt, one answer."""

import sys
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json, Target
from riyaz.cli.output import Screen
from riyaz.cli.stream import MaxTokens, cite, opened, pieces, say


def generate(
    target: Target,
    prompt: Annotated[str, Parameter(help="the text; - reads it from stdin", allow_leading_hyphen=True)],
    /,
    *,
    max_tokens: MaxTokens = None,
    json: Json = False,
) -> None:
    """Answer one prompt."""
    screen = Screen(json)
    text = sys.stdin.read() if prompt == "-" else prompt
    predictor = opened(target, max_tokens)
    messages = [{"role": "user", "content": text}]
    answer = say(screen, pieces(predictor, messages))
    citations = cite(screen, predictor, messages)
    screen.finish({"target": target, "prompt": text, "answer": answer, "citations": citations})
