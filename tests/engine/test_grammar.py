"""Answers under a grammar: complete, the same in every company, the model's own tokens where these fit, and found by
looking at a few candidates as by looking at all tokens."""

import json
from dataclasses import replace

import numpy as np
import pytest
from refusals import assert_refused

from riyaz.engine import choice, grammar
from riyaz.engine.engine import Engine
from riyaz.engine.grammar import Grammar, Unfollowable, misfit, schema_grammar, schema_rules
from riyaz.engine.opening import open_engine
from riyaz.engine.request import Request, Sampling
from riyaz.engine.runner import Every, TokenRun, Top, Whole
from riyaz.engine.torch import load as torch_load
from riyaz.sources import open_source
from riyaz.text.tokenizer import Tokenizer

FIELDS = {
    "name": {"type": "string", "maxLength": 6}, "day": {"enum": ["Monday", "Tuesday", None]},
    "count": {"type": "integer", "minimum": 0, "maximum": 99}, "sure": {"type": "boolean"},
}  # fmt: skip
SCHEMA = json.dumps(
    {"type": "object", "properties": FIELDS, "required": [*FIELDS], "additionalProperties": False,
     "x-guidance": {"whitespace_pattern": " "}}
)  # fmt: skip
DRAWN = Sampling(temperature=1.0, seed=5)
SAMPLINGS = (Sampling(), DRAWN, replace(DRAWN, top_k=5), replace(DRAWN, top_p=0.8), replace(DRAWN, min_p=0.05))


@pytest.fixture(scope="module")
def tokenizer(model_folder) -> Tokenizer:
    return open_source(model_folder).tokenizer()


@pytest.fixture(scope="module")
def engine(model_folder) -> Engine:
    return open_engine(open_source(model_folder), "fp32")


@pytest.fixture(scope="module")
def rules(engine: Engine, tokenizer: Tokenizer) -> Grammar:
    return schema_grammar(tokenizer, SCHEMA, engine.runner.vocab_size, "schema")


