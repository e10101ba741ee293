"""The torch engine against transformers and against reading every sequence anew, on tiny seeded models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
import torch

from riyaz.adapters import Adapter, Pair
from riyaz.engine import Request, Sampling, parts, scheduler
from riyaz.engine import engine as engines
from riyaz.engine.engine import Engine
from riyaz.engine.runner import TokenRun, Whole
from riyaz.engine.torch import runner as runners
from riyaz.engine.torch.packed import pack
from riyaz.engine.torch.runner import TOLERANCE, TorchRunner
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError
from riyaz.layers.swaps import lora
from riyaz.layers.swaps.swap import swap
from riyaz.models import load
from riyaz.sources import open_source

END, VOCABULARY, NEW = 2, 512, 12
SAME = TOLERANCE[torch.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=3)


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Engine:
    return Engine(TorchRunner(load(open_source(folder), dtype)))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return opened(folder)


@pytest.fixture(scope="module")
def oracle(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def ids(generator: np.random.Generator, least: int, most: int) -> tuple[int, ...]:
    return tuple(generator.integers(3, VOCABULARY, generator.integers(least, most + 1)).tolist())


def requests(seed: int, count: int = 9) -> list[Request]:
    """Prompts of 1 to 40 tokens, some behind one of two shared prefixes."""
    generator = np.random.default_rng(seed)
    prefixes = [(), ids(generator, 20, 20), ids(generator, 5, 5)]
    ends = frozenset({END})
    return [Request(i, ids(generator, 1, 40), prefixes[i % 3], limit=NEW, stop=ends) for i in range(count)]


def log_softmax(model, tokens: tuple[int, ...]) -> np.ndarray:
    """What transformers says of every position, (T, V)."""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].log_softmax(-1).numpy()


def plain_greedy(model, request: Request) -> list[int]:
    """Greedy decoding that reads everything anew for every token."""
    tokens: list[int] = []
    while len(tokens) < NEW:
        token = int(log_softmax(model, (*request.prefix, *request.tokens, *tokens))[-1].argmax())
        if token == END:
            break
        tokens.append(token)
    return tokens


def closed_set(generator: np.random.Generator) -> Trie:
    answers = {tuple(generator.integers(3, 9, generator.integers(1, 6)).tolist()) for _ in range(25)}
    return Trie([(*answer, END) for answer in sorted(answers)])


@pytest.mark.parametrize("seed", range(3))
def test_logprobs_and_distributions_equal_transformers(
    engine: Engine, oracle, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(seed)
    asked = requests(seed)
    more = [ids(generator, 1, 9) for _ in asked]
    monkeypatch.setattr(engines, "WINDOW", 4)
    found = engine.logprobs(asked, more)
    whole = list(engine.distributions(asked, more))
    for request, answer, row, rows in zip(asked, more, found, whole):
        wanted = log_softmax(oracle, (*request.prefix, *request.tokens, *answer))[request.length - 1 : -1]
        assert rows.shape == (len(answer), VOCABULARY)
        assert np.abs(rows - wanted).max() < SAME
        assert np.abs(row - wanted[np.arange(len(answer)), answer]).max() < SAME


def test_the_likeliest_tokens_equal_transformers(engine: Engine, oracle) -> None:
    tokens = (1, 7, 300, 41)
    wanted = log_softmax(oracle, tokens)[-1]
    likeliest = engine.next_tokens(tokens, 10)
    assert [token for token, _ in likeliest] == (-wanted).argsort()[:10].tolist()
    assert all(abs(log_p - wanted[token]) < SAME for token, log_p in likeliest)


def test_hidden_states_equal_transformers_whole_and_in_parts(folder: Path, engine: Engine, oracle) -> None:
    asked = requests(4)
    with torch.no_grad():
        wanted = [
            oracle.model(torch.tensor([(*request.prefix, *request.tokens)])).last_hidden_state[0, -1].numpy()
            for request in asked
        ]
    pieced = opened(folder)
    pieced.read_in_pieces(7)
    done: list[int] = []
    for each in (engine, pieced):
        states = parts.finished(each.hidden_states(asked, done.append))
        assert states.dtype == np.float32 and np.abs(states - wanted).max() <= SAME
    assert sum(done) == 2 * len(asked) and not pieced.runner._sequences.keys() - {*pieced._prefixes._sequences.values()}
    assert len(list(pieced.hidden_states(asked))) > len(asked)  # pauses, in which running answers go on


@pytest.mark.parametrize("seed", range(3))
def test_cached_generation_equals_reading_anew(engine: Engine, oracle, seed: int) -> None:
    asked = requests(seed)
    wanted = [plain_greedy(oracle, request) for request in asked]
    assert engine.generate(asked) == wanted
    assert [list(engine.stream(request)) for request in asked[:3]] == wanted[:3]


def test_generation_stops_at_any_end_token(folder: Path, oracle) -> None:
    asked = requests(4)
    answers = [plain_greedy(oracle, request) for request in asked]
    ends = {answers[0][0], answers[1][3], answers[2][7]}  # rows end at different steps and leave the batch
    found = opened(folder).generate([replace(request, stop=frozenset({*ends, END})) for request in asked])
    for answer, tokens in zip(answers, found):
        cut = next((i for i, token in enumerate(answer) if token in ends), len(answer))
        assert tokens == answer[:cut]
    assert {len(tokens) for tokens in found} >= {0, NEW}


@pytest.mark.parametrize("seed", range(4))
def test_choose_gives_the_probability_of_every_answer(engine: Engine, oracle, seed: int) -> None:
    generator = np.random.default_rng(seed)
    trie, prefix = closed_set(generator), ids(generator, 17, 17)
    asked = [Request(i, ids(generator, 1, 30), prefix, constraint=trie) for i in range(3)]
    found = engine.choose(asked)
    for request, row in zip(asked, found):
        for answer, value in zip(trie.sequences, row):
            wanted = log_softmax(oracle, (*request.prefix, *request.tokens, *answer))[request.length - 1 : -1]
            assert abs(wanted[np.arange(len(answer)), answer].sum() - value) < len(answer) * SAME


@pytest.mark.parametrize("seed", range(25))
def test_best_is_the_argmax_of_choose(engine: Engine, seed: int) -> None:
    generator = np.random.default_rng(seed)
    trie = closed_set(generator)
    asked = [Request(0, ids(generator, 1, 30), constraint=trie) for _ in range(int(generator.integers(1, 6)))]
    scores = engine.choose(asked)
    offsets = generator.normal(size=len(trie.leaf)) * generator.choice([0.0, 1.0, 10.0])
    near_ties = seed % 3 == 0
    if near_ties:  # all answers of row 0 are equal within a millionth
        offsets = -scores[0] + generator.normal(size=len(trie.leaf)) * 1e-6
    for (index, value), row in zip(engine.best(asked, offsets), scores):
        total = row + offsets
        assert total[index] >= total.max() - SAME
        assert index == total.argmax() or near_ties
        assert abs(value - row[index]) < SAME


def test_best_reads_fewer_nodes_than_choose(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    trie = closed_set(generator)
    asked = [Request(0, ids(generator, 5, 30), constraint=trie) for _ in range(20)]
    read: list[int] = []
    forward = engine.runner.forward
    monkeypatch.setattr(engine.runner, "forward", lambda runs: read.append(len(runs)) or forward(runs))
    engine.best(asked, np.zeros(len(trie.leaf)))
    pruned = sum(read)
    read.clear()
    engine.choose(asked)
    assert pruned < 0.5 * sum(read)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_answers_do_not_depend_on_the_batch(folder: Path, dtype: torch.dtype, monkeypatch) -> None:
    engine = opened(folder, dtype)
    generator = np.random.default_rng(5)
    trie = closed_set(generator)
    asked = [replace(request, constraint=trie) for request in requests(5, 12)]
    more = [ids(generator, 1, 9) for _ in asked]
    together = engine.logprobs(asked, more), engine.choose(asked)
    monkeypatch.setattr(parts, "MAX_RUNNING", 1)
    monkeypatch.setattr(runners, "HEAD_ROWS", 3)
    alone = engine.logprobs(asked, more), engine.choose(asked)
    assert max(np.abs(a - b).max() for a, b in zip(together[0], alone[0])) < TOLERANCE[dtype]
    assert np.abs(together[1] - alone[1]).max() < TOLERANCE[dtype] * trie.depth.max()


def test_a_prefix_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened(folder)
    lengths: list[int] = []
    forward = type(engine.runner.model).forward

    def counted(self, tokens, positions, attend, **more):
        lengths.append(len(positions))
        return forward(self, tokens, positions, attend, **more)

    monkeypatch.setattr(type(engine.runner.model), "forward", counted)
    prefix = tuple(range(10, 60))
    asked = [Request(0, (5, 6, 7), prefix), Request(1, (8,), prefix)]
    for wanted in ([50, 4], [50, 4, 4]):
        engine.logprobs(asked, [(9,), (9,)])
        assert lengths == wanted
    monkeypatch.setattr(engine.runner, "cache_limit", engine.runner.bytes_of(60))
    engine.logprobs([Request(0, (5,), tuple(range(70, 90)))], [(9,)])  # another pushes it out
    lengths.clear()
    engine.logprobs(asked, [(9,), (9,)])
    assert lengths == [50, 4]


def adapter_of(folder: Path, seed: int, targets: tuple[str, ...] | None = None) -> Adapter:
    """An adapter on the linears of these last names, whose B is not zero."""
    model = load(open_source(folder), torch.float32)
    lora.apply(model, r=4, alpha=8, seed=seed, targets=targets)
    generator = torch.Generator().manual_seed(seed)
    for _, layer in lora.lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.3, generator=generator)
    return lora.detach(model)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_an_adapter_is_on_or_truly_off(tmp_path: Path, dtype: torch.dtype, packed: bool) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "biased", seed=4, attention_bias=True)
    bare, adapted = opened(folder, dtype), opened(folder, dtype)
    if packed:
        pack(bare.runner.model)
        pack(adapted.runner.model)
    adapter = adapter_of(folder, 1)
    adapted.load("mine", adapter)
    prefix, tokens, more = tuple(range(20, 40)), (5, 6, 7), [(8, 9)]
    on, off = ([Request(0, tokens, prefix, name, limit=4)] for name in ("mine", None))
    assert np.array_equal(adapted.logprobs(off, more)[0], bare.logprobs(off, more)[0])
    changed, beside = adapted.logprobs(on, more)[0], load(open_source(folder), dtype)
    assert np.abs(changed - bare.logprobs(off, more)[0]).max() > 0.1
    lora.attach(beside, adapter)
    trained = Engine(TorchRunner(beside)).logprobs(off, more)[0]  # as training leaves it
    assert np.abs(changed - trained).max() < TOLERANCE[dtype]
    assert list(adapted.stream(on[0])) == adapted.generate(on)[0]
    with pytest.raises(RiyazError, match=r"adapter 'other' is not loaded; loaded: mine"):
        adapted.logprobs([Request(0, tokens, adapter="other")], more)
    adapted.unload("mine")
    assert np.array_equal(adapted.logprobs(off, more)[0], bare.logprobs(off, more)[0])
    with pytest.raises(RiyazError, match=r"adapter 'mine' is not loaded; loaded: none"):
        adapted.generate(on)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_many_adapters_in_one_batch_answer_as_each_does_alone(folder: Path, dtype: torch.dtype) -> None:
    generator = np.random.default_rng(0)
    adapters = {"one": adapter_of(folder, 1), "two": adapter_of(folder, 2, ("q_proj", "down_proj")),
                "head": adapter_of(folder, 3, ("lm_head", "o_proj")),
                "soft": Adapter(soft_prompt=generator.normal(size=(5, 64)).astype(np.float32)),
                "norms": Adapter(whole={f"model.layers.{n}.input_layernorm.weight": generator.normal(1, 0.3, 64).astype(
                    np.float32) for n in range(2)} | {"lm_head.weight": 0.05 * generator.normal(
                        size=(VOCABULARY, 64)).astype(np.float32)})}  # fmt: skip
    together = opened(folder, dtype)
    pack(together.runner.model)
    for name, adapter in adapters.items():
        together.load(name, adapter)
    names = [None, *adapters]
    asked = [replace(request, adapter=names[i % len(names)]) for i, request in enumerate(requests(1, 24))]
    mixed, more = together.generate(asked), [ids(generator, 1, 9) for _ in asked]
    mixed_p, trie = together.logprobs(asked, more), closed_set(generator)
    mixed_best = together.choose([replace(request, constraint=trie) for request in asked])
    for name in names:
        alone = opened(folder, dtype)
        pack(alone.runner.model)
        if name is not None:
            alone.load(name, adapters[name])
        places = [i for i, request in enumerate(asked) if request.adapter == name]
        assert alone.generate([asked[i] for i in places]) == [mixed[i] for i in places], name
        for i, row in zip(places, alone.logprobs([asked[i] for i in places], [more[i] for i in places])):
            assert np.abs(row - mixed_p[i]).max() < TOLERANCE[dtype]
        chosen = alone.choose([replace(asked[i], constraint=trie) for i in places])
        assert np.abs(chosen - mixed_best[places]).max() < TOLERANCE[dtype] * trie.depth.max()
    assert len({tuple(tokens) for tokens in mixed}) > 12


def test_a_drawn_answer_is_the_same_alone_in_a_batch_and_after_a_restart(folder: Path) -> None:
    drawing = Sampling(temperature=0.9, top_k=40, top_p=0.95, min_p=0.01, seed=7)
    asked = [replace(request, sampling=drawing) for request in requests(2, 12)]
    greedy = requests(3, 5)
    engine = opened(folder)
    together = engine.generate([*asked, *greedy])[: len(asked)]
    assert together == engine.generate(asked) == [engine.generate([request])[0] for request in reversed(asked)][::-1]
    assert together == opened(folder).generate(asked) == [list(opened(folder).stream(request)) for request in asked]
    other = [replace(request, sampling=replace(drawing, seed=8)) for request in asked]
    assert engine.generate(other) != together
    assert len({tuple(row) for row in engine.generate([replace(asked[0], id=i) for i in range(8)])}) > 1


def test_requests_come_and_go_while_others_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MAX_RUNNING", 3)
    engine, asked = opened(folder), requests(6, 9)
    wanted = [list(opened(folder).stream(request)) for request in asked]
    tickets = {engine.add(request): i for i, request in enumerate(asked[:5])}
    answers: dict[int, list[int]] = {i: [] for i in range(9)}
    late, sizes, done = list(range(5, 9)), [], []
    forward = engine.runner.forward
    monkeypatch.setattr(
        engine.runner, "forward", lambda runs: sizes.append([len(run.tokens) for run in runs]) or forward(runs)
    )
    while steps := engine.step():
        if late:
            i = late.pop(0)
            tickets[engine.add(asked[i])] = i
        for step in steps:
            answers[tickets[step.ticket]] += [] if step.token is None else [step.token]
            done += [tickets[step.ticket]] if step.done else []
        if len(done) == 2:
            engine.cancel(next(ticket for ticket, i in tickets.items() if i == 4))
    assert all(answers[i] == wanted[i] for i in range(9) if i != 4) and sorted({*done, 4}) == list(range(9))
    assert answers[4] == wanted[4][: len(answers[4])] and max(map(len, sizes)) == 3
    assert any(max(row) > 1 and min(row) == 1 for row in sizes)  # a prompt is read beside another's next token
    assert engine.step() == []


def test_a_sequence_goes_on_from_any_length_of_another(folder: Path, oracle) -> None:
    runner, generator = opened(folder).runner, np.random.default_rng(0)
    tokens, last = ids(generator, 20, 20), Whole(np.array([0]))
    behind = runner.open(prefix=_read(runner, runner.open(), tokens[:6]))
    _read(runner, behind, tokens[6:])
    for length in (0, 3, 6, 7, 13, 20):
        forked = runner.fork(behind, length)
        assert runner.length(forked) == length
        child = runner.fork(forked, length + 1) if length > 6 else None  # its parent's token comes in the same pass
        runs = [TokenRun(forked, (9,), last), *([TokenRun(child, (5,), last)] if child else [])]
        found = runner.forward(runs)
        wanted = log_softmax(oracle, (*tokens[:length], 9, 5))
        for row, place in zip(found, (length, length + 1)):
            assert np.abs(row[0] - wanted[place]).max() < SAME
        for sequence in (forked, *([child] if child else [])):
            runner.close(sequence)
    assert (
        np.abs(runner.forward([TokenRun(behind, (4,), last)])[0][0] - log_softmax(oracle, (*tokens, 4))[-1]).max()
        < SAME
    )


def test_a_fork_that_was_not_run_is_forked_and_shared(folder: Path, oracle) -> None:
    runner, generator = opened(folder).runner, np.random.default_rng(1)
    tokens, last = ids(generator, 20, 20), Whole(np.array([0]))
    parent = _read(runner, runner.open(), tokens)
    child = runner.fork(parent, 15)
    starts = {runner.fork(child, 12): 12, runner.open(prefix=runner.fork(parent, 10)): 10, child: 15}
    starts[runner.open(prefix=parent)] = 20  # the child keeps what it began with
    runner.close(parent)
    for row, length in zip(runner.forward([TokenRun(sequence, (9,), last) for sequence in starts]), starts.values()):
        assert np.abs(row[0] - log_softmax(oracle, (*tokens[:length], 9))[-1]).max() < SAME


def test_an_interrupted_pass_changes_no_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked = opened(folder), requests(7, 4)
    engine.load("mine", adapter_of(folder, 1))
    asked.append(replace(asked[1], adapter="mine"))
    wanted = engine.generate(asked)
    engine = opened(folder)
    engine.load("mine", adapter_of(folder, 1))
    tickets = {engine.add(request): i for i, request in enumerate(asked[:4])}
    answers: dict[int, list[int]] = {i: [] for i in range(4)}
    norm = engine.runner.model.model.layers[1].input_layernorm
    steps = [engine.step(), engine.step()]
    with monkeypatch.context() as broken:
        broken.setattr(norm, "forward", interrupt)
        for attempt in (engine.step, lambda: next(engine.stream(asked[4])), lambda: engine.generate(asked[4:])):
            with pytest.raises(KeyboardInterrupt):
                attempt()
    while engine.running:
        steps.append(engine.step())
    for step in (step for each in steps for step in each):
        answers[tickets[step.ticket]] += [] if step.token is None else [step.token]
    assert [answers[i] for i in range(4)] == wanted[:4]
    engine.unload("mine")  # no sequence of the interrupted prefix is left


def interrupt(*args: object) -> None:
    raise KeyboardInterrupt


def test_an_adapter_that_is_asked_for_stays(folder: Path) -> None:
    engine, (request, *_) = opened(folder), requests(8)
    adapter = adapter_of(folder, 1)
    engine.load("mine", adapter)
    with pytest.raises(RiyazError, match="'mine' is loaded already"):
        engine.load("mine", adapter)
    ticket = engine.add(replace(request, adapter="mine"))
    with pytest.raises(RiyazError, match="'mine' is in use"):
        engine.unload("mine")
    assert engine.step()[0].ticket == ticket
    engine.cancel(ticket)
    engine.unload("mine")
    with pytest.raises(RiyazError, match="'mine' is not loaded"):
        engine.unload("mine")


def test_an_adapter_that_does_not_fit_changes_nothing(folder: Path) -> None:
    engine, (request, *_) = opened(folder), requests(9)
    before, path = engine.generate([request]), "model.layers.0.self_attn.q_proj"
    pair, nothing = Pair(np.ones((2, 64), np.float32), np.ones((64, 2), np.float32), 1.0), np.zeros((3, 2), np.float32)
    wrong = {
        "nope.q_proj": Adapter({path: pair, "nope.q_proj": pair}),
        "has A": Adapter({path: Pair(pair.a[:, :32], pair.b, 1.0)}),
        "norm.weight": Adapter({path: pair}, {"model.norm.weight": np.ones(32, np.float32)}),
        "soft prompt": Adapter({path: pair}, soft_prompt=nothing),
    }
    for part, adapter in wrong.items():
        with pytest.raises(RiyazError, match=f"'mine' does not fit the model: .*{part}"):
            engine.load("mine", adapter)
    engine.load("mine", Adapter({path: Pair(pair.a, 0 * pair.b, 1.0)}))
    assert engine.generate([replace(request, adapter="mine")]) == before


class Doubled(torch.nn.Module):
    """A linear of another kind: it has no weight of a float type."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.inside = [linear]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inside[0](x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_an_adapter_is_served_on_a_linear_of_another_kind(folder: Path, dtype: torch.dtype) -> None:
    model, twice, path = (
        load(open_source(folder), dtype),
        load(open_source(folder), dtype),
        "model.layers.1.mlp.up_proj",
    )
    swap(model, path, Doubled(model.get_submodule(path)))
    twice.get_submodule(path).weight *= 2
    adapter = adapter_of(folder, 2, ("up_proj",))
    answers = []
    for engine in (Engine(TorchRunner(model)), Engine(TorchRunner(twice))):
        pack(engine.runner.model)
        engine.load("mine", adapter)
        answers.append(engine.logprobs([Request(0, (5, 6, 7), adapter="mine"), Request(0, (5, 6))], [(8, 9)] * 2))
    assert all(np.abs(ours - theirs).max() < TOLERANCE[dtype] for ours, theirs in zip(*answers))


