"""`riyaz pretrain`: from nothing to a model, with one dial."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from riyaz.cli.options import Json, require_torch
from riyaz.cli.output import Screen

Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]


def pretrain(
    *text: Annotated[Path, Parameter(help="texts: .txt, .md, .jsonl with a text column, each also .gz, or folders")],
    out: Annotated[Path, Parameter(help="folder for the model and what is known of its training")],
    tokenizer: Annotated[
        str | None,
        Parameter(help="a tokenizer's folder, bytes or chars; pieces of words learned from the text if not given"),
    ] = None,
    size: Annotated[
        Literal["1m", "5m", "15m", "50m"] | None, Parameter(help="parameters, about; the budget decides if not given")
    ] = None,
    budget: Annotated[
        str | None,
        Parameter(help="wall time of the whole command, such as 15m, which it is if no size is given either"),
    ] = None,
    family: Annotated[Literal["llama", "gpt2"] | None, Parameter(help="shape of the model; llama if not given")] = None,
    context: Annotated[Count, Parameter(help="tokens that the model sees at once")] = None,
    layers: Annotated[Count, Parameter(help="layers of the model")] = None,
    heads: Annotated[Count, Parameter(help="attention heads of a layer")] = None,
    width: Annotated[Count, Parameter(help="numbers that stand for a token inside the model")] = None,
    batch: Annotated[Count, Parameter(help="windows of a step")] = None,
    steps: Annotated[Count, Parameter(help="steps of training")] = None,
    lr: Annotated[
        float | None, Parameter(help="highest learning rate", validator=validators.Number(gt=0, lte=1))
    ] = None,
    dropout: Annotated[
        float | None,
        Parameter(help="share of numbers left out while training", validator=validators.Number(gte=0, lt=1)),
    ] = None,
    compute: Annotated[
        Literal["bfloat16", "float32"] | None, Parameter(help="type of the matrix products; the quicker if not given")
    ] = None,
    validate_every: Annotated[Count, Parameter(help="steps between two validations, each with samples")] = None,
    checkpoint_every: Annotated[
        Count, Parameter(help="steps between two checkpoints, from which --resume goes on")
    ] = None,
    seed: Annotated[
        int | None,
        Parameter(
            help="seed of the weights and of the order; 0 if not given", validator=validators.Number(gte=0, lt=2**31)
        ),
    ] = None,
    resume: Annotated[bool, Parameter(help="go on with the run in --out that was stopped")] = False,
    json: Json = False,
) -> None:
    """Train a new model from random weights on your text."""
    require_torch()
    from riyaz.config import Seconds, parse_budget
    from riyaz.pretraining.plan import Asked
    from riyaz.pretraining.run import pretrain as train
    from riyaz.report import learning, learning_terminal, learning_words, terminal

    asked = Asked(
        tokenizer=tokenizer, size=size,
        budget=None if budget is None else Seconds(parse_budget(budget, "--budget")),
        family=family, context=context, layers=layers, heads=heads, width=width, batch=batch, steps=steps, lr=lr,
        dropout=dropout, compute=compute, validate_every=validate_every, checkpoint_every=checkpoint_every, seed=seed,
    )  # fmt: skip
    screen = Screen(json)
    command = shlex.join(["riyaz", *sys.argv[1:]])
    with terminal.listener(screen.talk) as listen:
        document = train(text, asked, out, resume=resume, command=command, listen=listen)
    page = learning.write(out)
    learning_terminal.print_learning(*learning_words.read(out), screen.data)
    screen.talk.print(f"\nthe model is in {out}, what it learned in {page}; riyaz chat {out}", soft_wrap=True)
    screen.finish(document)
