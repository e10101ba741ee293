"""`riyaz serve`: models, adapters and artifacts behind OpenAI's HTTP interface."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.listening import serve_on
from riyaz.cli.model_names import LANGUAGE_MODEL
from riyaz.cli.options import Held, LookedUp, Served, command_line
from riyaz.cli.output import Screen
from riyaz.config import ServeConfig
from riyaz.errors import RiyazError

Serving = Annotated[ServeConfig, Parameter(name="*")]
SERVING_DEFAULTS = ServeConfig()


def serve(
    target: Annotated[
        str | None, LANGUAGE_MODEL, Parameter(help="a model (name, folder or GGUF file), an artifact or a comparison")
    ] = None,
    /,
    *,
    adapter: Annotated[
        tuple[str, ...], Parameter(help="an adapter or artifact to serve beside the model, as NAME=FOLDER; repeatable")
    ] = (),
    run: Annotated[
        Path | None, Parameter(help="a comparison, served as NAME (the pick) and NAME/METHOD (the other arms)")
    ] = None,
    precision: Served = "auto",
    kv: Held = "auto",
    lookup: LookedUp = None,
    serving: Serving = SERVING_DEFAULTS,
) -> None:
    """Serve models, adapters and artifacts to OpenAI's clients over HTTP."""
    from riyaz.methods import abouts, from_votes
    from riyaz.serve import server
    from riyaz.serve.opening import Opener
    from riyaz.serve.page.place import Page

    if target is None and run is None:
        raise RiyazError("names nothing to serve", "riyaz serve", "give a model, an artifact, or --run FOLDER")
    listening = server.bound(serving)
    opener = Opener(precision, kv, serving.models, lookup=lookup)
    page = None if serving.no_page else Page.of(Path.cwd(), command_line(), abouts(), from_votes())

    def fill() -> list[str]:
        notes = opener.serve(target) if target else []
        notes += opener.serve_comparison(run) if run else []
        for name, folder in map(named, adapter):
            opener.put(name, folder)
        return notes

    def started(url: str) -> None:
        print(f"{url}/v1", flush=True)

    serve_on(listening, Screen(), serving, opener, page, fill, started)


def named(text: str) -> tuple[str, Path]:
    """NAME=FOLDER as its two parts. Raises RiyazError."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise RiyazError(f"{text!r} is not NAME=FOLDER", "--adapter", "such as --adapter billing=workshop/lora")
    return name, Path(folder)
