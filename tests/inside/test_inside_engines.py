"""What the engines hand out from inside a pass, beside transformers: residual stream, attention, logit lens."""

import numpy as np
import pytest
import torch
from native_models import KINDS, Folders, folders_in, ids, lora_of, ours, soft_of, theirs
from transformers import AutoModelForCausalLM

from riyaz.engine.runner import Every, Hidden, HiddenLens, LayerWant, Lens, NamedLens, Runner, TokenRun, Trace
from riyaz.families import describe
from riyaz.inside.attention import weights
from riyaz.inside.reading import windows
from riyaz.sources import open_source

NEAR = 1e-4  # of the size of what is compared
LENGTHS = (1, 2, 5, 40)
RUNNERS = {"C++": ours, "torch": theirs}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders_in(tmp_path_factory)


def traced(runner: Runner, tokens: tuple[int, ...], row: int, adapter: str | None = None) -> tuple[np.ndarray, Trace]:
    sequence = runner.open(adapter)
    try:
        return runner.traced(TokenRun(sequence, tokens, Lens(row)))
    finally:
        runner.close(sequence)


def behind_layers(runner: Runner, tokens: tuple[int, ...], want: LayerWant, adapter: str | None = None) -> np.ndarray:
    sequence = runner.open(adapter)
    try:
        result, _ = runner.traced(TokenRun(sequence, tokens, want))
        return result
    finally:
        runner.close(sequence)


def plain(runner: Runner, tokens: tuple[int, ...], adapter: str | None = None) -> np.ndarray:
    sequence = runner.open(adapter)
    try:
        (log_p,) = runner.forward([TokenRun(sequence, tokens, Every())])
        return log_p
    finally:
        runner.close(sequence)


def apart(one: np.ndarray, two: np.ndarray) -> float:
    """The largest difference ÷ the largest size."""
    return float(np.abs(one - two).max() / max(1.0, np.abs(two).max()))


@pytest.mark.parametrize("engine", RUNNERS)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_transformers(folder: Folders, kind: str, engine: str) -> None:
    path = folder(kind)
    family = describe(open_source(path))
    oracle = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = ids(np.random.default_rng(1), 40, family.config.vocab_size)
    with torch.no_grad():
        wanted = oracle(torch.tensor([tokens]), output_hidden_states=True, output_attentions=True)
        trunk = oracle.base_model
        norm = trunk.norm if hasattr(trunk, "norm") else trunk.ln_f
        hidden = [state[0] for state in wanted.hidden_states]
        last = torch.stack([state[7] for state in hidden[:-1]])  # the last one is normed already
        logits = oracle.lm_head(torch.cat([norm(last), hidden[-1][7:8]]))
        if cap := getattr(oracle.config, "final_logit_softcapping", None):
            logits = cap * torch.tanh(logits / cap)
        lens = logits.log_softmax(1).numpy()
    got, trace = traced(RUNNERS[engine](path), tokens, 7)
    assert trace.residual.shape == (2 * len(hidden) - 1, 40, family.config.hidden_size)
    for layer, state in enumerate(hidden[:-1]):
        assert apart(trace.residual[2 * layer], state.numpy()) <= NEAR, layer
    assert apart(norm(torch.from_numpy(trace.residual[-1])).detach().numpy(), hidden[-1].numpy()) <= NEAR
    for layer, window in enumerate(windows(family)):
        assert apart(weights(trace, layer, window), wanted.attentions[layer][0].numpy()) <= NEAR, layer
    assert apart(got, lens) <= NEAR


@pytest.mark.parametrize("engine", RUNNERS)
@pytest.mark.parametrize("length", LENGTHS)
def test_the_lens_behind_all_layers_is_the_pass_without_it(folder: Folders, engine: str, length: int) -> None:
    path = folder("llama-biases")
    runner = RUNNERS[engine](path)
    tokens = ids(np.random.default_rng(length), length, 300)
    log_p, _ = traced(runner, tokens, length - 1)
    assert (log_p[-1] == plain(runner, tokens)).all()


