"""The peer of benchmarks/comparison.py: one arm by transformers + PEFT, as somebody who knows them would write it.

    python benchmarks/comparison_peer.py METHOD TYPE JOB

Rows are tokenised by the chat template; training pads batches of 8 to their longest row, AdamW with a cosine after a
warm-up, clipping at 1; answers are generated greedily in batches of 8 until the end of the turn. In bfloat16 adapters
stand on a bfloat16 model; full fine-tuning keeps float32 weights under autocast, as small steps are lost in bfloat16.
JOB is a JSON file that comparison.py writes. The last line is one JSON document. Imports nothing of riyaz.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup
from transformers.utils import logging


def main() -> None:
    """Run one arm."""
    method, dtype, path = sys.argv[1:]
    job = json.loads(Path(path).read_text())
    torch.manual_seed(job["seed"])
    logging.disable_progress_bar()
    began = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    weights = torch.float32 if method == "full" else getattr(torch, dtype)
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=weights)
    seconds, steps = {"load": time.perf_counter() - began}, 0
    with torch.autocast("cpu", torch.bfloat16, enabled=weights != getattr(torch, dtype)):
        if method in job["rates"]:
            began = time.perf_counter()
            model = adapted(model, method, job)
            steps = train(model, tokenizer, job, job["rates"][method])
            model = model.merge_and_unload() if method == "lora" else model
            seconds["train"] = time.perf_counter() - began
        began = time.perf_counter()
        answers = answer(model, tokenizer, job["test"].get(method, job["test"]["plain"]), job)
        seconds["answer"] = time.perf_counter() - began
    print(json.dumps({"answers": answers, "rss_mb": peak_mb(), "steps": steps, "seconds": seconds}))


def adapted(model: Any, method: str, job: dict[str, Any]) -> Any:
    if method == "lora":
        config = LoraConfig(task_type="CAUSAL_LM", r=job["rank"], lora_alpha=job["alpha"], target_modules="all-linear")
        return get_peft_model(model, config)
    if method == "prompt_tuning":
        return get_peft_model(model, PromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=job["vectors"], prompt_tuning_init="TEXT",
            prompt_tuning_init_text=job["instruction"], tokenizer_name_or_path=job["model"],
        ))  # fmt: skip
    return model


def train(model: Any, tokenizer: Any, job: dict[str, Any], rate: float) -> int:
    """Train on the job's rows for its epochs; returns the steps."""
    rows = [tokens_of(tokenizer, messages, answer) for messages, answer in job["train"]]
    loader = torch.utils.data.DataLoader(rows, job["batch"], shuffle=True, collate_fn=lambda r: padded(tokenizer, r))
    steps = job["epochs"] * len(loader)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(0.06 * steps), steps)
    model.train()
    for _ in range(job["epochs"]):
        for batch in loader:
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return steps


def tokens_of(tokenizer: Any, messages: list[dict[str, str]], answer: str) -> tuple[list[int], int]:
    """(tokens of the prompt and the answer, length of the prompt)."""
    prompt = tokenizer(prompt_of(tokenizer, messages), add_special_tokens=False).input_ids
    labelled = tokenizer(answer + tokenizer.eos_token, add_special_tokens=False).input_ids
    return prompt + labelled, len(prompt)


def prompt_of(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The conversation as the model reads it, up to where its answer begins."""
    text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text


def padded(tokenizer: Any, rows: list[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
    """Ids, mask and labels (B, T), padded at the end; −100 labels nothing."""
    width = max(len(tokens) for tokens, _ in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (tokens, prompt) in enumerate(rows):
        ids[i, : len(tokens)], mask[i, : len(tokens)] = torch.tensor(tokens), 1
        labels[i, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@torch.inference_mode()
def answer(model: Any, tokenizer: Any, conversations: list[list[dict[str, str]]], job: dict[str, Any]) -> list[str]:
    """The generated answer to each conversation."""
    model.eval()
    tokenizer.padding_side = "left"
    longest = 1 + max(len(ids) for ids in tokenizer(job["labels"], add_special_tokens=False).input_ids)
    answers: list[str] = []
    for batch in batches([prompt_of(tokenizer, messages) for messages in conversations], job["batch"]):
        inputs = tokenizer(batch, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        ids = model.generate(**inputs, max_new_tokens=longest, do_sample=False, pad_token_id=tokenizer.pad_token_id,
                             eos_token_id=tokenizer.eos_token_id)  # fmt: skip
        answers += tokenizer.batch_decode(ids[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in answers]


def batches(texts: list[str], size: int) -> Iterator[list[str]]:
    """Consecutive texts, `size` at a time."""
    for i in range(0, len(texts), size):
        yield texts[i : i + size]


def peak_mb() -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
