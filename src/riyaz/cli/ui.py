"""`riyaz ui`: the page of a folder, opened in the browser."""

import os
import sys
import tempfile
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from riyaz import folders
from riyaz.cli.listening import serve_on
from riyaz.cli.model_names import LANGUAGE_MODEL
from riyaz.cli.options import Served, command_line
from riyaz.cli.output import Screen
from riyaz.config import DEFAULT_MODEL, ServeConfig
from riyaz.errors import RiyazError

if TYPE_CHECKING:
    import socket

    from riyaz.serve.opening import Opener

DEFAULTS = ServeConfig()
PRIVATE = "riyaz-ui-"  # begins the names of folders that hold the page's link


def ui(
    folder: Annotated[
        Path, Parameter(help="the folder whose data and runs the page shows, and where it writes")
    ] = Path("."),
    /,
    *,
    model: Annotated[
        tuple[str, ...],
        LANGUAGE_MODEL,
        Parameter(
            help="a model, an artifact or a comparison; repeatable; smollm2-135m if pulled, else two tiny samples"
        ),
    ] = (),
    port: Annotated[int | None, Parameter(help="port; if not given 8000, or a free one where 8000 is in use")] = None,
    no_browser: Annotated[bool, Parameter(help="only print the link")] = False,
    models: Annotated[int, Parameter(help="most models in memory")] = 4,
    precision: Served = "auto",
) -> None:
    """Open the page: chat, next words, data, runs and comparisons of a folder."""
    from riyaz.methods import abouts, from_votes
    from riyaz.serve.opening import Opener
    from riyaz.serve.page.place import Page

    if not folder.is_dir():
        raise RiyazError("is not a folder", str(folder), "give the folder of your data and runs")
    serving = ServeConfig(port=DEFAULTS.port if port is None else port, models=models)
    listening = _bound(serving, port is None)
    page, opener = Page.of(folder, command_line(), abouts(), from_votes()), Opener(precision, most=models)

    with folders.temporary(Path(tempfile.gettempdir()), PRIVATE) as private:

        def started(url: str) -> None:
            print(page.link(url), flush=True)
            if not no_browser:
                open_browser(page.link(url), private)

        serve_on(listening, Screen(), serving, opener, page, lambda: _filled(opener, model, folder), started)


def _bound(serving: ServeConfig, any_port: bool) -> "socket.socket":
    """The socket to listen on; with `any_port` on a free port where the usual one is in use. Raises RiyazError."""
    from riyaz.serve import server

    try:
        return server.bound(serving)
    except RiyazError:
        if not any_port:
            raise
        return server.bound(replace(serving, port=0))


def _filled(opener: "Opener", targets: tuple[str, ...], folder: Path) -> list[str]:
    """Open the models that were named, else the folder where it is one, else the default one, else the tiny ones that
    come with riyaz; notes about what is left out."""
    from riyaz import adapters, artifact
    from riyaz.results import COMPARE
    from riyaz.serve.page.samples import MODELS

    notes = []
    for target in targets:
        notes += opener.serve(target)
    if targets:
        return notes
    known = (COMPARE, artifact.NAME, adapters.CONFIG, "config.json")
    target = str(folder) if any((folder / name).is_file() for name in known) else DEFAULT_MODEL
    try:
        return opener.serve(target)
    except RiyazError as error:
        for sample in MODELS[: opener.most]:
            opener.serve(sample)
        return [f"two tiny sample models answer, as there is no other: {error}"]


def open_browser(link: str, private: Path) -> bool:
    """Show the link in the browser, where there is a screen; whether one was found. The browser is given a file that
    only this user can read and that leads on: other users see the command lines of processes, and so the token."""
    has_screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not has_screen:
        return False
    page = private / "page.html"
    page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={link}">', encoding="utf-8")
    try:
        return webbrowser.open(page.as_uri())
    except (webbrowser.Error, OSError):
        return False