def test_the_same_of_weights_as_stored_and_of_many_wanted_rows(folder: Folders) -> None:
    runner = ours(folder("qwen2"), "int8")
    tokens = ids(np.random.default_rng(5), 64, 300)
    log_p, trace = traced(runner, tokens, 63)
    assert (log_p[-1] == plain(runner, tokens)).all()
    bits = trace.keys.view(np.uint32)
    assert not (bits & 0xFFFF).any()  # keys as the cache has them, in bfloat16


@pytest.mark.parametrize("engine", RUNNERS)
def test_an_adapter_and_a_soft_prompt_are_traced(folder: Folders, engine: str) -> None:
    path = folder("llama-llama3")
    runner = RUNNERS[engine](path)
    runner.load("lora", lora_of(path, 3, 4))
    runner.load("soft", soft_of(path, 4, 6))
    tokens = ids(np.random.default_rng(6), 9, 300)
    bare, bare_trace = traced(runner, tokens, 8)
    for name, vectors in (("lora", 0), ("soft", 6)):
        log_p, trace = traced(runner, tokens, 8, name)
        assert trace.residual.shape[1] == 9 + vectors
        assert (log_p[-1] == plain(runner, tokens, name)).all()
        assert apart(log_p[-1], bare[-1]) > 1e-3
        assert apart(log_p[0], bare[0]) <= NEAR  # neither changes the embedding of the text's last token
        assert apart(trace.residual[0, vectors:], bare_trace.residual[0]) <= NEAR


@pytest.mark.parametrize("kind", ["llama-llama3", "gpt2", "gemma3"])
def test_both_engines_hand_out_the_same(folder: Folders, kind: str) -> None:
    path = folder(kind)
    tokens = ids(np.random.default_rng(8), 33, describe(open_source(path)).config.vocab_size)
    one, two = (traced(runner(path), tokens, 20) for runner in (ours, theirs))
    assert apart(one[0], two[0]) <= NEAR
    for part in ("residual", "queries", "keys"):
        assert apart(getattr(one[1], part), getattr(two[1], part)) <= NEAR, part


def test_a_trace_leaves_the_next_pass_as_it_was(folder: Folders) -> None:
    runner = ours(folder("gpt2"))
    tokens = ids(np.random.default_rng(9), 40, 300)
    before = plain(runner, tokens)
    traced(runner, tokens, 3)
    assert (plain(runner, tokens) == before).all()


@pytest.mark.parametrize("engine", RUNNERS)
@pytest.mark.parametrize("kind", ["llama-llama3", "gpt2", "gemma3"])
def test_named_tokens_behind_each_layer_are_those_of_the_whole_lens(folder: Folders, kind: str, engine: str) -> None:
    path = folder(kind)
    runner = RUNNERS[engine](path)
    runner.load("lora", lora_of(path, 3, 4))
    tokens = ids(np.random.default_rng(10), 20, describe(open_source(path)).config.vocab_size)
    for adapter in (None, "lora"):
        named = behind_layers(runner, tokens, NamedLens(np.array([17, 18, 19]), np.array([5, 7, 5])), adapter)
        wholes = [traced(runner, tokens, row, adapter)[0] for row in (17, 18, 19)]
        wanted = np.stack([whole[:, token] for whole, token in zip(wholes, (5, 7, 5))], 1)
        assert named.shape == wanted.shape and apart(named, wanted) <= NEAR


@pytest.mark.parametrize("engine", RUNNERS)
@pytest.mark.parametrize("kind", ["llama-llama3", "gpt2", "gemma3"])
def test_hidden_states_behind_each_layer_make_the_lens(folder: Folders, kind: str, engine: str) -> None:
    path = folder(kind)
    runner = RUNNERS[engine](path)
    tokens = ids(np.random.default_rng(11), 20, describe(open_source(path)).config.vocab_size)
    hidden = behind_layers(runner, tokens, HiddenLens())
    sequence = runner.open()
    (last,) = runner.forward([TokenRun(sequence, tokens, Hidden())])
    runner.close(sequence)
    assert (hidden[-1] == last).all()
    oracle = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = oracle.lm_head(torch.from_numpy(hidden))
        if cap := getattr(oracle.config, "final_logit_softcapping", None):
            logits = cap * torch.tanh(logits / cap)
    assert apart(logits.log_softmax(1).numpy(), traced(runner, tokens, 19)[0]) <= NEAR
