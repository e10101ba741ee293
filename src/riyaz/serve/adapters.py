"""Adapters and artifacts that clients load and unload by name, from the one folder that the server was given."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from riyaz.errors import RiyazError
from riyaz.serve.fields import ADAPTERS, LOAD, UNLOAD
from riyaz.serve.http import read_body
from riyaz.serve.opening import load, unload
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served, expect_name, inside
from riyaz.serve.state import State, state_of

LOOK = 0.02  # seconds between two looks whether the last request that uses an adapter is done


async def add(request: Request) -> Response:
    """POST /v1/adapters: serve a folder of the server's folder of adapters, by default the one of the same name."""
    body, headers = await read_body(request, ADAPTERS)
    served = await loaded(state_of(request), body["name"], body.get("path", body["name"]), "name")
    return JSONResponse(served.entry(), 201, headers)


async def remove(request: Request) -> Response:
    """DELETE /v1/adapters/NAME: serve it no longer, as soon as the requests that use it are done."""
    name = request.path_params["name"]
    await unloaded(state_of(request), name, "name")
    return JSONResponse({"id": name, "object": "model", "deleted": True})


async def listed(request: Request) -> Response:
    """GET /v1/adapters: what clients have loaded."""
    data = [served.entry() for served in state_of(request).shelf if served.removable]
    return JSONResponse({"object": "list", "data": data})


async def load_lora(request: Request) -> Response:
    """POST /v1/load_lora_adapter, as vLLM has it."""
    body, headers = await read_body(request, LOAD)
    await loaded(state_of(request), body["lora_name"], body["lora_path"], "lora_name")
    return PlainTextResponse(f"Success: LoRA adapter '{body['lora_name']}' added successfully.", headers=headers)


async def unload_lora(request: Request) -> Response:
    """POST /v1/unload_lora_adapter, as vLLM has it."""
    body, headers = await read_body(request, UNLOAD)
    await unloaded(state_of(request), body["lora_name"], "lora_name")
    return PlainTextResponse(f"Success: LoRA adapter '{body['lora_name']}' removed successfully.", headers=headers)


async def loaded(state: State, name: str, path: str, param: str) -> Served:
    """A folder of the server's folder of adapters, served from now on. Raises Problem, as `serve_folder`."""
    folder = state.config.adapters
    if folder is None:
        raise Problem(403, "the server was started without a folder of adapters (--adapters)", param)
    return await serve_folder(state, name, lambda: adapter_folder(folder, path), param)


async def serve_folder(state: State, name: str, find: Callable[[], Path], param: str, further: bool = False) -> Served:
    """A folder that is served from now on. Its files are read and packed beside running answers; only the last step
    stands between two steps of the engine. `further`: it may need a model that is not open. Raises Problem, and serves
    nothing new, for one that does not fit."""
    async with state.loading:
        try:
            expect_name(name)
            served, enter = await state.open_files(lambda: state.opener.opened(name, find(), True, further))
            await state.engine.work(lambda: load(served, enter))
            state.shelf.put(served)
        except RiyazError as error:
            status = 409 if "already" in error.what else 400
            raise Problem(status, _without_path(str(error), state.config.adapters), param) from None
        except OSError as error:
            what = f"a file of the server cannot be read or written ({error.strerror})"
            raise Problem(503, what, param) from None
    return served


def _without_path(text: str, folder: Path | None) -> str:
    """A message to a client, who need not know where the server's folder of adapters lies."""
    for path in (folder, folder.resolve()) if folder is not None else ():
        text = text.replace(f"{path}/", "")
    return text


def adapter_folder(folder: Path, path: str) -> Path:
    """The folder that a client names: relative to the folder of adapters, or whole and inside it. Raises RiyazError."""
    whole = Path(path)
    if whole.is_absolute():
        if not whole.is_relative_to(folder.absolute()):
            raise RiyazError("the path is not in the server's folder of adapters")
        path = str(whole.relative_to(folder.absolute()))
    return inside(folder, path)


async def unloaded(state: State, name: str, param: str) -> None:
    """Take a name away at once, and its adapter out of the engine when no request uses it; others are loaded meanwhile.
    Raises Problem for a model that the command line serves."""
    async with state.loading:
        served = state.shelf.find(name, param)
        if not served.removable:
            raise Problem(403, f"{name} was not loaded by a client", param)
        state.shelf.take(name)
    until = time.monotonic() + state.config.request_timeout
    while state.users[served] and time.monotonic() < until:
        await asyncio.sleep(LOOK)
    async with state.loading:
        try:
            await state.engine.call(lambda: unload(served))
        except RiyazError as error:  # a request outlived its time
            state.shelf.put(served)
            raise Problem(409, str(error), param) from None
