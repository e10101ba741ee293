"""Three LoRAs and a soft prompt on smollm2-135m, mixed in one batch, beside each of them alone."""

from dataclasses import replace

import numpy as np
import pytest

from riyaz.adapters import Adapter, Pair
from riyaz.engine import Request, Sampling
from riyaz.engine.engine import Engine
from riyaz.engine.opening import open_engine
from riyaz.families import FAMILIES, describe
from riyaz.sources import Source, open_source
from riyaz.sources.package import pull

NEW = 6
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QUESTIONS = ("Where is my parcel?", "Write a short poem about a river that runs to the sea.")


@pytest.fixture(scope="module")
def source() -> Source:
    return open_source(pull("smollm2-135m").path)


@pytest.fixture(scope="module")
def opened(source: Source) -> Engine:
    """An engine of both tests, which hold no adapter in it when they end."""
    return open_engine(source, "fp32")


def lora(source: Source, seed: int, rank: int, targets: tuple[str, ...]) -> Adapter:
    """A LoRA that changes what the model says but leaves it a language model."""
    config, generator = describe(source).config, np.random.default_rng(seed)
    pairs = {}
    for name, shape in FAMILIES[config.model_type].layer_plan(config).items():
        path = name.removesuffix(".weight")
        if path.endswith(targets):
            a = generator.normal(0, shape[1] ** -0.5, (rank, shape[1])).astype(np.float32)
            pairs[path] = Pair(a, generator.normal(0, 0.02, (shape[0], rank)).astype(np.float32), 2.0)
    return Adapter(pairs)


def adapters(source: Source) -> dict[str, Adapter]:
    """Of different ranks and targets."""
    embedding = next(describe(source).weights())[2]
    vectors = np.asarray(embedding[1000:1020], np.float32)
    return {
        "attention": lora(source, 1, 8, ("q_proj", "v_proj")),
        "everything": lora(
            source, 2, 16, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        ),
        "down": lora(source, 3, 4, ("down_proj",)),
        "soft": Adapter(soft_prompt=vectors),
    }


def asked(source: Source, names: list[str | None]) -> list[Request]:
    """Every question of every adapter, greedy and drawn, behind a shared beginning."""
    tokenizer = source.tokenizer()
    prompts = tokenizer.render([[{"role": "user", "content": question}] for question in QUESTIONS])
    drawn = Sampling(temperature=0.8, top_p=0.95, seed=5)
    return [
        Request(number, tuple(prompt[20:]), tuple(prompt[:20]), name, NEW, sampling, tokenizer.eos_ids)
        for number, (prompt, name, sampling) in enumerate(
            (prompt, name, sampling) for prompt in prompts for name in names for sampling in (Sampling(), drawn)
        )
    ]


@pytest.mark.slow
def test_a_mixed_batch_is_token_for_token_what_each_adapter_says_alone(source: Source, opened: Engine) -> None:
    loaded = adapters(source)
    together = open_engine(source, "fp32")
    for name, adapter in loaded.items():
        together.load(name, adapter)
    requests = asked(source, [None, *loaded])
    mixed = together.generate(requests)
    for name in [None, *loaded]:
        if name is not None:
            opened.load(name, loaded[name])
        own = [number for number, request in enumerate(requests) if request.adapter == name]
        assert [opened.generate([requests[number]])[0] for number in own] == [mixed[number] for number in own], name
        if name is not None:
            opened.unload(name)
    texts = {name: [mixed[number] for number, request in enumerate(requests) if request.adapter == name]
             for name in [None, *loaded]}  # fmt: skip
    assert all(texts[name] != texts[None] for name in loaded)  # each of them changes the answers


@pytest.mark.slow
def test_drawn_answers_are_the_same_after_a_restart(source: Source, opened: Engine) -> None:
    requests = [request for request in asked(source, [None]) if request.sampling.temperature]
    second = open_engine(source, "fp32")
    assert opened.generate(requests) == [list(second.stream(request)) for request in requests]
    assert _answers(opened, requests, seed=6) != _answers(second, requests, seed=5)


def _answers(engine: Engine, requests: list[Request], seed: int) -> list[list[int]]:
    return engine.generate([replace(request, sampling=replace(request.sampling, seed=seed)) for request in requests])
