"""POST /page/inside: what a model computes between a text and its next token, a part of `riyaz inside --json` at a
time, so that the first picture is there before the others are computed.

Every part is made in the engine's thread, aside from running answers, of the last reading where it is still there.
"""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from riyaz.engine.parts import Steps
from riyaz.engine.request import Sampling
from riyaz.engine.runner import CacheFull
from riyaz.engine.sampling import likeliest
from riyaz.inside import Inside, document, read, text_tokens, vectors
from riyaz.inside.attention import weights
from riyaz.inside.beside import differing, weight_changes
from riyaz.inside.codes import codes_of
from riyaz.inside.reading import windows
from riyaz.predictor import PromptedModel
from riyaz.serve import asking
from riyaz.serve.fields import MODEL, Field, text, whole
from riyaz.serve.http import dumped, read_body, unless_gone
from riyaz.serve.page.readings import AGAIN
from riyaz.serve.page.word import sums_of
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.serve.state import State, state_of

LONGEST = 256  # tokens; of a longer text the last ones
CANDIDATES = 200  # tokens whose probabilities the screen's sliders move
SIDE = 64  # rows and columns of a head's small picture, at most
PARTS = ["layers", "attention", "heads", "near", "product", "before", "weights", "codes"]
BODY = {
    "model": MODEL, "text": Field(text(None, 1), required=True), "at": Field(whole(-LONGEST)),
    "part": Field({"type": "string", "enum": PARTS}),
    "before": Field(text(96, 1)), "layer": Field(whole(0)), "head": Field(whole(0)),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a request is about: a part of the document, for tokens (T,) of a model, and the token looked at."""

    model: PromptedModel
    before: tuple[str, PromptedModel] | None  # another model, with its name
    ids: tuple[int, ...]
    left_out: int  # tokens of the text before these
    part: str
    at: int  # among `ids`
    layer: int
    head: int | None
    target: str  # the file or folder of the model


async def inside(request: Request) -> Response:
    """One part of the document, for a text that is taken as it is, without chat template or examples."""
    body, headers = await read_body(request, BODY)
    return await unless_gone(request.receive, _answer(state_of(request), body, headers))


async def _answer(state: State, body: dict[str, Any], headers: dict[str, str]) -> Response:
    served, before = state.shelf.find(body["model"]), None
    if body.get("part") in ("before", "weights"):
        if not body.get("before"):
            raise Problem(400, "before: is missing", "before", "missing_required_parameter")
        before = state.shelf.find(body["before"], "before")
    with state.readings.place(), state.place(1, served), state.place(int(before is not None), before or served):
        wanted = await state.prepare(lambda: _wanted(served, before, body))
        state.metrics.prompt_tokens += len(wanted.ids)
        near = wanted.part in ("attention", "heads", "near")  # these are alike for every token looked at
        kept = state.readings.last(served, wanted.ids, None if near else wanted.at)
        try:
            made, last = await state.engine.work(lambda: _made(wanted, kept), aside=True)
        except CacheFull:
            message = "the keys and values of running answers fill the memory"
            raise Problem(429, message, headers={"Retry-After": str(AGAIN)}) from None
        if last is not None:
            state.readings.keep(served, last)
    content = await asyncio.to_thread(dumped, made)
    return Response(content, headers=headers, media_type="application/json")


def _language_model(served: Served, param: str) -> PromptedModel:
    """The language model that answers. Raises Problem where none does."""
    predictor = served.predictor
    if not predictor.has_model:
        raise Problem(400, f"{served.name} has no language model, so nothing to look into", param)
    return predictor


def _wanted(served: Served, before: Served | None, body: dict[str, Any]) -> Wanted:
    """What a request is about. Raises Problem for a text without tokens, and for a token, layer or head that is not
    there."""
    asking.expect_short(body["text"], "text")
    model = _language_model(served, "model")
    other = None if before is None else (before.name, _language_model(before, "before"))
    every = text_tokens(model, body["text"], "text")
    if not every:
        raise Problem(400, "text: is empty", "text")
    if other is not None and text_tokens(other[1], body["text"], "text") != every:
        raise Problem(400, f"{other[0]} reads the text as other tokens than {served.name}", "before")
    soft = model.lm.runner.adapter_tokens(model.adapter)
    ids = tuple(every[-min(LONGEST, model.lm.context - soft) :])
    at = body.get("at", -1)
    own = at + len(ids) if at < 0 else at - soft
    if not 0 <= own < len(ids):
        raise Problem(400, f"at: there is no token {at} to look at", "at")
    family = model.lm.runner.family
    assert family is not None, "a model from files"
    config = family.config
    layer, head = body.get("layer", config.n_layers - 1), body.get("head")
    if layer >= config.n_layers:
        raise Problem(400, f"layer: there are {config.n_layers} layers, counted from 0", "layer")
    if head is not None and head >= config.n_heads:
        raise Problem(400, f"head: there are {config.n_heads} heads, counted from 0", "head")
    return Wanted(model, other, ids, len(every) - len(ids), body.get("part") or "layers", own, layer, head,
                  served.root)  # fmt: skip


def _made(wanted: Wanted, kept: Inside | None) -> Steps[tuple[dict[str, Any], Inside | None]]:
    """A part of the document, and the reading that it was made of, None where it needed none."""
    if wanted.part == "near":
        made = yield from _near(wanted)
        return made, kept
    if wanted.part in ("weights", "codes"):
        made = yield from _weights(wanted) if wanted.part == "weights" else _codes(wanted)
        return made, kept
    last = kept or read(wanted.model, wanted.ids, wanted.at, "text")
    yield
    makers: dict[str, Callable[[], Steps[dict[str, Any]]]] = {
        "layers": lambda: _layers(wanted, last), "attention": lambda: _attention(wanted, last),
        "heads": lambda: _heads(wanted, last), "product": lambda: _product(wanted, last),
        "before": lambda: _before(wanted, last),
    }  # fmt: skip
    made = yield from makers[wanted.part]()
    return made, last


def _layers(wanted: Wanted, last: Inside) -> Steps[dict[str, Any]]:
    """Tokens, layers and the next word, with what the sliders of its distribution need."""
    yield
    made = document.beginning(wanted.model, last)
    yield
    values = np.maximum(last.log_p[-1].astype(np.float64), -1e4)
    tokens, log_p = likeliest(last.log_p[-1], CANDIDATES)
    return {
        **made,
        "left_out": wanted.left_out,
        "soft": last.soft,
        "next": document.following(wanted.model, last, Sampling(temperature=1.0)),
        "candidates": [
            document.named(wanted.model, token, logprob=max(value, -1e4))
            for token, value in zip(tokens.tolist(), log_p.tolist())
        ],
        "sums": sums_of(values),
    }


def _attention(wanted: Wanted, last: Inside) -> Steps[dict[str, Any]]:
    """One head's weights, what the token looks at by every head of the layer, and a small picture of each."""
    of_layer = weights(last.trace, wanted.layer, windows(last.family)[wanted.layer])  # (H, T, T)
    yield
    made = document.attention(of_layer, wanted.layer, wanted.head)
    yield
    place = wanted.at + last.soft
    pictures = [base64.b64encode(_small(each).tobytes()).decode() for each in of_layer]
    return {
        "attention": made,
        "looks": document.rounded(of_layer[:, place, : place + 1]),
        "pictures": {"side": min(SIDE, len(last.ids)), "heads": pictures},
    }


def _small(seen: np.ndarray) -> np.ndarray:
    """Weights (T, T) as bytes, of 0 to 255; above SIDE tokens the largest of each field of a coarser grid."""
    T = len(seen)
    if T > SIDE:
        starts = np.arange(SIDE) * T // SIDE
        seen = np.maximum.reduceat(np.maximum.reduceat(seen, starts, 0), starts, 1)
    return np.rint(seen * 255).astype(np.uint8)


def _heads(wanted: Wanted, last: Inside) -> Steps[dict[str, Any]]:
    patterns = yield from document.naming_heads(wanted.model, last)
    return {"heads": document.heads(patterns)}


def _near(wanted: Wanted) -> Steps[dict[str, Any]]:
    """The nearest tokens of every token of the text."""
    family = wanted.model.lm.runner.family
    assert family is not None, "a model from files"
    near = yield from vectors.approaching(family, wanted.ids, document.NEAR)
    return {"near": [document.named_near(wanted.model, near[token]) for token in wanted.ids]}


def _product(wanted: Wanted, last: Inside) -> Steps[dict[str, Any]]:
    """One product by hand. No speed: generating beside other answers would measure those too."""
    yield
    return {"product": document.by_hand(wanted.model, last, None)}


def _before(wanted: Wanted, last: Inside) -> Steps[dict[str, Any]]:
    """What differs from another model on the same tokens."""
    assert wanted.before is not None, "the part needs it"
    name, earlier = wanted.before
    other = read(earlier, wanted.ids, wanted.at, "before")
    yield
    between = yield from differing(earlier, wanted.model, other, last)
    return {"before": {"target": name, **document.changes(between)}}


def _weights(wanted: Wanted) -> Steps[dict[str, Any]]:
    """What adapting changed in the weights, one matrix at a time."""
    assert wanted.before is not None, "the part needs it"
    linears = []
    for changed in weight_changes(wanted.before[1], wanted.model, wanted.target):
        linears.append(changed)
        yield
    return {"weights": document.weight_changes(wanted.model, linears)}


def _codes(wanted: Wanted) -> Steps[dict[str, Any]]:
    """How often each code of the weights occurs, one matrix at a time."""
    family = wanted.model.lm.runner.family
    assert family is not None, "a model from files"
    counted = []
    for each in codes_of(family):
        counted.append(asdict(each))
        yield
    return {"codes": counted}
