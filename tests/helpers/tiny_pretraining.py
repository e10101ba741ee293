"""Tiny pretraining runs for tests: a text of made-up sentences, and a machine that is measured in no time."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from riyaz.events import Event
from riyaz.pretraining import run as running
from riyaz.pretraining import speed
from riyaz.report.comparison import terminal
from riyaz.report.pretraining import html
from riyaz.sources import open_source

# two layers, 32 windows of the text at most, six steps
SMALL = ("--tokenizer", "bytes", "--layers", 2, "--width", 32, "--heads", 2, "--context", 32, "--batch", 4,
         "--steps", 6, "--validate-every", 3, "--compute", "float32")  # fmt: skip
SUBJECTS = ("The baker", "A river", "My aunt", "The old clock", "One letter", "The fox", "Nobody", "Her brother")
VERBS = ("sees", "carries", "forgets", "paints", "answers", "follows", "measures", "buys")
OBJECTS = ("the bread", "a red boat", "twelve stones", "the morning", "an old song", "the field", "a lamp", "no one")


def small(*options: object) -> tuple[object, ...]:
    """The options of SMALL, with others in place of those of the same name."""
    pairs = dict(zip(SMALL[::2], SMALL[1::2])) | dict(zip(options[::2], options[1::2]))
    return tuple(part for pair in pairs.items() for part in pair)


def words(seed: int, count: int) -> str:
    """About `count` words of text."""
    draw = random.Random(seed)
    sentences = [f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)}." for _ in range(count // 5)]
    return "".join(sentence + draw.choice("  \n") for sentence in sentences) + "\n"


def texts(folder: Path) -> Path:
    """The folder with two files of text in it."""
    (folder / "one.txt").write_text(words(1, 900))
    (folder / "two.md").write_text(words(2, 900))
    return folder


PICTURE = html._figure  # draws one


def quick_machine(patch: pytest.MonkeyPatch) -> None:
    """Measure with few steps and small products, tell of every step, and draw no picture in the report, which takes as
    long as all else of a tiny run; `with_pictures` draws them."""
    patch.setattr(html, "_figure", lambda *parts: None)
    patch.setattr(terminal, "LINE_SECONDS", 0)
    patch.setattr(speed, "STEPS", 3)
    patch.setattr(speed, "STEP_TOKENS", 128)
    patch.setattr(speed, "PEAK_SIZE", 64)
    patch.setattr(speed, "PEAK_SECONDS", 0.001)


def with_pictures(patch: pytest.MonkeyPatch) -> None:
    """Draw the report's pictures."""
    patch.setattr(html, "_figure", PICTURE)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Stopped(Exception):
    """What stands for a kill: nothing of ours catches it."""


def stop_at(step: int, patch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let a run end with the error after so many steps."""
    listen = running.Watch.listen

    def stopping(watch: running.Watch, event: Event) -> None:
        listen(watch, event)
        if watch.run.step == step:
            raise error

    patch.setattr(running.Watch, "listen", stopping)


def assert_equal_logits(out: Path) -> None:
    """transformers reads the folder and computes what we compute."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from riyaz.export.check import PROBE, logits
    from riyaz.models import load

    source = open_source(out)
    ours = logits(load(source, torch.float32), source.tokenizer())
    theirs = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(out)(PROBE)["input_ids"][:32]
    assert ids == source.tokenizer().encode(PROBE)[:32]
    with torch.inference_mode():
        wanted = theirs(torch.tensor([ids])).logits[0]
    assert torch.allclose(ours, wanted, atol=2e-5)
