"""`riyaz export`: writes a model or an artifact in the format of another tool."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from riyaz.cli.model_names import LANGUAGE_MODEL
from riyaz.cli.options import Json, Quiet, Target
from riyaz.cli.output import Screen


def export(
    target: Target,
    /,
    *,
    format: Annotated[
        Literal["hf", "gguf", "peft", "gguf-lora", "mlx", "numpy"],
        Parameter(
            help="a whole model for transformers or llama.cpp, an adapter for PEFT, llama.cpp or mlx-lm, or a script of"
            " numpy for a logistic regression"
        ),
    ],
    out: Annotated[Path, Parameter(help="folder to write")],
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16", "q8_0", "q4_k_m", "q4_0", "tq2_0", "tq1_0"] | None,
        Parameter(
            help="number type of a whole model's weights; default: the model's own; tq2_0, tq1_0: for a ternary model"
        ),
    ] = None,
    model: Annotated[
        str | None, LANGUAGE_MODEL, Parameter(help="the adapter's base, if it is not where the adapter says")
    ] = None,
    with_base: Annotated[
        bool | None,
        Parameter(
            negative="--without-base",
            help="put the base model beside an adapter, or leave it out; default: where the other tool cannot get it by"
            " name",
        ),
    ] = None,
    use: Annotated[
        str | None,
        Parameter(help="the intended use, in your words, for the model card of an artifact (hf, peft, numpy)"),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a model or an artifact in a format that other tools load."""
    from dataclasses import asdict

    from riyaz import artifact
    from riyaz import export as library
    from riyaz.card import card
    from riyaz.report.comparison.terminal import listener

    screen = Screen(json, quiet)
    of_artifact = (artifact.resolve(target) / artifact.NAME).is_file()
    text = card(target, use) if of_artifact and format in ("hf", "peft", "numpy") else None
    with listener(screen.talk) as listen:
        written = library.export(target, format, out, dtype, model, with_base, listen, text)
    for note in written.notes:
        screen.talk.print(f"note: {note}", soft_wrap=True)
    screen.data.print(written.line(), soft_wrap=True)
    screen.finish(asdict(written))
