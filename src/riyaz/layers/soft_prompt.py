"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): trained vectors before every row, the model as it was.

The vectors stand once before all rows of a pass, so that their keys and values are computed once. Files are PEFT's.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riyaz.errors import RiyazError
from riyaz.layers import peft
from riyaz.layers.attention import PackedAttention

KEY = "prompt_embeddings"


class SoftPrompt(nn.Module):
    """A frozen model behind P trainable vectors; it is asked as the model is, and has P places less."""

    def __init__(self, base: Any, prompt: Tensor) -> None:
        super().__init__()
        self.base = base
        self.prompt = nn.Parameter(prompt)  # (P, C)
        self.config = replace(base.config, context=base.config.context - len(prompt))

    @property
    def lm_head(self) -> nn.Module:
        """The base's."""
        return self.base.lm_head

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (N, V) of hidden states (N, C)."""
        return self.base.head(hidden)

    def forward(self, tokens: Tensor, positions: Tensor, attend: PackedAttention) -> Tensor:
        """Hidden states (T, C) of rows of tokens (T,) that all stand behind the prompt."""
        P = len(self.prompt)
        rows = self.base.embed(tokens)
        stream = torch.cat((self.prompt.to(rows.dtype), rows))  # (P + T, C)
        places = torch.cat((torch.arange(P), positions + P))
        return self.base(None, places, attend.behind(P), embeddings=stream)[P:]


def apply(model: Any, tokens: Sequence[int]) -> SoftPrompt:
    """The model behind a prompt that begins as the embeddings of these tokens, so that step 0 is a text's."""
    assert 0 < len(tokens) < model.config.context
    return SoftPrompt(model, model.embed(torch.tensor(tokens)).detach().float().clone())


def save_peft(model: SoftPrompt, folder: Path, *, base: str) -> None:
    """Write the prompt as PEFT reads it; a float32 tensor."""
    known = model.config
    config: dict[str, Any] = {
        "peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "base_model_name_or_path": base,
        "num_virtual_tokens": len(model.prompt), "token_dim": model.prompt.shape[1],
        "num_transformer_submodules": 1, "num_attention_heads": known.n_heads, "num_layers": known.n_layers,
        # "TEXT" would make PEFT look for a tokenizer, and the file's vectors replace its work anyway
        "prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": None, "tokenizer_name_or_path": None,
        "inference_mode": True,
    }  # fmt: skip
    peft.write(folder, config, {KEY: model.prompt})


def load_peft(model: Any, folder: Path) -> SoftPrompt:
    """The model behind the prompt of a PEFT folder. Raises RiyazError when they do not fit each other."""
    config = read_config(folder / peft.CONFIG)
    file = peft.open_weights(folder)
    count, size = config.get("num_virtual_tokens"), config.get("token_dim")
    width, context = model.config.hidden_size, model.config.context
    if set(file.tensors) != {KEY} or file.tensors[KEY].dtype not in peft.FLOATS:
        problem = f"its tensors are {', '.join(sorted(file.tensors)) or 'none'}, not {KEY} alone in floats"
    elif file.tensors[KEY].shape != (count, size):
        problem = f"{KEY} is {file.tensors[KEY].shape}, the configuration says {count!r:.20} × {size!r:.20}"
    elif size != width or not 0 < file.tensors[KEY].shape[0] < context:
        problem = f"it has {count} vectors of {size}, the model has {width} to a token and {context} places"
    else:
        return SoftPrompt(model, peft.read_float(file, KEY)).requires_grad_(False)
    raise RiyazError(f"the soft prompt does not fit the base: {problem}", str(folder))


def read_config(path: Path) -> dict[str, Any]:
    """A PEFT configuration of plain prompt tuning. Raises RiyazError for any other."""
    config = peft.read_config(path)
    if config.get("peft_type") != "PROMPT_TUNING":
        what = f"peft_type is {config.get('peft_type')!r:.60}, not 'PROMPT_TUNING'"
    elif config.get("num_transformer_submodules") not in (1, None):
        what = f"num_transformer_submodules is {config['num_transformer_submodules']!r:.60}, not 1"
    elif config.get("modules_to_save"):
        what = "this soft prompt uses modules_to_save"
    else:
        return config
    raise RiyazError(what, str(path), "riyaz reads prompt tuning of one decoder")
