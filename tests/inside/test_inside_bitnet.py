"""What the engines hand out from inside a pass of a BitNet, whose linears are ternary, beside transformers.

Rounding makes these models discontinuous: where two implementations differ in the last bit of an input of a linear, it
may get another code of 8 bits. The seed is one where no input lies so near to a border."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
import torch
from native_models import ours, theirs
from safetensors.numpy import save_file
from transformers import BitNetConfig, BitNetForCausalLM
from transformers.integrations.bitnet import pack_weights

from riyaz.engine.runner import Lens, TokenRun
from riyaz.families import describe
from riyaz.inside.attention import weights
from riyaz.inside.reading import windows
from riyaz.layers.swaps.ternary import ternary_codes
from riyaz.sources.source import open_path

NEAR = 1e-4  # of the size of what is compared
TOKENS = (5, 7, 20, 13, 40, 9, 55, 31, 12, 60)
ROW = 6
RUNNERS = {"C++": ours, "torch": theirs}
MASTERS = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
CODES = MASTERS | {"quantization_mode": "offline"}


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """transformers compiles its rounding, which takes a compiler and half a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


def write(folder: Path, quantised: dict[str, Any]) -> Path:
    """A random BitNet: its floats, or packed codes with their scale."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BitNetConfig(
            vocab_size=tiny_llama.Tiny().vocab, hidden_size=256, intermediate_size=512, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
            bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        model = BitNetForCausalLM(config)
        state = {}
        for name, value in model.state_dict().items():
            if name == "lm_head.weight":
                continue
            state[name] = (0.05 if value.ndim > 1 else 0.3) * torch.randn(value.shape) + (value.ndim == 1)
            if quantised == CODES and "layers" in name and value.ndim > 1:
                codes, scale = ternary_codes(state[name])
                state[name], state[f"{name}_scale"] = pack_weights(codes.float()), scale.view(1)
    save_file({name: value.contiguous().numpy() for name, value in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"quantization_config": quantised}))
    return folder


def apart(one: np.ndarray, two: np.ndarray) -> float:
    """The largest difference ÷ the largest size."""
    return float(np.abs(one - two).max() / max(1.0, np.abs(two).max()))


@pytest.mark.parametrize("engine", RUNNERS)
@pytest.mark.parametrize("quantised", [MASTERS, CODES], ids=["masters", "codes"])
def test_numbers_of_a_bitnet_are_those_of_transformers(tmp_path: Path, engine: str, quantised: dict[str, Any]) -> None:
    folder = write(tmp_path, quantised)
    oracle = BitNetForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    family = describe(open_path(folder))
    with torch.no_grad():
        wanted = oracle(torch.tensor([TOKENS]), output_hidden_states=True, output_attentions=True)
        hidden = [state[0] for state in wanted.hidden_states]
        last = torch.stack([state[ROW] for state in hidden[:-1]])  # the last one is normed already
        lens = oracle.lm_head(torch.cat([oracle.model.norm(last), hidden[-1][ROW : ROW + 1]])).log_softmax(1).numpy()
    runner = RUNNERS[engine](folder)
    log_p, trace = runner.traced(TokenRun(runner.open(), TOKENS, Lens(ROW)))
    for layer, state in enumerate(hidden[:-1]):
        assert apart(trace.residual[2 * layer], state.numpy()) <= NEAR, layer
    behind = oracle.model.norm(torch.from_numpy(trace.residual[-1])).detach().numpy()
    assert apart(behind, hidden[-1].numpy()) <= NEAR
    for layer, window in enumerate(windows(family)):
        assert apart(weights(trace, layer, window), wanted.attentions[layer][0].numpy()) <= NEAR, layer
    assert apart(log_p, lens) <= NEAR
