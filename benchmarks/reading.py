"""Riyaz and transformers on the same GGUF file: token ids, logits and greedy text of twenty prompts, in float32.

    riyaz pull gemma3-270m --accept-licence
    python benchmarks/reading.py ~/.cache/riyaz/models/gemma3-270m/model.gguf

Each side reads the file, its tokenizer included, with its own reader and goes on with its own cache. Where the texts
part, the two tokens are a tie when each side's logits of them are less than 0.1 apart; what follows is not compared.
The last line is one JSON document; the exit status says whether everything agreed. transformers fills in what the file
does not say from its own defaults, so it is the judge of files in wide use, not of every setting.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

TIE = 0.1  # gap of two logits under which either is a fair choice
LOGITS = 1e-2  # largest difference of a logit in float32; Gemma's have a range of about 30
PROMPTS = (
    "The capital of France is", "Once upon a time there was a", "2, 4, 6, 8,", "def fibonacci(n):\n",
    "Water boils at a temperature of", "The first president of the United States was", "Dear Sir or Madam,\n\nI am",
    "SELECT name, price FROM products WHERE", "The opposite of hot is", "In 1969, two men walked on",
    "Il était une fois, dans un pays lointain,", "La capital de España es", "Der schnelle braune Fuchs springt",
    "भारत की राजधानी", "日本の首都は", "Столица России —", "Ingredients:\n- 2 eggs\n- 100 g flour\n-",
    "for (int i = 0; i < n; i++) {\n\t", "To be, or not to be, that is", "naïve café 🙂 means",
)  # fmt: skip


class Answer(NamedTuple):
    """What one side makes of a prompt: its ids, and the tokens it goes on with."""

    prompt: list[int]
    tokens: list[int]


def main() -> None:
    """Compare one file; prints a line per prompt and the JSON of the worst."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--tokens", type=int, default=20, help="greedy tokens after each prompt")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    result = compare(Riyaz(args.model), Transformers(args.model), args.tokens)
    print(json.dumps(result))
    sys.exit(0 if result["equal"] else 1)


class Riyaz:
    """The file in Riyaz."""

    def __init__(self, path: Path) -> None:
        from riyaz import models
        from riyaz.engine.engine import Engine
        from riyaz.engine.torch.runner import TorchRunner
        from riyaz.sources import open_source

        source = open_source(path)
        self.tokenizer = source.tokenizer()
        self.model = models.load(source, torch.float32)
        self.engine = Engine(TorchRunner(self.model))

    def answer(self, text: str, count: int) -> Answer:
        """Greedy tokens after a text, which begins with BOS where the file says so."""
        from riyaz.engine import Request

        prompt = [*self.tokenizer.beginning, *self.tokenizer.encode(text)]
        # an end token is a token like others: transformers' are others
        return Answer(prompt, self.engine.generate([Request(0, tuple(prompt), limit=count)])[0])

    def logits(self, tokens: list[int]) -> np.ndarray:
        """(T, V) float32."""
        from riyaz.layers.attention import packed

        hidden = self.model(torch.tensor(tokens), torch.arange(len(tokens)), packed([len(tokens)]))
        return self.model.head(hidden).numpy()


class Transformers:
    """The file in transformers."""

    def __init__(self, path: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        file = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
        self.tokenizer = AutoTokenizer.from_pretrained(**file)
        self.model = AutoModelForCausalLM.from_pretrained(**file, dtype=torch.float32).eval()
        self.model.generation_config.eos_token_id = None

    def answer(self, text: str, count: int) -> Answer:
        """Greedy tokens after a text, with what transformers puts before it."""
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        mask = torch.ones_like(ids)
        made = self.model.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0)
        return Answer(ids[0].tolist(), made[0, ids.shape[1] :].tolist())

    def logits(self, tokens: list[int]) -> np.ndarray:
        """(T, V) float32."""
        return self.model(torch.tensor(tokens)[None]).logits[0].numpy()


def compare(ours: Any, theirs: Any, count: int) -> dict[str, Any]:
    """The worst of every comparison over the prompts; `equal` when all of it is within its limit."""
    worst, equal, other_ids, ties, wrong = 0.0, 0, 0, [], []
    for text in PROMPTS:
        mine, wanted = ours.answer(text, count), theirs.answer(text, count)
        row = wanted.prompt + wanted.tokens
        a, b = ours.logits(row), theirs.logits(row)
        apart = float(np.abs(a - b).max())
        worst, other_ids = max(worst, apart), other_ids + (mine.prompt != wanted.prompt)
        place = next((i for i, (x, y) in enumerate(zip(mine.tokens, wanted.tokens)) if x != y), None)
        said = "equal"
        if place is not None and mine.prompt == wanted.prompt:
            at, pair = len(wanted.prompt) + place - 1, [mine.tokens[place], wanted.tokens[place]]
            gap = max(abs(float(side[at, pair[0]] - side[at, pair[1]])) for side in (a, b))
            (ties if gap < TIE else wrong).append({"prompt": text, "token": place, "gap": gap})
            said = f"part at token {place}, gap {gap:.2g}"
        equal += mine == wanted
        ids = "equal" if mine.prompt == wanted.prompt else "differ"
        print(f"{text[:30]!r}: ids {ids}, text {said}, logits {apart:.2g} apart", flush=True)
    return {
        "equal": worst <= LOGITS and not wrong and not other_ids, "prompts": len(PROMPTS), "tokens": count,
        "texts_equal": equal, "ties": ties, "other_tokens": wrong, "prompts_with_other_ids": other_ids,
        "logits": worst, "limit": LOGITS,
    }  # fmt: skip


if __name__ == "__main__":
    main()
