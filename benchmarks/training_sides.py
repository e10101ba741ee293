"""The sides of benchmarks/training.py: one measurement of riyaz, or of a peer, in the process that calls it."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import training_limits

from riyaz.hardware import MB, peak_rss

BATCH, RANK, ALPHA, VECTORS, SEED = 8, 16, 32, 20, 0
RATES = {"lora": 2e-4, "full": 2e-5, "prompt_tuning": 2e-2}
FOLDERS = {"lora": "adapter", "prompt_tuning": "prompt"}  # PEFT's, that both sides start from
LabelledTokens = tuple[list[int], int]  # tokens of a row, and the length of its prompt


def order(rows: int) -> list[list[int]]:
    """The rows of each step, for both sides: the order in which riyaz's loop takes them."""
    from riyaz.data.packing import batch

    return [batch(rows, BATCH, SEED, step) for step in range(rows // BATCH)]


def by_length(lengths: list[int]) -> list[list[int]]:
    """Steps of rows of similar length, for the tuned peer. Those of middle lengths come first and last, which are not
    timed, so that the others hold as long rows as they would in any order."""
    places = sorted(range(len(lengths)), key=lambda i: lengths[i])
    steps = [places[i : i + BATCH] for i in range(0, len(places) - BATCH + 1, BATCH)]
    middle = len(steps) // 2
    first, last = steps[middle], steps[middle - 1]
    rest = [step for step in steps if step is not first and step is not last]
    shuffled = np.random.default_rng(SEED).permutation(len(rest))
    return [first, *(rest[i] for i in shuffled), last]


def tokens_s(lengths: list[int], times: list[float], steps: list[list[int]]) -> float:
    """Real tokens a second from the clock before the first step and after each.

    The first step warms up, and riyaz's last one also validates and saves: neither counts.
    """
    assert len(times) == len(steps) + 1
    timed = sum(lengths[i] for picked in steps[1:-1] for i in picked)
    return timed / (times[-2] - times[1])


def measure_limit(method: str, dtype: str, folder: Path) -> dict:
    """The rate of matrix products in a type, whatever the method."""
    return {"flops_s": training_limits.rate(dtype)}


def measure_riyaz(method: str, dtype: str, folder: Path) -> dict:
    """The product's own loop on the product's own model."""
    from riyaz.data.rows import Row
    from riyaz.events import Event
    from riyaz.families import describe
    from riyaz.methods.fitting.recipe import pass_tokens
    from riyaz.sources import open_source
    from riyaz.train import TrainPlan, micro_batches, train

    rows = [Row(tuple(t[:p]), tuple(t[p:])) for t, p in json.loads((folder / "rows.json").read_text())]
    model = riyaz_model(method, dtype, folder)
    config = describe(open_source(folder / "model")).config
    plan = TrainPlan(steps=len(rows) // BATCH, learning_rate=RATES[method], batch_size=BATCH, warmup=0.0,
                     compute=dtype, validate_every=10**6, checkpoint_every=10**6, micro_tokens=pass_tokens(config),
                     seed=SEED)  # fmt: skip
    times, losses = [time.perf_counter()], []

    def listen(event: Event) -> None:
        times.append(time.perf_counter())
        losses.append(event.loss)

    with tempfile.TemporaryDirectory() as run:
        train(model, rows, rows[:1], plan, Path(run), listen)
    rss, steps = peak_rss() / MB, order(len(rows))
    packed = [list(micro_batches([rows[i] for i in picked], plan.micro_tokens)) for picked in steps[1:-1]]
    shape = training_limits.shape_of(open_source(folder / "model"))
    counted = training_limits.steps_flops(shape, packed, method, RANK, VECTORS)
    lengths = [len(row.prompt) + len(row.answer) for row in rows]
    return {"tokens_s": tokens_s(lengths, times, steps), "rss_mb": rss, "losses": losses,
            "flops_s": counted / (times[-2] - times[1])}  # fmt: skip


def riyaz_model(method: str, dtype: str, folder: Path) -> Any:
    """The model as riyaz trains it, with the first adapter."""
    import torch

    from riyaz import adapters
    from riyaz.families import describe
    from riyaz.layers.swaps import lora, soft_prompt
    from riyaz.models import load, load_frozen
    from riyaz.sources import open_source

    source = open_source(folder / "model")
    model = load_frozen(source, getattr(torch, dtype)) if method in FOLDERS else load(source, torch.float32)
    if method in FOLDERS:
        adapter = adapters.read(folder / FOLDERS[method], describe(source))
        if adapter.soft_prompt is None:
            lora.attach(model, adapter)
        else:
            model = soft_prompt.attach(model, adapter.soft_prompt)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(method not in FOLDERS or "lora_" in name or name == "prompt")
    return model


def measure_plain(method: str, dtype: str, folder: Path) -> dict:
    """The usual loop: batches padded to their longest row, AdamW, clipping; PEFT for adapters."""
    return measure_peer(method, dtype, folder, tuned=False)


def measure_tuned(method: str, dtype: str, folder: Path) -> dict:
    """The same loop by somebody who tunes it: steps of rows of similar length, logits at labelled places only."""
    return measure_peer(method, dtype, folder, tuned=True)


def measure_peer(method: str, dtype: str, folder: Path, tuned: bool) -> dict:
    """Transformers + PEFT in torch's eager mode."""
    import torch

    rows = json.loads((folder / "rows.json").read_text())
    model = peer_model(method, dtype, folder)
    weights = [p for p in model.parameters() if p.requires_grad]
    loss_of = labelled_loss(model) if tuned else plain_loss(model)
    optimizer = torch.optim.AdamW(weights, lr=RATES[method], weight_decay=0.0)
    lengths = [len(tokens) for tokens, _ in rows]
    steps = by_length(lengths) if tuned else order(len(rows))
    times, losses = [time.perf_counter()], []
    for step, places in enumerate(steps):
        loss = loss_of(*padded([rows[i] for i in places]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimizer.param_groups:  # riyaz's schedule, so that the curves can be laid on each other
            group["lr"] = RATES[method] * schedule(step, len(steps))
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
        losses.append(loss.item())
    return {"tokens_s": tokens_s(lengths, times, steps), "rss_mb": peak_rss() / MB, "losses": losses}


def peer_model(method: str, dtype: str, folder: Path) -> Any:
    """The model of transformers with PEFT's first adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=getattr(torch, dtype))
    if method in FOLDERS:
        model = PeftModel.from_pretrained(model, folder / FOLDERS[method], is_trainable=method == "lora")
    for name, parameter in model.named_parameters():
        if "prompt_encoder" in name:  # which PEFT does not let train on when it is loaded
            parameter.requires_grad_(True)
    return model.train()


def padded(picked: list[LabelledTokens]) -> tuple[Any, Any, Any]:
    """Ids, mask and labels (B, T), padded at the end; −100 labels nothing."""
    import torch

    width = max(len(tokens) for tokens, _ in picked)
    ids = torch.zeros(len(picked), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (tokens, prompt) in enumerate(picked):
        ids[i, : len(tokens)], mask[i, : len(tokens)] = torch.tensor(tokens), 1
        labels[i, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
    return ids, mask, labels


def plain_loss(model: Any) -> Any:
    return lambda ids, mask, labels: model(input_ids=ids, attention_mask=mask, labels=labels).loss


def labelled_loss(model: Any) -> Any:
    """The same loss from logits at the labelled places only: the head is taken off the model, which then returns hidden
    states where it returned logits."""
    import torch
    import torch.nn.functional as F

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    weight, base.lm_head = base.lm_head.weight, torch.nn.Identity()
    cap = getattr(base.config, "final_logit_softcapping", None)
    assert cap is None, "hidden states would be capped"

    def loss(ids: Any, mask: Any, labels: Any) -> Any:
        hidden = model(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]  # without a soft prompt's
        wanted = labels[:, 1:] != -100
        return F.cross_entropy(F.linear(hidden[:, :-1][wanted], weight).float(), labels[:, 1:][wanted])

    return loss


def schedule(step: int, steps: int) -> float:
    """The factor on the learning rate that riyaz uses."""
    from riyaz.train import TrainPlan, learning_rate

    return learning_rate(TrainPlan(steps=steps, learning_rate=1.0, warmup=0.0), step)