def asked(rules: Grammar, tokenizer: Tokenizer, count: int, **options: object) -> list[Request]:
    """Requests for answers under the rules, with prompts of several lengths."""
    random = np.random.default_rng(4)
    return [
        Request(
            place, tuple(random.integers(3, 500, 5 + 3 * place).tolist()), limit=120, stop=tokenizer.eos_ids,
            grammar=rules, **options,  # type: ignore[arg-type]
        )
        for place in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_every_answer_parses_and_is_the_same_alone(
    engine: Engine, tokenizer: Tokenizer, rules: Grammar, sampling: Sampling
) -> None:
    requests = asked(rules, tokenizer, 8, sampling=sampling)
    together = engine.generate(requests)
    assert together == [engine.generate([request])[0] for request in requests]
    for ids in together:
        text = tokenizer.decode(ids)
        found = json.loads(text)
        assert list(found) == list(FIELDS) and found["day"] in FIELDS["day"]["enum"] and len(found["name"]) <= 6
        assert 0 <= found["count"] <= 99 and isinstance(found["sure"], bool)
        assert misfit(SCHEMA, text, "schema") == ""


def test_a_token_fits_where_the_whole_mask_says_so(tokenizer: Tokenizer) -> None:
    random = np.random.default_rng(1)
    for schema in (SCHEMA, '{"type": "integer"}', '{"enum": ["x", "xy"]}', '{"type": "array", "maxItems": 2}', "{}"):
        rules = Grammar(tokenizer, schema_rules(schema), 512, "schema")
        for _ in range(3):
            parse, length = rules.start(), 0
            while length < 40:
                allowed = parse.allowed()
                fitting = [parse.fits(token) for token in range(512)]  # special tokens and the end among them
                assert fitting == allowed.tolist() and allowed.any()
                token = int(random.choice(np.flatnonzero(allowed)))
                if token in tokenizer.eos_ids:
                    break
                parse.accept(token)
                length += 1


def test_candidates_first_find_the_token_of_the_whole_mask(
    engine: Engine, tokenizer: Tokenizer, rules: Grammar, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = asked(rules, tokenizer, 6)
    answers = engine.generate(requests)
    monkeypatch.setattr(choice, "TRIED", 0)  # the whole mask at once
    assert engine.generate(requests) == answers


def test_log_probabilities_are_the_models_own(engine: Engine, tokenizer: Tokenizer, rules: Grammar) -> None:
    (request,) = asked(rules, tokenizer, 1, top=2)
    ticket, scored = engine.add(request), []
    while engine.running or not scored:
        scored += [step.scored for step in engine.step() if step.ticket == ticket]
    plain = replace(request, grammar=None, top=None, limit=0)
    tokens = [each.token for each in scored]
    (wanted,) = engine.logprobs([plain], [tokens])
    assert np.allclose([each.log_probability for each in scored], wanted, atol=2e-3)
    assert any(each.top[0][0] != each.token for each in scored), "the model would write something else"


def test_an_answer_ends_at_its_limit_and_its_request_can_be_asked_again(
    engine: Engine, tokenizer: Tokenizer, rules: Grammar
) -> None:
    (request,) = asked(rules, tokenizer, 1)
    whole = engine.generate([request])[0]
    short = replace(request, limit=5)
    assert engine.generate([short])[0] == whole[:5] == engine.generate([short])[0]
    assert misfit(SCHEMA, tokenizer.decode(whole[:5]), "schema") == "it ends before its JSON is complete"


@pytest.mark.parametrize("kind", ["native", "torch"])
def test_every_token_of_a_runner_is_top_without_order(engine: Engine, model_folder, kind: str) -> None:
    runner = engine.runner if kind == "native" else torch_load.load_runner(open_source(model_folder), "float32")
    wants = (Every(), Top(512), Whole(np.array([2])))
    sequences = [runner.open() for _ in wants]
    every, (tokens, values), whole = runner.forward(
        [TokenRun(sequence, [5, 6, 7], each) for sequence, each in zip(sequences, wants)]
    )
    for sequence in sequences:
        runner.close(sequence)
    assert every.shape == (512,) and np.array_equal(every[tokens], values) and np.array_equal(every, whole[0])


def test_an_error_ends_one_answer_and_the_next_one_begins_anew(tokenizer: Tokenizer) -> None:
    rules = Grammar(tokenizer, schema_rules(SCHEMA), 512, "form")
    parse, shared = rules.start(), rules._first
    with pytest.raises(Unfollowable, match=r"^form: the schema cannot be followed") as caught:
        parse.accept(int(np.flatnonzero(~parse.allowed())[0]))
    assert caught.value.where == "form" and rules._first is not shared
    assert rules.start().allowed().any()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ('{"name": "Ada", "day": null, "count": 3, "sure": true}', ""),
        ('{"name":"Ada","day":null,"count":3,"sure":true}', ""), ("no", "it is no JSON"),
        ('{"day": null, "name": "Ada", "count": 3, "sure": true}', "in another order"), ("[1]", "another kind"),
        ('{"name": "Ada", "day": "Sunday", "count": 3, "sure": true}', "behind '{\"name\": \"Ada\", \"day\": \"'"),
        ('{"name": "Ada", "day": null', "it ends before"),
    ],
)  # fmt: skip
def test_an_answer_is_told_in_which_way_it_does_not_fit(answer: str, why: str) -> None:
    found = misfit(SCHEMA, answer, "schema")
    assert why in found and bool(found) == bool(why)


@pytest.mark.parametrize("schema", ['{"type": "thing"}', '{"$ref": "#/nowhere"}', '{"enum": []}', '{"not": {}}'])
def test_a_schema_that_cannot_be_followed_is_one_line(schema: str) -> None:
    with assert_refused("form.json: the schema cannot be followed"):
        grammar.expect_schema(schema, "form.json")


def test_without_the_package_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> None:
    monkeypatch.setattr(grammar, "find_spec", lambda name: None)
    with assert_refused("form.json: answers that keep to a JSON schema need llguidance", "pip install -e '.[json]'"):
        grammar.expect_schema('{"type": "string"}', "form.json")


def test_rows_with_one_schema_compile_it_once() -> None:
    grammar._matcher_of_bytes.cache_clear()
    assert [misfit('{"type": "integer"}', str(n), f"rows.jsonl:{n}") for n in range(5)] == [""] * 5
    assert grammar._matcher_of_bytes.cache_info().misses == 1
