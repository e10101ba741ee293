"""Every family beside transformers and PEFT: logits, gradients, cached generation, adapters, both file formats."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_families
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from small_llama import attach, bits, moved, random_rows, save_peft
from tiny_families import CONTEXT, FAMILIES, VOCAB, Case, make, oracle_logits
from torch import Tensor
from transformers import AutoModelForCausalLM

from riyaz import models
from riyaz.data.packing import pack
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.torch.runner import TorchRunner
from riyaz.errors import RiyazError
from riyaz.families import describe, transposed
from riyaz.layers.attention import packed
from riyaz.layers.loss import head_loss
from riyaz.layers.swaps import lora, soft_prompt
from riyaz.sources import open_source
from riyaz.train import answer_loss, answer_nats

LOGITS = 1e-4  # largest difference to transformers in float32; logits have a spread of about one
GRADIENT = 1e-5  # largest difference of a weight's gradient, in units of its largest element
LOG_P = 1e-4  # nats, of a token read through the cache
LENGTHS = [1, 2, 17, 100]  # the last is beyond the 32 places from which the scaled RoPEs start
PROMPTS = ((5, 77, 301, 12), (9,), tuple(range(40, 110)))


@dataclass(frozen=True)
class Made:
    """One case on disk, in transformers, and here."""

    case: Case
    folder: Path
    oracle: Any

    def model(self, folder: Path | None = None) -> Any:
        """A fresh float32 model."""
        return models.load(open_source(folder or self.folder), torch.float32)

    def fresh_oracle(self, folder: Path | None = None) -> Any:
        """A fresh float32 model of transformers."""
        return AutoModelForCausalLM.from_pretrained(folder or self.folder, dtype=torch.float32)


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    case = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("parity") / "model"
    return Made(case, folder, make(case, folder))


def tokens_of(count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(3, VOCAB, count))


def logits_of(model: Any, tokens: Tensor, lengths: list[int]) -> Tensor:
    """(T, V) of rows laid end to end."""
    positions = torch.cat([torch.arange(length) for length in lengths])
    return model.head(model(tokens, positions, packed(lengths)))


def test_logits_of_packed_rows_equal_transformers_of_each_alone(made: Made) -> None:
    tokens = tokens_of(sum(LENGTHS))
    found = logits_of(made.model(), tokens, LENGTHS)
    assert found.std() > 0.5
    for ours, row in zip(found.split(LENGTHS), tokens.split(LENGTHS)):
        assert (ours - oracle_logits(made.oracle, row)).abs().max() <= LOGITS


def test_the_gradient_of_every_weight_equals_transformers(made: Made) -> None:
    model, rows = made.model().requires_grad_(True), random_rows(1, 4, vocab=VOCAB)
    batch = pack(rows)
    hidden = model(torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions), packed(batch.lengths))
    labelled = hidden[torch.from_numpy(batch.label_index)]
    head_loss(labelled, model.lm_head.weight, torch.from_numpy(batch.labels)).backward()
    made.oracle.zero_grad()
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.answer]])
        labels = torch.where(torch.arange(ids.shape[1]) < len(row.prompt), -100, ids)
        (made.oracle(ids, labels=labels).loss * len(row.answer)).backward()
    theirs = dict(made.oracle.named_parameters())
    assert {name for name, _ in model.named_parameters()} == theirs.keys()
    largest = max(weight.grad.abs().max() for weight in theirs.values())
    for name, weight in model.named_parameters():
        expected = theirs[name].grad.T if transposed(made.case.model_type, name) else theirs[name].grad
        # some gradients are nothing but rounding: a bias of the keys moves all scores of a query alike
        unit = max(expected.abs().max(), 1e-3 * largest)
        assert (weight.grad - expected).abs().max() <= GRADIENT * unit, name


def test_cached_generation_and_log_probabilities_equal_transformers(made: Made) -> None:
    engine = Engine(TorchRunner(made.model()))
    requests = [Request(i, prompt, limit=20, stop=frozenset({2})) for i, prompt in enumerate(PROMPTS)]
    answers = engine.generate(requests)
    for prompt, answer in zip(PROMPTS, answers):
        ids = torch.tensor([prompt])
        wanted = made.oracle.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
        assert answer == [token for token in wanted[0, len(prompt) :].tolist() if token != 2]
    more = [tuple(range(200, 206))] * len(PROMPTS)
    behind = [Request(0, prompt, prefix=(8, 9, 10)) for prompt in PROMPTS]  # read once, kept, and joined to each row
    for found, prompt in zip(engine.logprobs(behind, more), PROMPTS):
        row = torch.tensor([8, 9, 10, *prompt, *more[0]])
        wanted = oracle_logits(made.oracle, row).log_softmax(1)[-7:-1].gather(1, row[-6:, None])[:, 0]
        assert np.abs(found - wanted.numpy()).max() <= LOG_P


def filled(model: Any) -> Any:
    """The model with an adapter on every linear, whose B is not zero."""
    lora.apply(model, r=5, alpha=7.0, seed=1)
    generator = torch.Generator().manual_seed(2)
    for _, layer in lora.lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.2, generator=generator)
    return model


def test_an_adapter_and_the_model_it_is_merged_into_equal_peft_and_transformers(made: Made, tmp_path: Path) -> None:
    model, tokens = filled(made.model()), tokens_of(40)
    (tmp_path / "adapter").mkdir()
    save_peft(model, tmp_path / "adapter", base="tiny", alpha=7.0)
    peft = PeftModel.from_pretrained(made.fresh_oracle(), tmp_path / "adapter")
    wanted = oracle_logits(peft, tokens)
    assert (wanted - oracle_logits(made.oracle, tokens)).abs().max() > 0.1
    assert (logits_of(model, tokens, [40]) - wanted).abs().max() <= LOGITS
    lora.merge(model)
    models.save_hf(model, open_source(made.folder).tokenizer(), tmp_path / "merged")
    assert (oracle_logits(made.fresh_oracle(tmp_path / "merged"), tokens) - wanted).abs().max() <= LOGITS
    assert (oracle_logits(peft.merge_and_unload(), tokens) - wanted).abs().max() <= LOGITS


def test_an_adapter_that_peft_made_is_read(made: Made, tmp_path: Path) -> None:
    settings = {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    settings["fan_in_fan_out"] = made.case.model_type == "gpt2"
    peft, tokens = get_peft_model(made.fresh_oracle(), LoraConfig(**settings)), tokens_of(40)
    generator = torch.Generator().manual_seed(4)
    for name, weight in peft.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2, generator=generator)
    peft.save_pretrained(tmp_path)
    model = made.model()
    attach(model, tmp_path)
    assert (logits_of(model, tokens, [40]) - oracle_logits(peft, tokens)).abs().max() <= LOGITS


def test_a_soft_prompt_equals_peft(made: Made, tmp_path: Path) -> None:
    prompted, tokens = moved(made.model(), (5, 6, 7, 8)), tokens_of(40)
    save_peft(prompted, tmp_path, base="tiny")
    peft = PeftModel.from_pretrained(made.fresh_oracle(), tmp_path)
    with torch.no_grad():
        wanted = peft.eval()(tokens[None]).logits[0, 4:]
    assert (logits_of(prompted, tokens, [40]) - wanted).abs().max() <= LOGITS


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_adapters_learn(made: Made, kind: str) -> None:
    model, rows = made.model(), random_rows(2, 6, vocab=VOCAB)
    if kind == "lora":
        lora.apply(model, r=4, alpha=8, seed=0)
    else:
        model = soft_prompt.apply(model, (5, 6, 7))
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=5e-2)
    before = answer_loss(model, rows)
    for _ in range(5):
        optimizer.zero_grad()
        answer_nats(model, pack(rows)).backward()
        optimizer.step()
    assert all(weight.grad.any() for weight in learned) and answer_loss(model, rows) < before - 0.05


def test_a_gguf_file_is_the_folder_to_the_bit(made: Made, tmp_path: Path) -> None:
    path = tiny_families.write_gguf(made.case, made.oracle, tmp_path / "model.gguf")
    folder, file = describe(open_source(made.folder)), describe(open_source(path))
    assert file.config == folder.config and file.parameters == folder.parameters
    assert bits(made.model(path).state_dict()) == bits(made.model().state_dict())


def test_a_sharded_bfloat16_folder_is_read_and_written(made: Made, tmp_path: Path) -> None:
    theirs = made.fresh_oracle().to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="64KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    model = models.load(open_source(tmp_path / "shards"), torch.bfloat16)
    models.save_hf(model, open_source(made.folder).tokenizer(), tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.dtype == torch.bfloat16 and bits(again.state_dict()) == bits(theirs.state_dict())
    config = describe(open_source(tmp_path / "saved")).config
    assert config == describe(open_source(made.folder)).config


def refusal(folder: Path, **changes: Any) -> str:
    """The line by which a folder with other settings is refused."""
    import json

    settings = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RiyazError) as caught:
        describe(open_source(folder))
    return str(caught.value)


REFUSED = {
    "a window": ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True, riyaz supports only False"),
    "another window": ("qwen3", {"use_sliding_window": True}, "use_sliding_window is True, riyaz supports only False"),
    "relu": ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu'"),
    "scores by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    "five heads": ("gpt2", {"n_head": 5}, "5 heads of size 12 do not make up the hidden size 64"),
    "no positions": ("gpt2", {"n_positions": None}, "n_positions is missing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_run_is_refused_by_name(name: str, tmp_path: Path) -> None:
    family, changes, says = REFUSED[name]
    make(FAMILIES[family], tmp_path)
    assert says in refusal(tmp_path, **changes)


def test_gpt2_checkpoints_without_their_prefix_and_with_buffers_are_read(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    oracle = make(FAMILIES["gpt2"], tmp_path)
    arrays = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): array for name, array in arrays.items()}
    bare |= {"h.0.attn.bias": np.ones((1, 1, 8, 8), np.float32), "h.1.attn.masked_bias": np.float32([-1e4])}
    assert "wte.weight" in bare and "lm_head.weight" not in bare
    save_file(bare, tmp_path / "model.safetensors")
    model, tokens = models.load(open_source(tmp_path), torch.float32), tokens_of(20)
    assert (logits_of(model, tokens, [20]) - oracle_logits(oracle, tokens)).abs().max() <= LOGITS
    save_file(bare | {"lm_head.weight": bare["wte.weight"]}, tmp_path / "model.safetensors")
    assert describe(open_source(tmp_path)).parameters == sum(array.size for array in arrays.values())


def test_gpt2_refuses_a_row_beyond_its_learned_positions(tmp_path: Path) -> None:
    make(FAMILIES["gpt2"], tmp_path)
    model = models.load(open_source(tmp_path), torch.float32)
    assert logits_of(model, tokens_of(CONTEXT), [CONTEXT]).isfinite().all()
    with pytest.raises(RiyazError, match="a row of 129 tokens is longer than the 128 positions"):
        logits_of(model, tokens_of(CONTEXT + 1), [CONTEXT + 1])


def test_divisors_of_no_known_scaling_are_refused(tmp_path: Path) -> None:
    case = FAMILIES["llama-llama3"]
    oracle = make(case, tmp_path / "model")
    for divisors in ((1.0, 2.0, 1.0, *case.divisors[3:]), case.divisors[:4]):
        path = tiny_families.write_gguf(
            Case("llama", case.sizes, case.layout, divisors=divisors), oracle, tmp_path / "m"
        )
        with pytest.raises(RiyazError, match=r"rope_freqs\.weight\) is not Llama 3"):
            describe(open_source(path))
