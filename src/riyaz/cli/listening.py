"""What `riyaz serve` and `riyaz ui` share: a server that runs until it is told to end."""

import socket
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from riyaz.cli.output import Screen
from riyaz.config import ServeConfig
from riyaz.hardware import MB

if TYPE_CHECKING:
    from riyaz.serve.opening import Opener
    from riyaz.serve.page.place import Page


def serve_on(
    listening: socket.socket, screen: Screen, serving: ServeConfig, opener: "Opener", page: "Page | None",
    fill: Callable[[], Iterable[str]], started: Callable[[str], None],
) -> None:  # fmt: skip
    """Serve until a signal ends it. `fill` opens the models and gives notes; `started` is called with the address when
    they are open."""
    from riyaz.engine.opening import engine_note
    from riyaz.serve import server
    from riyaz.serve.state import State

    if page is not None:
        page.sweep()
    state = State(serving, opener.shelf, opener, loaded=False, page=page)

    def load() -> None:
        for note in filter(None, [engine_note(), *fill()]):
            screen.talk.print(f"note: {note}", soft_wrap=True)
        opener.serving(serving.piece, int(serving.keep_mb * MB))

    def ready() -> None:
        url, names = server.url_of(listening), ", ".join(served.name for served in opener.shelf)
        screen.talk.print(f"serving {names or 'no model'}; Ctrl-C ends", soft_wrap=True)
        if page is not None:
            screen.talk.print(f"the page: {page.link(url)}", soft_wrap=True)
        started(url)

    try:
        server.run(server.made(state), state, listening, ready, load)
    finally:
        listening.close()
    sys.stdout.flush()
