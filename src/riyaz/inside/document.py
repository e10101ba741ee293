"""The JSON document of `riyaz inside`: a reading with the texts of its tokens and what is said of its heads."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from riyaz.engine.parts import Steps, finished
from riyaz.engine.request import Sampling
from riyaz.engine.runner import TokenRun
from riyaz.engine.sampling import kept, likeliest
from riyaz.families import Family, ModelConfig
from riyaz.inside import product, vectors
from riyaz.inside.attention import FIRST_COUNTED, Pattern, naming, repeated, weights
from riyaz.inside.beside import Changed, Difference, touched
from riyaz.inside.codes import codes_of
from riyaz.inside.reading import Inside, windows
from riyaz.predictor import PromptedModel

VERSION = 1
STRIP, NEAR = 48, 5  # numbers shown of a token's vector; nearest tokens
DIGITS = 6  # of numbers in the document
PLAIN = 1e-16, 1e5  # sizes of numbers that are rounded together


def heads_of(model: PromptedModel, inside: Inside) -> list[Pattern]:
    """What every head looks at, from this text and from random tokens that come twice; none for a text of fewer than
    three tokens, and in a context that does not hold the others."""
    return finished(naming_heads(model, inside))


def naming_heads(model: PromptedModel, inside: Inside) -> Steps[list[Pattern]]:
    """`heads_of` in parts."""
    runner = model.lm.runner
    twofold = repeated(runner.vocab_size)
    if len(inside.ids) <= FIRST_COUNTED or len(twofold) > model.context:
        return []
    sequence = runner.open(model.adapter)
    try:
        _, twice = runner.traced(TokenRun(sequence, twofold, None))
    finally:
        runner.close(sequence)
    yield
    named = yield from naming(inside.trace, twice, windows(inside.family))
    return named


def document(model: PromptedModel, inside: Inside, layer: int, head: int | None, sampling: Sampling) -> dict[str, Any]:
    """All that is shown of a reading: `layer` and `head` are those whose attention is given in full, all heads' mean
    where `head` is None."""
    near = vectors.nearest(inside.family, [token for token in inside.ids if token >= 0], NEAR)
    first = beginning(model, inside)
    of_layer = weights(inside.trace, layer, windows(inside.family)[layer])  # (H, T, T)
    return {
        **first,
        "tokens": [each | {"near": named_near(model, near.get(each["id"], ()))} for each in first["tokens"]],
        "attention": {**attention(of_layer, layer, head), "heads": heads(heads_of(model, inside))},
        "product": by_hand(model, inside, product.speed(model, [token for token in inside.ids if token >= 0])),
        "next": following(model, inside, sampling),
    }


def beginning(model: PromptedModel, inside: Inside) -> dict[str, Any]:
    """The members that a reading holds without a further pass: the model's sizes, tokens and layers."""
    return {
        "version": VERSION,
        "model": facts(model, inside),
        "at": inside.at,
        "tokens": tokens(model, inside),
        "embedding_share": rounded(inside.shares[0]),
        "layers": layers(model, inside),
        "appears": inside.appears,
    }


def attention(of_layer: np.ndarray, layer: int, head: int | None) -> dict[str, Any]:
    """The weights of one head, from those of its layer (H, T, T); the mean of all where `head` is None."""
    one = of_layer[head] if head is not None else of_layer.mean(0)
    return {"layer": layer, "head": head, "weights": rounded(one)}


def heads(patterns: Sequence[Pattern]) -> list[dict[str, Any]]:
    """What every head looks at, in shares of positions, and its name by the rule."""
    return [asdict(each) | {"name": each.name} for each in patterns]


def facts(model: PromptedModel, inside: Inside) -> dict[str, Any]:
    """The sizes of the model, and how its weights are held."""
    config = inside.family.config
    return {
        "name": inside.family.source.name, "served": model.served, "parameters": inside.family.parameters,
        "layers": inside.layers, "width": config.hidden_size, "heads": config.n_heads, "kv_heads": config.n_kv_heads,
        "head_width": config.head_dim, "vocabulary": config.vocab_size,
    }  # fmt: skip


def tokens(model: PromptedModel, inside: Inside) -> list[dict[str, Any]]:
    """Each token with the first numbers of its vector."""
    start = inside.trace.residual[0]  # (T, C)
    return [
        {
            "id": token, "text": text, "norm": rounded(np.linalg.norm(start[place])),
            "vector": rounded(start[place, :STRIP]),
        }
        for place, (token, text) in enumerate(zip(inside.ids, inside.texts))
    ]  # fmt: skip


def named_near(model: PromptedModel, near: vectors.Near) -> list[dict[str, Any]]:
    """The tokens nearest to one, with their cosines."""
    return [named(model, token, cosine=rounded(value)) for token, value in near]


