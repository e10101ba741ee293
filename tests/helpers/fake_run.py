"""What the tests of the pretraining page share: a plausible run as `riyaz pretrain` writes it, and one that attacks."""

import json
import math
import random
from pathlib import Path
from typing import Any

from fake_page import ATTACKS

from riyaz.json_files import from_json
from riyaz.report.pretraining import html as run_page
from riyaz.results import PretrainRun, Samples, StepMetrics

STEPS, EVERY, VOCABULARY, BYTES = 1200, 60, 4096, 3.61  # validations every EVERY steps; bytes of text per token
SAMPLED = (0, 60, 120, 240, 360, 480, 600, 720, 840, 960, 1080, 1200)
PROMPTS = ("Once upon a time", "The quick brown fox", "In the morning")
WORDS = (
    *("the", "and", "of", "to", "a", "in", "that", "was", "his", "her", "with", "said", "it", "upon", "door", "night"),
    *("street", "little", "hand", "very", "before", "which", "window", "man", "had", "been", "from", "face"),
)
LATE = (" jumped", " was", " of", " ran", ",", " and", " in", " is", "\n", " that")


def loss_at(step: float) -> float:
    """Nats per token on validation: ln V at first, then a power law."""
    return 3.35 + (math.log(VOCABULARY) - 3.35) / (1 + step / 45) ** 0.75


def metrics(steps: int = STEPS) -> list[dict[str, Any]]:
    """One line a step; validations with bits per byte every EVERY steps."""
    dice, lines = random.Random(7), []
    for step in range(1, steps + 1):
        rate = 1e-3 * min(step / 72, 0.55 + 0.45 * math.cos(math.pi * step / STEPS))
        entry = {
            "step": step, "loss": loss_at(step) - 0.05 + dice.gauss(0, 0.06), "norm": 0.8 + dice.random(),
            "learning_rate": rate, "seconds": 0.72 * step, "tokens_s": 11300 + dice.gauss(0, 220),
            "peak_share": 0.412 + dice.gauss(0, 0.008),
        }  # fmt: skip
        if step % EVERY == 0 or step == steps:
            entry["valid_loss"] = loss_at(step)
            entry["bits_per_byte"] = loss_at(step) / math.log(2) / BYTES
        lines.append(entry)
    return lines


def samples() -> list[dict[str, Any]]:
    """Noise before training, words later; the next word begins flat and sharpens."""
    dice, lines = random.Random(8), []
    for step in SAMPLED:
        done = step / STEPS
        texts = []
        for prompt in PROMPTS:
            pieces = [
                f" {dice.choice(WORDS)}" if dice.random() < 0.2 + done
                else "".join(chr(dice.randrange(33, 122)) for _ in range(3))
                for _ in range(45)
            ]  # fmt: skip
            texts.append({"prompt": prompt, "text": "".join(pieces) + ("\n\n“Well,” said he." if step else "")})
        flat = [{"text": f"{dice.choice('qxzkv')}{place}", "p": (1.4 - place / 20) / VOCABULARY} for place in range(10)]
        sharp = [{"text": text, "p": 0.19 * (0.3 + 0.7 * done) / (1 + place)} for place, text in enumerate(LATE)]
        mixed = sharp if done >= 0.3 else [*sharp[3:6], *sharp[1:3], *flat[:5]]
        lines.append({"step": step, "texts": texts, "next": {"prompt": PROMPTS[1], "words": mixed if step else flat}})
    return lines


def run(**changed: Any) -> dict[str, Any]:
    """run.json of a run that is done."""
    done = {
        "status": "done", "command": "riyaz pretrain books --budget 15m --out first", "resumed": [], "paths": ["books"],
        "asked": {"budget": 900.0}, "seed": 0,
        "versions": {"riyaz": "0.1.0", "python": "3.11.2", "torch": "2.13.0"},
        "hardware": {"cpu": "A CPU", "cores": 2, "memory_mb": 8192},
        "text": {"files": 2, "bytes": 24_310_118, "tokens": 6_734_104,
                 "train_tokens": 6_397_440, "valid_tokens": 336_664, "near_duplicates": 3, "sha256": "ab" * 32},
        "tokenizer": {"kind": "bpe", "vocab": VOCABULARY, "sha256": "cd" * 32},
        "model": {"family": "llama", "layers": 6, "heads": 4, "width": 256, "context": 256, "parameters": 5_246_208},
        "derived": [
            {"name": "parameters", "value": 5_246_208, "why": "about 20 tokens per parameter in 15 minutes "
             "at the measured 11,300 tokens a second (Hoffmann et al. 2022)"},
            {"name": "learning_rate", "value": 0.001, "why": "falls with the square root of the width"},
            {"name": "steps", "value": STEPS, "why": "864 s of training at 0.72 s a step, measured"},
        ],
        "plan": {"steps": STEPS, "batch_size": 32, "learning_rate": 0.001, "dropout": 0.0, "weight_decay": 0.1,
                 "validate_every": EVERY, "valid_windows": 64},
        "cost": {"seconds": 889.4, "flops": 3.3e14, "tokens": 9_830_400, "tokens_s": 11_302.0, "peak_share": 0.412,
                 "peak_rss_mb": 1_384.2},
        "result": {"valid_loss": loss_at(STEPS), "bits_per_byte": loss_at(STEPS) / math.log(2) / BYTES,
                   "windows": 64, "best_step": STEPS, "logit_difference": 1e-5},
    }  # fmt: skip
    return done | changed


def typed(made: dict[str, Any]) -> PretrainRun:
    """The run as the report takes it."""
    return from_json(PretrainRun, made, "run.json")


def typed_metrics(lines: list[dict[str, Any]]) -> list[StepMetrics]:
    """Lines of metrics.jsonl as the report takes them."""
    return [from_json(StepMetrics, line, "metrics.jsonl") for line in lines]


def typed_samples(lines: list[dict[str, Any]]) -> list[Samples]:
    """Lines of samples.jsonl as the report takes them."""
    return [from_json(Samples, line, "samples.jsonl") for line in lines]


def page(made: dict[str, Any], metrics: list[dict[str, Any]], samples: list[dict[str, Any]]) -> str:
    """report.html of a run."""
    return run_page.html(typed(made), typed_metrics(metrics), typed_samples(samples))


def attacked() -> tuple[dict[str, Any], list[dict], list[dict]]:
    """The same with an attack wherever a user's, a file's or the model's text can stand."""
    made, lines = run(command=" ".join(ATTACKS)), samples()
    for name in ("versions", "hardware"):
        made[name] = dict.fromkeys(ATTACKS, ATTACKS[3])
    made["plan"] |= dict.fromkeys(ATTACKS, ATTACKS[3])
    made["text"] |= {"sha256": ATTACKS[4]}
    made["tokenizer"] |= {"kind": ATTACKS[5]}
    made["model"] |= {"family": ATTACKS[8]}
    made["derived"] = [{"name": text, "value": text, "why": text} for text in ATTACKS]
    for line in lines:
        line["texts"] = [{"prompt": text, "text": text * 2} for text in ATTACKS]
        line["next"] = {"prompt": ATTACKS[2], "words": [{"text": text, "p": 0.05} for text in ATTACKS[:10]]}
    return made, metrics(120), lines


def write(folder: Path, made: dict | None = None, lines: list | None = None, texts: list | None = None) -> Path:
    """The folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(made or run()), encoding="utf-8")
    for name, entries in (("metrics", lines or metrics()), ("samples", texts or samples())):
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder
