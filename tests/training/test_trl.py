"""DPO, ORPO and KTO beside TRL's trainers: losses and gradients of the same LoRA on the same tokens."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, disable_progress_bars
from peft import PeftConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from small_llama import save_peft
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from riyaz.data.rows import Row
from riyaz.layers.fast.masters import Masters
from riyaz.layers.swaps import lora
from riyaz.models import load
from riyaz.preferences import dpo, kto, orpo
from riyaz.sources import open_source
from riyaz.train import Objective, micro_batches

SEED = 4  # with which the reference point of KTO is above 0
LOSS, GRADIENT = 1e-5, 1e-4  # relative
SETTINGS: Mapping[str, Any] = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [], "disable_tqdm": True,
    "save_strategy": "no", "max_length": None,
}  # fmt: skip
TEXTS = [
    ("where is order 7", "money payment", "the order did arrive, thank you"),
    ("refund", "the refund did arrive", "no"),
    ("thank you for the payment", "order the", "where is the the money of order"),
]


@pytest.fixture
def adapter(model_folder: Path, tmp_path: Path) -> Path:
    """A LoRA that has moved the tiny model, in PEFT's form."""
    save_peft(_ours(model_folder), tmp_path, base=str(model_folder), alpha=8)
    return tmp_path


def _ours(folder: Path) -> Any:
    model = load(open_source(folder), torch.float32)
    lora.apply(model, r=4, alpha=8, seed=3)
    generator = torch.Generator().manual_seed(SEED)
    for _, layer in lora.lora_layers(model):
        nn.init.normal_(layer.lora_B, std=0.05, generator=generator)
    return model


def _loss_and_gradients(
    folder: Path, objective: Objective, rows: Sequence[Row], budget: int
) -> tuple[float, dict[str, Tensor]]:
    """The mean loss of rows that are one step, in micro-batches of `budget` tokens."""
    model = _ours(folder)
    masters, loss_of, total = Masters(model, torch.float32), objective(model, rows, budget), 0.0
    for micro in micro_batches(rows, budget):
        loss = loss_of(model, micro, masters.sums) / len(rows)
        loss.backward()
        total += loss.item()
    gradients = {name: masters.sums.of(weight) for name, weight in model.named_parameters() if weight.requires_grad}
    return total, {name: gradient for name, gradient in gradients.items() if gradient is not None}


def _trainer(kind: Any, config: Any, folder: Path, adapter: Path, rows: Sequence[Mapping[str, Any]], **own: Any) -> Any:
    disable_progress_bars()
    peft_config = PeftConfig.from_pretrained(adapter)
    peft_config.inference_mode = False
    trainer = kind(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=config(output_dir=str(adapter / "out"), **{**SETTINGS, **own}), train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder), peft_config=peft_config,
    )  # fmt: skip
    # only now, as an adapter that comes with the model would be its own reference
    set_peft_model_state_dict(trainer.model, load_file(adapter / "adapter_model.safetensors"))
    return trainer


def _theirs(loss: Tensor, model: nn.Module) -> tuple[float, dict[str, Tensor]]:
    loss.backward()
    named = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    return loss.item(), {
        name.removeprefix("base_model.model.").replace(".default.weight", ""): grad
        for name, grad in named.items() if grad is not None
    }  # fmt: skip


def _assert_equal(ours: tuple[float, dict[str, Tensor]], theirs: tuple[float, dict[str, Tensor]]) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=LOSS)
    assert ours[1].keys() == theirs[1].keys() and len(ours[1]) == 2 * 14
    for name, gradient in theirs[1].items():
        assert gradient.abs().max() > 1e-5, name
        assert (ours[1][name] - gradient).abs().max() <= GRADIENT * gradient.abs().max(), name


@pytest.mark.parametrize(("kind", "normalised"), [("sigmoid", False), ("sigmoid_norm", True)])
def test_dpo(kind: str, normalised: bool, model_folder: Path, adapter: Path) -> None:
    pairs = [{"prompt": prompt, "chosen": better, "rejected": worse} for prompt, better, worse in TEXTS]
    trainer = _trainer(DPOTrainer, DPOConfig, model_folder, adapter, pairs, loss_type=[kind], beta=0.2)
    encoded = list(trainer.train_dataset)
    theirs = _theirs(trainer.compute_loss(trainer.model, trainer.data_collator(encoded)), trainer.model)
    rows = [Row(tuple(row["prompt_ids"]), tuple(row["chosen_ids"]), rejected=tuple(row["rejected_ids"]))
            for row in encoded]  # fmt: skip
    for budget in (30, 10**6):
        _assert_equal(_loss_and_gradients(model_folder, dpo(0.2, normalised), rows, budget), theirs)


def test_kto(model_folder: Path, adapter: Path) -> None:
    """Its trainer pairs every prompt with the answer before it in the batch too."""
    thumbs = [{"prompt": prompt, "completion": answer, "label": good}
              for prompt, *answers in TEXTS for answer, good in zip(answers, (True, False))][:-1]  # fmt: skip
    own = {"beta": 0.2, "desirable_weight": 1.1, "undesirable_weight": 1.4, "per_device_train_batch_size": len(thumbs)}
    trainer = _trainer(KTOTrainer, KTOConfig, model_folder, adapter, thumbs, **own)
    encoded = list(trainer.train_dataset)
    theirs = _theirs(trainer.compute_loss(trainer.model, trainer.data_collator(encoded)), trainer.model)
    assert trainer._metrics["train"]["kl"][-1] > 0, "else the reference point plays no part"
    rows = [Row(tuple(row["prompt_ids"]), tuple(row["completion_ids"]), desirable=row["label"]) for row in encoded]
    for budget in (30, 10**6):
        _assert_equal(_loss_and_gradients(model_folder, kto(0.2, 1.1, 1.4), rows, budget), theirs)


def test_orpo(model_folder: Path, adapter: Path) -> None:
    """Its trainer counts the prompt's tokens in the answer's loss, and means over those of the batch: so each pair is a
    batch, behind a prompt of one token."""
    pairs = [{"prompt": prompt, "chosen": better, "rejected": worse} for prompt, better, worse in TEXTS]
    trainer = _trainer(ORPOTrainer, ORPOConfig, model_folder, adapter, pairs, beta=0.2, remove_unused_columns=False)
    encode: Callable[[str], list[int]] = lambda text: [*trainer.processing_class(text)["input_ids"], 2]  # noqa: E731
    rows = [Row((encode(prompt)[0],), tuple(encode(better)), rejected=tuple(encode(worse)))
            for prompt, better, worse in TEXTS]  # fmt: skip
    losses = []
    for row in rows:
        batch: dict[str, Tensor] = {}
        for side, answer in (("chosen", row.answer), ("rejected", row.rejected)):
            tokens = torch.tensor([[*row.prompt, *answer]])
            batch |= {f"{side}_input_ids": tokens, f"{side}_attention_mask": torch.ones_like(tokens),
                      f"{side}_labels": torch.tensor([[-100, *answer]])}  # fmt: skip
        losses.append(trainer.get_batch_loss_metrics(trainer.model, batch)[0])
    theirs = _theirs(torch.stack(losses).mean(), trainer.model)
    for budget in (30, 10**6):
        _assert_equal(_loss_and_gradients(model_folder, orpo(0.2), rows, budget), theirs)
