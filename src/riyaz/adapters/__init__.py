"""Reading and writing adapter files without torch: `read` returns a folder's numpy tensors as an `Adapter`.

Each format has a module: `peft` and `peft_prompt` for PEFT's LoRA and soft prompts, `mlx` for the folders of mlx-lm,
`gguf` for the files of llama.cpp. `base_for` opens the base model that an adapter names. `riyaz.layers` puts an Adapter
on a torch model.
"""

from pathlib import Path

from riyaz.adapters import gguf, mlx, peft, peft_prompt
from riyaz.adapters.adapter import Adapter, Pair
from riyaz.adapters.folder import CONFIG, WEIGHTS, kind_of
from riyaz.adapters.named_base import base_for, base_of
from riyaz.families import Family, ModelConfig
from riyaz.folders import expect_inside

__all__ = ["CONFIG", "WEIGHTS", "Adapter", "Pair", "base_for", "base_of", "gguf", "mlx", "peft", "peft_prompt", "read"]


def read(folder: Path, family: Family[ModelConfig]) -> Adapter:
    """The adapter in a folder of PEFT (LoRA or prompt tuning) or mlx-lm, for the base `family`
    (`families.describe(source)`). Raises RiyazError, which lists every tensor that does not fit the base; also where a
    file is a link out of the folder."""
    expect_inside(folder, folder.glob("*"))
    kind = kind_of(folder / CONFIG)
    if kind == "prompt":
        return peft_prompt.read(folder, family)
    return mlx.read(folder, family) if kind == "mlx" else peft.read(folder, family)
