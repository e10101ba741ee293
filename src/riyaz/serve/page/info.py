"""GET /page/info: what is served, from which folder, and what this machine has free."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz import __version__, artifact, hardware
from riyaz.artifact import Artifact
from riyaz.config import DEFAULT_MODEL
from riyaz.errors import RiyazError
from riyaz.json_files import to_document
from riyaz.serve.http import MB
from riyaz.serve.page.samples import is_sample
from riyaz.serve.shelf import Served
from riyaz.serve.state import page_of, state_of


async def info(request: Request) -> Response:
    """Everything that the page's head and its pickers show; models are listed once they are loaded."""
    state, page = state_of(request), page_of(request)
    served = list(state.shelf) if state.loaded else []
    return JSONResponse({
        "version": __version__, "folder": page.folder.name or "/", "command": page.command, "loaded": state.loaded,
        "models": await state.prepare(lambda: [entry_of(each) for each in served]),
        "default_model": DEFAULT_MODEL, "methods": to_document(page.methods),
        "limits": {
            "upload_bytes": int(state.config.max_upload_mb * MB), "body_bytes": int(state.config.max_body_mb * MB),
        },
        "resources": {
            "memory_free": hardware.memory().available or None, "disk_free": hardware.disk_free(page.folder),
            "threads": hardware.threads(),
        },
    })  # fmt: skip


def entry_of(served: Served) -> dict[str, Any]:
    """A model as the pickers show it: its base, how it answers, the method of an artifact, its context in tokens."""
    entry = served.entry()
    return {
        "id": served.name, "base": served.parent, "kind": entry["meta"]["answers"], "method": _method(served),
        "context": served.predictor.context, "trained_length": entry["meta"].get("n_ctx_train"),
        "served_as": entry["meta"].get("served_as"), "removable": served.removable,
        "sample": is_sample(served),
    }  # fmt: skip


def _method(served: Served) -> str | None:
    """The method that an artifact was made by; None for a plain model, and for files that are not there any more."""
    try:
        folder = artifact.resolve(served.root)
        return Artifact.read(folder).method if (folder / artifact.NAME).is_file() else None
    except (RiyazError, OSError):
        return None
