"""The llama beside transformers: logits, the gradient of every weight, saving; rows of a batch never meet."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
import torch
from small_llama import SIZES, bits, random_rows, small_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from riyaz.data.packing import pack
from riyaz.layers.attention import packed
from riyaz.layers.loss import head_loss
from riyaz.models import load, save_hf
from riyaz.models.llama import Model
from riyaz.sources import open_source
from riyaz.sources.package import pull

LOGITS = 1e-4  # largest difference to transformers in float32; logits have a spread of about one
REAL_LOGITS = 5e-4  # of the real model: 30 layers deep, logits up to 37
GRADIENT = 1e-5  # largest difference of a weight's gradient, in units of its largest element
ALONE = 1e-5  # by how much a float32 hidden state depends on the size of the batch it is computed in
SHAPES = {
    "grouped": {},
    "bias-untied-one-key": {"tie": False, "attention_bias": True, "kv_heads": 1},
    "ungrouped-three-layers": {"kv_heads": 4, "layers": 3, "rope_theta": 500000.0, "rms_norm_eps": 1e-6},
}
LENGTHS = [1, 2, 17, 40]


def tokens_of(lengths: list[int], seed: int = 0) -> Tensor:
    """Random tokens of rows laid end to end."""
    return torch.from_numpy(np.random.default_rng(seed).integers(3, SIZES["vocab"], sum(lengths)))


def positions_of(lengths: list[int]) -> Tensor:
    """From 0 in every row."""
    return torch.cat([torch.arange(length) for length in lengths])


def logits_of(model: Model, tokens: Tensor, lengths: list[int]) -> Tensor:
    """(T, V) of rows laid end to end."""
    return model.head(model(tokens, positions_of(lengths), packed(lengths)))


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny_llama.write_hf_folder(tmp_path / "model", seed=3, **request.param)


def oracle_of(folder: Path, dtype: torch.dtype = torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def test_logits_equal_transformers(folder: Path) -> None:
    model, oracle, tokens = load(open_source(folder), torch.float32), oracle_of(folder), tokens_of(LENGTHS)
    found = logits_of(model, tokens, LENGTHS)
    assert found.std() > 0.5
    with torch.no_grad():
        for ours, row in zip(found.split(LENGTHS), tokens.split(LENGTHS)):
            assert (ours - oracle(row[None]).logits[0]).abs().max() <= LOGITS


def test_the_gradient_of_every_weight_equals_transformers(folder: Path) -> None:
    model, oracle = load(open_source(folder), torch.float32).requires_grad_(True), oracle_of(folder)
    rows = random_rows(1, 5)
    batch = pack(rows)
    hidden = model(torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions), packed(batch.lengths))
    labelled = hidden[torch.from_numpy(batch.label_index)]
    found = head_loss(labelled, model.lm_head.weight, torch.from_numpy(batch.labels))
    found.backward()
    wanted = torch.zeros(())
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.answer]])
        labels = torch.where(torch.arange(ids.shape[1]) < len(row.prompt), -100, ids)
        wanted = wanted + oracle(ids, labels=labels).loss * len(row.answer)
    wanted.backward()
    assert found.item() == pytest.approx(wanted.item(), abs=LOGITS)
    theirs = dict(oracle.named_parameters())
    assert {name for name, _ in model.named_parameters()} == theirs.keys()
    for name, weight in model.named_parameters():
        expected = theirs[name].grad
        assert (weight.grad - expected).abs().max() <= GRADIENT * expected.abs().max(), name


def test_loaded_models_are_frozen_in_their_type_with_the_checkpoint_names(folder: Path) -> None:
    model = load(open_source(folder))
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.state_dict().keys() == oracle_of(folder).state_dict().keys()
    tied = json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


def test_bfloat16_is_near_transformers_bfloat16(folder: Path) -> None:
    exact, rounded = load(open_source(folder), torch.float32), load(open_source(folder), torch.bfloat16)
    tokens = tokens_of(LENGTHS)
    wanted = logits_of(exact, tokens, LENGTHS)
    ours = (logits_of(rounded, tokens, LENGTHS).float() - wanted).abs().mean()
    oracle = oracle_of(folder, torch.bfloat16)
    with torch.no_grad():
        found = torch.cat([oracle(row[None]).logits[0].float() for row in tokens.split(LENGTHS)])
    assert ours <= 1.5 * (found - wanted).abs().mean()  # no worse than its own roundings


def test_both_formats_give_the_same_logits_to_the_bit(tmp_path: Path) -> None:
    tokens = tokens_of(LENGTHS)
    sources = (
        tiny_llama.write_hf_folder(tmp_path / "hf", seed=5),
        tiny_llama.write_gguf(tmp_path / "model.gguf", seed=5),
    )
    one, other = (logits_of(load(open_source(path), torch.float32), tokens, LENGTHS) for path in sources)
    assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_transformers_and_riyaz_load_what_save_hf_writes(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    source, tokens, out = open_source(folder), tokens_of([17]), tmp_path / "saved"
    model = load(source, dtype)
    save_hf(model, source.tokenizer(), out)
    assert bits(load(open_source(out), dtype).state_dict()) == bits(model.state_dict())
    oracle = AutoModelForCausalLM.from_pretrained(out).eval()  # the type stands in config.json
    assert oracle.dtype == dtype and bits(oracle.state_dict()) == bits(model.state_dict())
    with torch.no_grad():
        found, wanted = oracle(tokens[None]).logits[0], logits_of(model, tokens, [17])
    assert (found - wanted).abs().max() <= (LOGITS if dtype == torch.float32 else 0.1)
    text = "the card payment\n\nwas <|im_end|> declined"
    chat = [{"role": "user", "content": "where is my refund?"}]
    theirs = AutoTokenizer.from_pretrained(out)
    assert theirs.encode(text, add_special_tokens=False) == AutoTokenizer.from_pretrained(folder).encode(
        text, add_special_tokens=False
    )
    assert (
        theirs.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        == (source.tokenizer().render([chat])[0])
    )


def test_save_hf_keeps_every_end_token(tmp_path: Path) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0, 1]}))
    source = open_source(folder)
    save_hf(load(source), source.tokenizer(), tmp_path / "saved")
    assert source.tokenizer().eos_ids == open_source(tmp_path / "saved").tokenizer().eos_ids == {0, 1, 2}


def test_embeddings_stand_in_for_tokens() -> None:
    model, tokens = small_model(), tokens_of(LENGTHS)
    embedded = model.model.embed_tokens(tokens)
    found = model(None, positions_of(LENGTHS), packed(LENGTHS), embeddings=embedded)
    assert torch.equal(found, model(tokens, positions_of(LENGTHS), packed(LENGTHS)))


def test_packed_rows_equal_rows_alone() -> None:
    model, tokens = small_model(), tokens_of(LENGTHS)
    found = model(tokens, positions_of(LENGTHS), packed(LENGTHS)).split(LENGTHS)
    for ours, row in zip(found, tokens.split(LENGTHS)):
        alone = model(row, torch.arange(len(row)), packed([len(row)]))
        assert (ours - alone).abs().max() <= ALONE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("changed", range(len(LENGTHS)))
def test_no_token_sees_another_row_nor_a_later_token(changed: int, dtype: torch.dtype) -> None:
    model, before = small_model(dtype), tokens_of(LENGTHS)
    place = sum(LENGTHS[:changed]) + LENGTHS[changed] // 2
    after = before.clone()
    after[place] = before[place] % 30 + 5
    assert after[place] != before[place]
    same, other = (model(tokens, positions_of(LENGTHS), packed(LENGTHS)) for tokens in (before, after))
    touched = (same != other).any(-1).nonzero().flatten().tolist()
    assert touched == list(range(place, sum(LENGTHS[: changed + 1])))  # itself and what follows it in its row


def test_no_gradient_crosses_rows() -> None:
    model, tokens = small_model(), tokens_of(LENGTHS)
    embedded = model.model.embed_tokens(tokens).requires_grad_()
    hidden = model(None, positions_of(LENGTHS), packed(LENGTHS), embeddings=embedded)
    hidden.split(LENGTHS)[2].square().sum().backward()
    touched = [bool(grad.any()) for grad in embedded.grad.split(LENGTHS)]
    assert touched == [False, False, True, False]


@pytest.mark.slow
def test_the_real_file_equals_transformers_reading_of_it() -> None:
    path = pull("smollm2-135m").path
    source = open_source(path)
    text = "The quick brown fox jumps over the lazy dog. It's 1984; def main(): return 3.14\n\nनमस्ते"
    tokens = torch.tensor(source.tokenizer().encode(text))
    with torch.no_grad():
        ours = logits_of(load(source, torch.float32), tokens, [len(tokens)])
        oracle = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        theirs = oracle.eval()(tokens[None]).logits[0]
    assert (ours - theirs).abs().max() <= REAL_LOGITS
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))
