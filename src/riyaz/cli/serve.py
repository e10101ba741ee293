"""`riyaz serve`: models, adapters and artifacts behind OpenAI's HTTP interface."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Held, Served
from riyaz.cli.output import Screen
from riyaz.config import ServeConfig
from riyaz.errors import RiyazError, install
from riyaz.hardware import MB

Serving = Annotated[ServeConfig, Parameter(name="*")]
SERVING_DEFAULTS = ServeConfig()
PACKAGES = ("starlette", "uvicorn")


def serve(
    target: Annotated[
        str | None, Parameter(help="a model (name, folder or GGUF file), an artifact or a comparison")
    ] = None,
    /,
    *,
    adapter: Annotated[
        tuple[str, ...], Parameter(help="an adapter or artifact as NAME=FOLDER, served beside the model; several times")
    ] = (),
    run: Annotated[
        Path | None, Parameter(help="a comparison: its pick is served under its name, its other arms as NAME/ARM")
    ] = None,
    precision: Served = "auto",
    kv: Held = "auto",
    serving: Serving = SERVING_DEFAULTS,
) -> None:
    """Serve models, adapters and artifacts to OpenAI's clients over HTTP."""
    if not all(map(find_spec, PACKAGES)):
        raise RiyazError("starlette and uvicorn are not installed", hint=install("serve"))
    from riyaz.engine.opening import engine_note
    from riyaz.serve import server
    from riyaz.serve.opening import Opener
    from riyaz.serve.state import State

    screen = Screen()
    if target is None and run is None:
        raise RiyazError("names nothing to serve", "riyaz serve", "give a model, an artifact, or --run FOLDER")
    listening = server.bound(serving)
    try:
        opener = Opener(precision, kv, serving.models)
        state = State(serving, opener.shelf, opener, loaded=False)

        def load() -> None:
            notes = [engine_note(), *(opener.serve(target) if target else ())]
            notes += opener.serve_comparison(run) if run else []
            for name, folder in map(named, adapter):
                opener.put(name, folder)
            for note in filter(None, notes):
                screen.talk.print(f"note: {note}", soft_wrap=True)
            for base in opener.bases:
                base.lm.read_in_pieces(serving.piece, int(serving.keep_mb * MB))

        def started() -> None:
            names = ", ".join(served.name for served in opener.shelf)
            screen.talk.print(f"serving {names}; Ctrl-C ends", soft_wrap=True)
            print(f"{server.url_of(listening)}/v1", flush=True)

        server.run(server.made(state), state, listening, started, load)
    finally:
        listening.close()
    sys.stdout.flush()


def named(text: str) -> tuple[str, Path]:
    """NAME=FOLDER as its two parts. Raises RiyazError."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise RiyazError(f"{text!r} is not NAME=FOLDER", "--adapter", "such as --adapter billing=workshop/lora")
    return name, Path(folder)
