"""`riyaz models`: the models in the cache, and those that riyaz pull knows by name."""

from dataclasses import asdict

from riyaz.cli.options import Json
from riyaz.cli.output import Screen


def models(*, json: Json = False) -> None:
    """List the models in the cache."""
    from riyaz.sources import package, store

    screen = Screen(json)
    entries = store.models()
    rows = [(e.name, e.format, f"{e.nbytes / 1e6:,.0f}", e.licence, str(e.path)) for e in entries]
    if rows:
        screen.table(["name", "format", "MB", "licence", "path"], rows, numbers=["MB"], later=["path"])
    absent = [name for name in package.CATALOGUE if name not in {entry.name for entry in entries}]
    for name in absent:
        screen.talk.print(f"{name} is not in the cache; get it with riyaz pull {name}", style="dim", soft_wrap=True)
    screen.finish({"models": [asdict(entry) for entry in entries], "available": absent})
