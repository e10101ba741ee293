"""A LoRA as mlx-lm reads it (`mlx_lm.generate --adapter-path`)."""

from pathlib import Path

from riyaz.export.check import Written, checked, logits
from riyaz.export.targets import Opened, adapted


def write(opened: Opened, work: Path) -> Written:
    """The folder of the adapter alone, float32."""
    from riyaz.layers import lora, lora_mlx

    tokenizer, model = opened.source.tokenizer(), adapted(opened, "mlx-lm")
    wanted, layers = logits(model, tokenizer), model.config.n_layers
    lora_mlx.save(lora.pairs(model), work, base=opened.base_name(), n_layers=layers)
    del model
    found = logits(Opened(opened.target, opened.source, work).model(), tokenizer)
    return checked(wanted, found, work, "mlx", "float32")