def layers(model: PromptedModel, inside: Inside) -> list[dict[str, Any]]:
    """Before the first layer (0) and behind each: the length of the residual stream, what the layer's two halves added
    and their shares of the final one, and the logit lens."""
    (_, shares), added = inside.shares, inside.added
    entries = []
    for number, (norm, lens) in enumerate(zip(inside.norms, inside.lens)):
        entry: dict[str, Any] = {"layer": number, "norm": rounded(norm)}
        if number:
            halves = added[number - 1], shares[number - 1]
            for place, half in enumerate(("attention", "mlp")):
                entry[half] = {"norm": rounded(halves[0][place]), "share": rounded(halves[1][place])}
        entry["lens"] = [
            named(model, token, probability=rounded(math.exp(log_p)))
            for token, log_p in zip(lens.tokens, lens.log_probabilities)
        ]
        entry["answer"] = {"rank": lens.rank, "probability": rounded(math.exp(lens.log_probability))}
        entries.append(entry)
    return entries


def by_hand(model: PromptedModel, inside: Inside, speed: product.Speed | None) -> dict[str, Any]:
    """The product behind the likeliest token's score, and the multiplications of a token; their speed where it was
    measured."""
    made = product.by_hand(model, inside)
    factors = {"x": made.x, "w": made.w, "product": made.x * made.w}
    places = np.argsort(-np.abs(factors["product"]), kind="stable")[: product.SHOWN]
    matrices = product.matrices(inside.family)
    attention = product.attention_multiplications(inside.family, inside.at + 1)
    return {
        "token": named(model, made.tokens[0]),
        "numbers": [
            {"place": int(i), **{key: rounded(value[i]) for key, value in factors.items()}} for i in places
        ],
        "count": len(made.x), "score": rounded(made.score),
        "second": {**named(model, made.tokens[1]), "score": rounded(made.second)},
        "difference": rounded(made.difference), "engine": rounded(made.expected),
        "matrices": [asdict(matrix) | {"multiplications": matrix.multiplications} for matrix in matrices],
        "attention_multiplications": attention,
        "multiplications": attention + sum(matrix.multiplications for matrix in matrices),
        "speed": None if speed is None else {key: rounded(value) for key, value in asdict(speed).items()},
    }  # fmt: skip


def following(model: PromptedModel, inside: Inside, sampling: Sampling, count: int = 10) -> list[dict[str, Any]]:
    """The likeliest next tokens, with their probabilities at temperature 1 and as `sampling` draws them, whose
    temperature is above 0: 0 for those that it never draws."""
    log_p = inside.log_p[-1]  # (V,)
    tokens, p = kept(log_p, sampling)
    drawn = dict(zip(tokens.tolist(), (p / p.sum()).tolist()))
    return [
        named(model, token, probability=rounded(math.exp(log_p[token])), drawn=rounded(drawn.get(token, 0)))
        for token in likeliest(log_p, count)[0].tolist()
    ]


def changes(between: Difference) -> dict[str, Any]:
    """What an adaptation changed for one text."""
    return {
        "divergence": rounded(between.divergence), "moved": rounded(between.moved), "lens": rounded(between.lens),
        "parts": between.parts,
    }  # fmt: skip


def weight_changes(model: PromptedModel, linears: Sequence[Changed]) -> dict[str, Any]:
    """What an adaptation changed in the weights, and which parts of the model it touches at all."""
    return {
        "touched": asdict(touched(model, linears)),
        "linears": [
            {"name": one.name, "relative": rounded(one.relative), "spectrum": rounded(one.spectrum)} for one in linears
        ],
    }


def coded(family: Family[ModelConfig]) -> list[dict[str, Any]]:
    """The codes of every linear that the file holds in them."""
    return [asdict(each) for each in codes_of(family)]


def named(model: PromptedModel, token: int, **more: Any) -> dict[str, Any]:
    """A token with its text."""
    return {"id": token, "text": model.tokenizer.token_text(token), **more}


def rounded(value: Any) -> Any:
    """Numbers with DIGITS significant digits, in lists where there are several."""
    if value is None:
        return None
    array = np.asarray(value, np.float64)
    if array.ndim == 0:
        return float(f"{float(array):.{DIGITS}g}")
    size = np.abs(array)
    plain = (size >= PLAIN[0]) & (size < PLAIN[1])
    decimals = DIGITS - 1 - np.floor(np.log10(np.where(plain, size, 1.0)))
    tens = 10.0**decimals  # at most 10²², which float64 holds exactly, so that the quotient is the nearest number
    shortened = np.rint(np.where(plain, array, 0.0) * tens) / tens
    for place in np.argwhere(~plain & (array != 0)):  # also infinity and NaN
        shortened[tuple(place)] = float(f"{array[tuple(place)]:.{DIGITS}g}")
    return shortened.tolist()
