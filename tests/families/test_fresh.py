"""A fresh model: the named weights at the named sizes, fixed by the seed, and it knows nothing yet."""

import math

import pytest
import torch
from refusals import assert_refused
from small_llama import bits, random_rows

from riyaz.families.gpt2 import GPT2Config
from riyaz.families.llama import LlamaConfig
from riyaz.families.qwen2 import Qwen2Config
from riyaz.models.fresh import fresh
from riyaz.train import answer_loss

SHAPE = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 192, "n_layers": 3, "n_heads": 4, "n_kv_heads": 4,
    "head_dim": 16, "context": 64, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA = LlamaConfig(**SHAPE, rms_norm_eps=1e-5, rope_theta=10000.0)
GPT2 = GPT2Config(**SHAPE, layer_norm_eps=1e-5)
BIASED = LlamaConfig(**SHAPE | {"tie_word_embeddings": False}, rms_norm_eps=1e-5, rope_theta=1e4, attention_bias=True)
CONFIGS = pytest.mark.parametrize("config", [LLAMA, GPT2, BIASED], ids=["llama", "gpt2", "biased"])


@CONFIGS
def test_weights_have_the_sizes_that_gpt2_begins_with(config) -> None:
    model = fresh(config, 1)
    for name, weight in model.named_parameters():
        assert weight.requires_grad and weight.dtype == torch.float32
        if weight.ndim == 1:
            assert torch.equal(weight, torch.full_like(weight, 0.0 if name.endswith("bias") else 1.0)), name
            continue
        added = name.endswith(("o_proj.weight", "down_proj.weight", "c_proj.weight"))
        std = 0.02 / math.sqrt(6) if added else 0.02
        error = 4 / math.sqrt(2 * weight.numel())  # four standard errors of a standard deviation
        assert weight.std().item() == pytest.approx(std, rel=error), name
        assert abs(weight.mean().item()) < 4 * std / math.sqrt(weight.numel()), name
    if config.tie_word_embeddings:
        assert model.lm_head.weight is next(iter(model.parameters()))


@CONFIGS
def test_the_seed_fixes_the_weights_and_nothing_else_does(config) -> None:
    torch.manual_seed(1)
    one = bits(fresh(config, 5).state_dict())
    torch.manual_seed(2)
    assert bits(fresh(config, 5).state_dict()) == one != bits(fresh(config, 6).state_dict())


@CONFIGS
def test_it_begins_near_the_loss_of_chance(config) -> None:
    rows = random_rows(1, 20, vocab=256)
    assert answer_loss(fresh(config, 1), rows) == pytest.approx(math.log(256), abs=0.1)


def test_a_family_that_is_only_read_is_refused() -> None:
    with assert_refused("qwen2", "cannot be pretrained", "gpt2 or llama"):
        fresh(Qwen2Config(**SHAPE, rms_norm_eps=1e-6, rope_theta=1e4), 1)
