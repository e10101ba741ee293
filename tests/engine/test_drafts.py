"""Prompt lookup over the torch engine, the slow twin, and under grammars: answers with drafts are those without."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_comparison
import tiny_llama
import torch

import riyaz
from riyaz.engine import Request, Sampling
from riyaz.engine.engine import Engine
from riyaz.engine.grammar import schema_grammar
from riyaz.engine.opening import ENGINE, LOOKUP, open_engine
from riyaz.engine.runner import Best, Each, TokenRun, Top
from riyaz.engine.torch.runner import TorchRunner
from riyaz.errors import RiyazError
from riyaz.models import load
from riyaz.predictor import open_target
from riyaz.serve.opening import Opener
from riyaz.sources import Source, open_source

LIMIT, VOCABULARY = 24, 512


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=3))


@pytest.fixture(scope="module")
def engine(source: Source) -> Engine:
    return Engine(TorchRunner(load(source, torch.float32)), lookup="off")


def requests(count: int = 6) -> list[Request]:
    generator = np.random.default_rng(2)
    prefix = tuple(generator.integers(3, VOCABULARY, 9).tolist())
    ways = (Sampling(), Sampling(temperature=0.7, seed=3), Sampling(repetition_penalty=1.3))
    return [
        Request(
            i, tuple(generator.integers(3, VOCABULARY, 2 + 5 * i).tolist()), prefix if i % 2 else (), limit=LIMIT,
            sampling=ways[i % 3],
        )
        for i in range(count)
    ]  # fmt: skip


def drafted(request: Request, answer: list[int]) -> Request:
    """The request with a text that its answer repeats, but for every sixth token."""
    changed = [token if i % 6 else token - 1 for i, token in enumerate(answer, 1)]
    return replace(request, likely=((*request.tokens[-2:], *changed),))


def test_torch_computes_a_draft_token_by_token_and_takes_it_back(engine: Engine) -> None:
    runner, generator = engine.runner, np.random.default_rng(4)
    prompt, answer = (tuple(generator.integers(3, VOCABULARY, n).tolist()) for n in (11, 8))
    wants = tuple(Best() if i % 2 else Top(5, answer[:i], 1.2) for i in range(8))
    one, other = runner.open(), runner.open()
    runner.forward([TokenRun(one, prompt)])
    runner.forward([TokenRun(other, prompt)])
    singly = [runner.forward([TokenRun(one, (token,), want)])[0] for token, want in zip(answer, wants)]
    for kept in (11, 15):
        (together,) = runner.forward([TokenRun(other, answer[kept - 11 :], Each(wants[kept - 11 :]))])
        for mine, theirs in zip(together, singly[kept - 11 :], strict=True):
            assert mine == theirs if isinstance(mine, int) else all(map(np.array_equal, mine, theirs))
        runner.truncate(other, 15)
        assert runner.length(other) == 15
    runner.close(one)
    runner.close(other)


def test_torch_answers_with_drafts_are_those_without(engine: Engine) -> None:
    engine.drafts.mode = "off"
    wanted = [engine.generate([each])[0] for each in requests()]
    engine.drafts.mode = "on"
    before = engine.drafts.counts.accepted
    assert [engine.generate([drafted(each, answer)])[0] for each, answer in zip(requests(), wanted)] == wanted
    assert engine.drafts.counts.accepted > before + LIMIT
    together = engine.generate([drafted(each, answer) for each, answer in zip(requests(), wanted)])
    assert together == wanted


def test_answers_under_a_grammar_are_the_same_with_drafts(source: Source) -> None:
    engine, tokenizer = open_engine(source), source.tokenizer()
    schema = '{"type": "object", "properties": {"a": {"enum": ["one", "two"]}, "b": {"type": "integer"}}}'
    grammar = schema_grammar(tokenizer, schema, engine.runner.vocab_size, "schema")
    plain = [replace(each, grammar=grammar, stop=tokenizer.eos_ids, added=None) for each in requests()]
    engine.drafts.mode = "off"
    wanted = engine.generate(plain)
    engine.drafts.mode = "on"
    assert engine.generate([drafted(each, answer) for each, answer in zip(plain, wanted)]) == wanted
    assert engine.drafts.counts.accepted > 0


def test_the_environment_says_how_engines_begin_where_the_caller_does_not(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_engine(source).drafts.mode == "auto"
    monkeypatch.setenv(LOOKUP, "off")
    assert open_engine(source).drafts.mode == "off"
    assert open_engine(source, lookup="on").drafts.mode == open_target(source.path, lookup="on").lm.drafts.mode == "on"
    monkeypatch.setenv(LOOKUP, "perhaps")
    with pytest.raises(RiyazError, match=r"unknown lookup 'perhaps'.*on, off, auto"):
        open_engine(source)
    assert open_engine(source, lookup="off").drafts.mode == "off"
    assert riyaz.open(source.path, lookup="off").predictor.lm.drafts.mode == "off"
    said = tiny_comparison.command("generate", source.path, "hello", "--max-tokens", 2, "--lookup", "off", "--json")
    assert said.status == 0 and said.document["lookup"]["mode"] == "off"


def test_with_torch_auto_is_off(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE, "torch")
    for lookup, mode in (("auto", "off"), (None, "off"), ("on", "on"), ("off", "off")):
        assert open_engine(source, lookup=lookup).drafts.mode == mode
        assert riyaz.open(source.path, lookup=lookup).predictor.lm.drafts.mode == mode
        opener = Opener(lookup=lookup)
        opener.serve(str(source.path))
        assert opener.bases[0].lm.drafts.mode == mode
        flags = () if lookup is None else ("--lookup", lookup)
        said = tiny_comparison.command("generate", source.path, "hello", "--max-tokens", 2, "--json", *flags)
        assert said.document["lookup"]["mode"] == mode
    assert Engine(TorchRunner(load(source, torch.float32))).drafts.mode == "off"
