"""`riyaz generate`: one prompt, one answer."""

from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json, Target
from riyaz.cli.output import Screen


def generate(
    target: Target,
    prompt: Annotated[str, Parameter(help="the text to answer; - reads it from stdin")],
    /,
    *,
    max_tokens: Annotated[int, Parameter(help="longest answer, in tokens")] = 128,
    json: Json = False,
) -> None:
    """Answer one prompt."""
    import sys

    from riyaz.predictor import open_target

    screen = Screen(json)
    text = sys.stdin.read() if prompt == "-" else prompt
    answer = open_target(target).answer([{"role": "user", "content": text}], max_tokens)
    screen.data.print(answer, soft_wrap=True)
    screen.finish({"target": target, "prompt": text, "answer": answer})
