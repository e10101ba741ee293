"""A text through a model: shares, lens, attention, the product by hand, what changed; and the command."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from native_models import Folders, folders_in, lora_of, ours, soft_of, theirs, whole_of
from refusals import assert_refused
from safetensors.numpy import load_file, save_file

import riyaz
from riyaz.adapters import peft
from riyaz.cli import inside_keys
from riyaz.cli import main as cli
from riyaz.engine.engine import Engine
from riyaz.engine.request import Sampling
from riyaz.engine.runner import Lens, Runner, TokenRun, Trace, Whole
from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.inside import LONGEST, product, vectors
from riyaz.inside.attention import REPEATED, patterns, repeated, weights
from riyaz.inside.beside import difference, lora_changes, touched, whole_changes
from riyaz.inside.codes import codes_of
from riyaz.inside.document import following, heads_of, rounded
from riyaz.inside.reading import Inside, read, text_tokens
from riyaz.predictor import PromptedModel, open_model
from riyaz.sources import open_source
from riyaz.sources.tensor_files import float32

TEXT = "the card is lost and the card is late"


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders_in(tmp_path_factory)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("inside") / "model", seed=3)


@pytest.fixture(scope="module")
def model(folder: Path) -> PromptedModel:
    return open_model(folder, "fp32")


@pytest.fixture(scope="module")
def reading(model: PromptedModel) -> Inside:
    return read(model, text_tokens(model, TEXT), 4)


class _Words:
    """A tokenizer of names."""

    beginning: tuple[int, ...] = ()

    def token_text(self, number: int) -> str:
        return f"<{number}>"


def plain_model(folder: Path, precision: str = "fp32") -> PromptedModel:
    """A model without a tokenizer of its own."""
    return PromptedModel(tokenizer=_Words(), lm=Engine(ours(folder, precision)))  # type: ignore[arg-type]


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = cli.main(["inside", *map(str, words)])
    out, error = capsys.readouterr()
    return status, out, error


def test_parts_add_up_to_the_stream(reading: Inside) -> None:
    start, shares = reading.shares
    assert start + shares.sum() == pytest.approx(1, abs=1e-9)
    stream = reading.trace.residual[:, 4]
    assert reading.norms == pytest.approx(np.linalg.norm(stream[::2], axis=1), rel=1e-6)
    assert reading.added[0, 0] == pytest.approx(np.linalg.norm(stream[1] - stream[0]), rel=1e-5)
    assert reading.added[1, 1] == pytest.approx(np.linalg.norm(stream[4] - stream[3]), rel=1e-5)


def test_the_lens_ends_with_the_next_token(reading: Inside, model: PromptedModel) -> None:
    tokens = reading.ids[:5]
    likeliest = model.lm.next_tokens(tokens, 5)
    assert [(each, pytest.approx(p, abs=1e-4)) for each, p in likeliest] == list(
        zip(reading.lens[-1].tokens, reading.lens[-1].log_probabilities)
    )
    assert len(reading.lens) == reading.layers + 1 and reading.lens[-1].rank == 1
    ranks = [lens.rank for lens in reading.lens]
    assert all(rank == 1 for rank in ranks[reading.appears :])
    assert reading.appears == 0 or ranks[reading.appears - 1] > 1


def test_a_long_text_is_read_in_the_pieces_of_a_pass(kinds: Folders) -> None:
    model = plain_model(kinds("llama-llama3"), "int8")
    tokens = tuple(int(token) for token in np.random.default_rng(0).integers(3, 500, 700))
    long = read(model, tokens, 690)
    sequence = model.lm.runner.open()
    (wanted,) = model.lm.runner.forward([TokenRun(sequence, tokens, Whole(np.array([690])))])
    model.lm.runner.close(sequence)
    assert long.trace.residual.shape[1] == long.trace.keys.shape[1] == 700
    assert (long.log_p[-1] == wanted[0]).all()


@pytest.mark.parametrize(
    ("tokens", "at", "parts"),
    [((), -1, ("has 0 tokens",)), ((5,) * (LONGEST + 1), -1, (f"has {LONGEST + 1:,}", "at most")),
     ((5, 6), 2, ("--at", "0 to 1")), ((5, 6), -3, ("--at",))],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(model: PromptedModel, tokens: tuple[int, ...], at: int, parts: tuple) -> None:
    with assert_refused(*parts):
        read(model, tokens, at)


@pytest.mark.parametrize("window", [0, 3])
def test_attention_adds_up_and_looks_back_only(reading: Inside, window: int) -> None:
    for layer in range(reading.layers):
        seen = weights(reading.trace, layer, window)
        T = seen.shape[1]
        behind = np.arange(T)[:, None] - np.arange(T)
        assert seen.sum(2) == pytest.approx(np.ones(seen.shape[:2]), abs=1e-5)
        assert not seen[:, (behind < 0) | ((behind >= window) if window else False)].any()


def test_heads_are_named_after_what_they_look_at() -> None:
    T = 2 * REPEATED
    key = np.eye(T, dtype=np.float32)[None, :, None]  # (1, T, 1, T): a key for each place
    places = np.arange(T)
    rows = {
        "previous token": np.maximum(places - 1, 0), "first token": places * 0, "": places,
        "copies": np.where(places >= REPEATED, places - REPEATED + 1, 0),
    }  # fmt: skip
    queries = np.stack([50 * np.eye(T, dtype=np.float32)[row] for row in rows.values()], 1)[None]  # (1, T, 4, T)
    trace = Trace(np.zeros((3, T, 4), np.float32), queries, key)
    named = patterns(trace, trace, [0])
    assert [head.name for head in named] == list(rows)
    assert named[0].previous == 1 and named[1].first == 1 and named[2].itself == 1 and named[3].copied == 1


@pytest.mark.parametrize("window", [0, 3])
def test_patterns_are_those_of_the_weights(model: PromptedModel, reading: Inside, window: int) -> None:
    twice = read(model, repeated(model.lm.runner.vocab_size)).trace
    named = iter(patterns(reading.trace, twice, [window] * reading.layers))
    for layer in range(reading.layers):
        for seen in weights(reading.trace, layer, window):  # (T, T)
            largest = seen.argmax(1)[2:]
            head, places = next(named), np.arange(2, len(seen))
            shares = [float(np.mean(largest == wanted)) for wanted in (places - 1, 0, places)]
            assert [head.previous, head.first, head.itself] == shares
    assert next(named, None) is None


def test_numbers_have_six_digits() -> None:
    random = np.random.default_rng(0)
    numbers = random.standard_normal(3000) * 10.0 ** random.integers(-20, 9, 3000)
    numbers[:6] = 0, 1, -0.1, 5e-324, 1e300, np.inf
    assert rounded(numbers) == [float(f"{number:.6g}") for number in numbers]
    assert rounded(np.float32(0.1)) == 0.1 and rounded(numbers.reshape(3, -1))[2][0] == rounded(numbers[2000])
    assert rounded(np.zeros((0, 4))) == [] and rounded(None) is None


def test_random_tokens_come_twice() -> None:
    tokens = repeated(500)
    assert tokens[:REPEATED] == tokens[REPEATED:] and len(set(tokens)) == REPEATED


def test_short_texts_have_no_named_heads(model: PromptedModel) -> None:
    assert heads_of(model, read(model, [5, 6])) == []
    assert len(heads_of(model, read(model, [5, 6, 7]))) == 2 * 4


@pytest.mark.parametrize("kind", ["llama-biases", "gpt2", "gemma3-scaled"])
def test_a_score_by_hand_is_the_engines(kinds: Folders, kind: str) -> None:
    family = describe(open_source(kinds(kind)))
    model = plain_model(kinds(kind))
    inside = read(model, list(range(5, 15)))
    made = product.by_hand(model, inside)
    assert made.score == pytest.approx(float(made.x.astype(np.float64) @ made.w), rel=1e-5)
    assert made.difference == pytest.approx(made.expected, abs=1e-4) and made.score >= made.second
    head = family.config.vocab_size * family.config.hidden_size
    inside_layers = sum(rows * columns for _, (rows, columns) in product.shapes_of(family).linears.items())
    assert sum(matrix.multiplications for matrix in product.matrices(family)) == inside_layers >= head


def test_the_nearest_tokens_are_those_of_all_cosines(folder: Path) -> None:
    family = describe(open_source(folder))
    table = float32(*family.array(vectors.embedding_of(family))).astype(np.float64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    for token, near in vectors.nearest(family, [7, 9, 7], 4).items():
        cosines = table @ table[token]
        cosines[token] = -1
        assert [other for other, _ in near] == np.argsort(-cosines)[:4].tolist()
        assert near[0][1] == pytest.approx(cosines.max(), abs=1e-5)


def test_nothing_changes_between_a_model_and_itself(model: PromptedModel, reading: Inside) -> None:
    same = difference(model, model, reading, reading)
    assert not same.divergence.any() and not same.moved.any() and not same.lens.any() and same.parts is None
    assert len(same.divergence) == len(reading.ids)


def test_what_a_lora_changes(model: PromptedModel, folder: Path, reading: Inside) -> None:
    adapter = lora_of(folder, 3, 4)
    family = describe(open_source(folder))
    for changed in lora_changes(family, adapter):
        pair = adapter.pairs[changed.name]
        whole = pair.scale * pair.b.astype(np.float64) @ pair.a
        weight = float32(*family.array(f"{changed.name}.weight"))
        spectrum = np.linalg.svd(whole, compute_uv=False)[: pair.rank]
        assert changed.spectrum == pytest.approx(spectrum, rel=1e-6)
        assert changed.relative == pytest.approx(np.linalg.norm(whole) / np.linalg.norm(weight), rel=1e-5)
    model.lm.load("mine", adapter)
    try:
        after = replace(model, adapter="mine")
        second = read(after, reading.ids, 4)
        changed_by = difference(model, after, reading, second)
        one, two = (read(each, reading.ids).log_p[-1].astype(np.float64) for each in (model, after))
        assert changed_by.divergence[-1] == pytest.approx(np.exp(two) @ (two - one), rel=1e-3)
        assert changed_by.moved[0] == 0 and changed_by.moved[-1] > 0 and changed_by.parts in (1, 2)
    finally:
        model.lm.unload("mine")


def test_matrices_that_an_adapter_replaces_are_changes_of_weights(folder: Path, model: PromptedModel) -> None:
    family, adapter = (
        describe(open_source(folder)),
        whole_of(folder, 5, ("embed_tokens.weight", "up_proj.weight", "norm")),
    )
    changes = {changed.name: changed for changed in lora_changes(family, adapter)}
    layers = [f"model.layers.{layer}.mlp.up_proj" for layer in range(2)]
    assert set(changes) == {"model.embed_tokens", *layers}
    for name, changed in changes.items():
        stored = float32(*family.array(f"{name}.weight"))
        wanted = np.linalg.norm(adapter.whole[f"{name}.weight"] - stored) / np.linalg.norm(stored)
        assert changed.relative == pytest.approx(wanted, rel=1e-5) and not changed.spectrum
    assert (touched(model, list(changes.values())).weights, touched(model, list(changes.values())).pairs) == (3, 0)


def test_what_training_every_weight_changes(folder: Path, tmp_path: Path) -> None:
    other = tiny_llama.write_hf_folder(tmp_path / "other", seed=4)
    one, two = (describe(open_source(each)) for each in (folder, other))
    changes = {changed.name: changed.relative for changed in whole_changes(one, two)}
    assert set(changes) >= {"model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"}
    name = "model.layers.1.mlp.down_proj"
    before, after = (float32(*family.array(f"{name}.weight")) for family in (one, two))
    assert changes[name] == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-5)
    assert not any(changed.relative for changed in whole_changes(one, one))


@pytest.mark.filterwarnings("error")
def test_a_stream_of_zeros_has_no_shares_and_has_not_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_llama.write_hf_folder(tmp_path / "zero", seed=3)
    file = next(path.glob("*.safetensors"))
    save_file({name: tensor * ("norm" in name) for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    status, out, error = command(capsys, path, TEXT, "--before", path, "--json")
    assert status == 0, error
    made = json.loads(out, parse_constant=pytest.fail)
    assert made["embedding_share"] == 0 and made["layers"][1]["mlp"] == {"norm": 0.0, "share": 0.0}
    assert made["before"]["moved"] == [0.0] * 3


def test_models_of_other_sizes_are_not_compared(model: PromptedModel, reading: Inside, tmp_path: Path) -> None:
    deeper = open_model(tiny_llama.write_hf_folder(tmp_path / "deeper", seed=3, layers=3), "fp32")
    with assert_refused("--before", "layers"):
        difference(deeper, model, read(deeper, reading.ids, 4), reading)


def test_the_document_of_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, error = command(capsys, folder, TEXT, "--json", "--layer", 1, "--head", 2, "--top-k", 3)
    made = json.loads(out)
    assert status == 0, error
    assert {"tokens", "layers", "attention", "product", "next", "appears", "at", "version"} <= made.keys()
    assert [each["text"] for each in made["tokens"]] and made["layers"][1].keys() >= {
        "norm",
        "lens",
        "attention",
        "mlp",
    }
    T = len(made["tokens"])
    assert np.array(made["attention"]["weights"]).shape == (T, T) and made["attention"]["layer"] == 0
    assert sum(each["drawn"] for each in made["next"]) == pytest.approx(1, abs=1e-4)
    assert [each["drawn"] > 0 for each in made["next"]] == [True] * 3 + [False] * 7
    parts = [half["share"] for layer in made["layers"][1:] for half in (layer["attention"], layer["mlp"])]
    assert sum(parts) + made["embedding_share"] == pytest.approx(1, abs=1e-4)
    opened = riyaz.open(folder)
    for each, token in zip(made["next"], opened.next_tokens(TEXT, top=10)):
        assert (each["id"], each["probability"]) == (token.id, pytest.approx(token.probability, rel=1e-5))
    assert opened.inside(TEXT).texts == tuple(each["text"] for each in made["tokens"])


def test_the_terminal_shows_every_part(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lora").mkdir()
    peft.write(lora_of(folder, 3, 4), tmp_path / "lora", describe(open_source(folder)), base=str(folder))
    status, out, error = command(capsys, tmp_path / "lora", TEXT, "--before", "base")
    assert status == 0, error
    assert out.startswith(f"{tmp_path / 'lora'}, "), "the target, not the file of its base"
    for part in (
        "Words to numbers",
        "Layers",
        "Attention in layer 2",
        "One product",
        "Next word",
        "Changed",
        "B·A",
        "pairs beside 14 matrices",
    ):
        assert part in out, part


@pytest.mark.parametrize(
    ("words", "part"),
    [(("--layer", 3), "--layer"), (("--head", 5), "--head"), (("--at", 99), "--at"), (("--seed", 1), "--seed"),
     (("--temperature", 0), "--temperature"), (("--before", "base"), "--before")],
)  # fmt: skip
def test_wrong_input_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], words: tuple, part: str) -> None:
    status, out, error = command(capsys, folder, TEXT, *words)
    assert status == 2 and not out and part in error and len(error.strip().splitlines()) == 1


def test_sampling_leaves_the_rest_at_zero(model: PromptedModel, reading: Inside) -> None:
    shown = following(model, reading, Sampling(temperature=0.5, top_k=2))
    assert shown[0]["drawn"] + shown[1]["drawn"] == pytest.approx(1, abs=1e-5) and not shown[2]["drawn"]


@pytest.mark.parametrize(("kind", "zero"), [("Q4_0", 8), ("Q4_1", None), ("Q8_0", 0)])
def test_codes_are_counted(tmp_path: Path, kind: str, zero: int | None) -> None:
    path = tiny_llama.write_gguf(tmp_path / "coded.gguf", dtype=kind)
    family = describe(open_source(path))
    counted = list(codes_of(family))
    linears = [name for name in product.shapes_of(family).linears if f"{name}.weight" in family.stored_names]
    assert [each.name for each in counted] == linears and {each.kind for each in counted} == {kind}
    for each in counted:
        weight = float32(*family.array(f"{each.name}.weight"))
        assert sum(each.counts) == weight.size
        if zero is None:
            assert each.zeros is None
        else:
            assert each.zeros == pytest.approx(float((weight == 0).mean()), abs=1e-9)
            assert each.counts[zero - each.first] == (weight == 0).sum()


def test_a_model_is_compared_with_itself_in_full_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_llama.write_gguf(tmp_path / "coded.gguf", dtype="Q4_1")
    status, out, error = command(
        capsys, path, TEXT, "--before", path, "--before-precision", "fp32", "--codes", "--json"
    )
    made = json.loads(out)
    assert status == 0, error
    moved = made["before"]["moved"]
    assert 0 < moved[-1] < 0.05 and not made["before"]["linears"] and made["codes"][0]["kind"] == "Q4_1"
    status, out, error = command(capsys, path, TEXT, "--before-precision", "fp32")
    assert status == 2 and "--before-precision" in error


def test_models_of_other_widths_are_not_compared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wider = tiny_llama.write_hf_folder(tmp_path / "wider", seed=3, hidden=128)
    status, out, error = command(capsys, folder, TEXT, "--before", wider)
    assert status == 2 and not out.strip().endswith("}") and "--before" in error and "Traceback" not in error


def test_a_context_too_short_for_repeated_tokens_names_no_head(tmp_path: Path) -> None:
    model = open_model(tiny_llama.write_hf_folder(tmp_path / "short", seed=3, context=32), "fp32")
    assert heads_of(model, read(model, list(range(5, 15)))) == []


def test_a_soft_prompt_of_most_of_the_context_is_read(kinds: Folders) -> None:
    model = plain_model(kinds("llama-llama3"))
    model.lm.load("soft", soft_of(kinds("llama-llama3"), 4, 600))
    long = read(replace(model, adapter="soft"), list(range(5, 45)))
    assert long.soft == 600 and long.trace.residual.shape[1] == 640 and long.at == 639
    with assert_refused("at most 424"):
        read(replace(model, adapter="soft"), [5] * 425)


@pytest.mark.parametrize("engine", [ours, theirs])
def test_a_failed_trace_leaves_nothing_behind(kinds: Folders, engine: Callable[[Path], Runner]) -> None:
    runner = engine(kinds("llama-llama3"))
    bad = soft_of(kinds("llama-llama3"), 4, 2)
    assert bad.soft_prompt is not None
    bad.soft_prompt[:] = np.nan
    runner.load("bad", bad)
    sequence = runner.open("bad")
    with pytest.raises(RiyazError):
        runner.traced(TokenRun(sequence, [5, 6, 7], Lens(2)))
    runner.close(sequence)
    assert not getattr(runner, "_tracing", None)
    sequence = runner.open()
    log_p, trace = runner.traced(TokenRun(sequence, [5, 6, 7], Lens(2)))
    runner.close(sequence)
    assert trace.residual.shape[1] == 3 and len(trace.queries) == len(log_p) - 1


def leaves(value: object, path: str = "") -> set[str]:
    """The paths of all values in a document, such as `layers[].norm`."""
    if isinstance(value, dict):
        return {leaf for key, each in value.items() for leaf in leaves(each, f"{path}.{key}" if path else key)}
    if isinstance(value, list) and value:
        return {leaf for each in value for leaf in leaves(each, f"{path}[]")}
    return {path}


def test_the_reference_lists_every_key(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peft.write(lora_of(folder, 3, 4), tmp_path, describe(open_source(folder)), base=str(folder))
    listed, made = set(inside_keys.paths()), set[str]()
    for words in ((tmp_path, TEXT, "--before", folder), ("sample-animals-ternary", TEXT, "--codes")):
        status, out, error = command(capsys, *words, "--json")
        assert status == 0, error
        made |= leaves(json.loads(out))
    whole = {path.rstrip("[]") for path in listed}
    covers = [
        leaf for leaf in made if not any(leaf.startswith((path + ".", path + "[")) or leaf == path for path in whole)
    ]
    assert not covers, "keys that the reference does not list"
    assert not [path for path in whole if not any(leaf.startswith(path) for leaf in made)], "keys that are not there"