def test_a_temperature_near_zero_draws_the_likeliest_tokens(engine: Engine) -> None:
    for temperature in (1e-6, 1e-300, 5e-324):
        asked = [replace(each, sampling=Sampling(temperature, seed=-1)) for each in requests(3, 3)]
        assert engine.generate(asked) == engine.generate(requests(3, 3))


def _read(runner: TorchRunner, sequence: int, tokens: tuple[int, ...]) -> int:
    runner.forward([TokenRun(sequence, tokens)])
    return sequence


def test_an_answer_that_cannot_fit_the_context_is_refused(engine: Engine) -> None:
    with pytest.raises(RiyazError, match=f"of a context of {engine.context}"):
        engine.generate([Request(0, (5,), limit=1), Request(1, (5,) * engine.context, limit=1)])
    assert engine.step() == []  # nothing of the refused call waits
    assert engine.generate([Request(0, (5,), limit=0)]) == [[]]


def test_packed_linears_equal_plain_ones(tmp_path: Path) -> None:
    biased = tiny_llama.write_hf_folder(tmp_path / "biased", seed=4, attention_bias=True)
    plain, packed = (opened(biased, torch.bfloat16) for _ in range(2))
    pack(packed.runner.model)
    assert not any(isinstance(module, torch.nn.Linear) for module in packed.runner.model.modules())
    generator = np.random.default_rng(0)
    for asked in requests(6, 3), requests(7, 40):
        more = [ids(generator, 1, 5) for _ in asked]
        for a, b in zip(plain.logprobs(asked, more), packed.logprobs(asked, more)):
            assert np.abs(a - b).max() < TOLERANCE[torch.bfloat16]


def test_progress_adds_up_to_all_requests(engine: Engine) -> None:
    asked, told = requests(8, 30), []
    engine.generate(asked, told.append)
    assert sum(told) == 30


def test_a_stream_leaves_its_caller_as_it_was(engine: Engine) -> None:
    for _ in engine.stream(requests(0)[0]):
        assert not torch.is_inference_mode_enabled()
