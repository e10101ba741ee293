"""`riyaz generate`: prints the answer to one prompt."""

import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.opened import looked_up, opened, tell_lookup
from riyaz.cli.options import Held, Json, LookedUp, Quiet, Schema, Served, Target
from riyaz.cli.output import Screen
from riyaz.cli.sampling import DRAWING_DEFAULTS, Drawing, System, decide
from riyaz.cli.stream import MaxTokens, after, figures, print_stream
from riyaz.errors import RiyazError


def generate(
    target: Target,
    prompt: Annotated[str, Parameter(help="the prompt; - reads it from stdin", allow_leading_hyphen=True)],
    /,
    *,
    system: System = None,
    max_tokens: MaxTokens = None,
    schema: Schema = None,
    precision: Served = "auto",
    kv: Held = "auto",
    lookup: LookedUp = None,
    drawing: Drawing = DRAWING_DEFAULTS,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Answer one prompt."""
    screen = Screen(json, quiet)
    try:
        text = sys.stdin.read() if prompt == "-" else prompt
        if prompt == "-" and not text.strip():
            raise RiyazError("stdin holds no prompt", hint="give it as an argument or pipe it in")
        predictor = opened(screen, target, precision=precision, kv=kv, schema=schema, lookup=lookup)
        sampling, how = decide(drawing, predictor, system)
        if how:
            screen.talk.print(how, style="dim", soft_wrap=True)
        messages = [{"role": "system", "content": system}] if system else []
        stream = predictor.stream(
            [*messages, {"role": "user", "content": text}], max_tokens=max_tokens, sampling=sampling
        )
        answer = print_stream(screen, stream)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped") from None
    after(screen, stream)
    tell_lookup(screen, predictor)
    screen.finish(
        {
            "target": target, "prompt": text, "answer": answer, "citations": stream.citations, "cut": stream.cut,
            "sampling": asdict(sampling) if how else None, "lookup": looked_up(predictor), **figures(stream),
        }
    )  # fmt: skip
