"""Riyaz and llama.cpp on the same GGUF file: token ids, log-likelihoods, greedy text.

    pip install llama-cpp-python                 # builds from source; never a dependency of riyaz
    riyaz export smollm2-135m --format gguf --dtype q8_0 --out out
    python benchmarks/parity.py out/model.gguf

llama.cpp goes first and chooses the greedy tokens; Riyaz then reads the same tokens in one pass, so that one tie does
not make two different texts of the rest. A token that Riyaz would not have chosen is a tie when its logit is less than
0.1 below the best. The last line is one JSON document; the exit status says whether everything agreed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

TIE = 0.1  # gap of two logits under which either is a fair choice
NATS = {"F32": 0.005, "F16": 0.005, "BF16": 0.01}  # of log-likelihood per token, by the type of the matrices
NATS_QUANTISED = 0.06  # llama.cpp rounds activations to 8 bits too: 0.041 with SmolLM2 in Q8_0 and in Q4_0
TEXTS = (
    "The capital of France is Paris, and the river that runs through it is called the Seine.",
    "def area(radius):\n    return 3.14159 * radius ** 2\n\nprint(area(2))\n",
    "Il était une fois, dans un pays lointain, une petite fille qui aimait lire.",
    "In 1969, 3 + 4 was still 7; नमस्ते, 2024年, naïve café.",
)
QUESTIONS = ("What is the capital of Italy?", "Name three colours.", "Write a sentence about the sea.")


def main() -> None:
    """Compare one file; prints a line per text and the JSON of the worst."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--tokens", type=int, default=48, help="greedy tokens of each answer")
    args = parser.parse_args()
    try:
        from llama_cpp import Llama
    except ImportError:
        sys.exit("parity.py: llama-cpp-python is not installed; pip install llama-cpp-python, and run this again")
    peer = Llama(str(args.model), n_ctx=1024, logits_all=True, verbose=False)
    result = compare(Riyaz(args.model), peer, args.tokens)
    print(json.dumps(result))
    sys.exit(0 if result["equal"] else 1)


class Riyaz:
    """The file in Riyaz, float32."""

    def __init__(self, path: Path) -> None:
        import torch

        from riyaz import models
        from riyaz.sources import open_source

        source = open_source(path)
        types = {info.dtype for info in source.tensors.values() if len(info.shape) > 1}
        self.nats = max(NATS.get(kind, NATS_QUANTISED) for kind in types)
        self.tokenizer = source.tokenizer()
        self.model = models.load(source, torch.float32)

    def logits(self, tokens: list[int]) -> np.ndarray:
        """(T, V) float32."""
        import torch

        from riyaz.layers.attention import packed

        with torch.inference_mode():
            stream = torch.tensor(tokens)
            hidden = self.model(stream, torch.arange(len(tokens)), packed([len(tokens)]))
            return self.model.head(hidden).float().numpy()


def compare(ours: Riyaz, peer: Any, count: int) -> dict[str, Any]:
    """The worst of every comparison over the texts and questions; `equal` when all of it is within its limit."""
    worst, ties, wrong, ids = 0.0, 0, 0, 0
    for text in TEXTS:
        tokens = ours.tokenizer.encode(text)
        theirs = peer.tokenize(text.encode(), add_bos=False, special=False)
        ids += tokens != theirs
        apart = abs(likelihood(ours.logits(tokens), tokens) - likelihood(peer_logits(peer, tokens), tokens))
        worst = max(worst, apart)
        print(f"{text[:30]!r}: ids {'equal' if tokens == theirs else 'differ'}, {apart:.2g} nats per token apart")
    for question in QUESTIONS:
        prompt = ours.tokenizer.render([[{"role": "user", "content": question}]])[0]
        answer = greedy(peer, prompt, count, ours.tokenizer.eos_ids)
        rows = ours.logits(prompt + answer)[len(prompt) - 1 : -1]  # what stood before each token of the answer
        gaps = rows.max(1) - rows[np.arange(len(answer)), answer]
        ties, wrong = ties + int(((gaps > 0) & (gaps < TIE)).sum()), wrong + int((gaps >= TIE).sum())
        print(f"{question}: {len(answer)} tokens, {(gaps > 0).sum()} chosen otherwise, largest gap {gaps.max():.2g}")
    equal = worst <= ours.nats and not wrong and not ids
    return {
        "equal": equal, "texts_with_other_ids": ids, "nats_per_token": worst, "limit": ours.nats, "ties": ties,
        "other_tokens": wrong,
    }  # fmt: skip


def likelihood(logits: np.ndarray, tokens: list[int]) -> float:
    """Mean log-probability of every token after the first, nats."""
    rows = logits[:-1].astype(np.float64)
    rows = rows - rows.max(1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(1, keepdims=True))
    return float(rows[np.arange(len(rows)), tokens[1:]].mean())


def peer_logits(peer: Any, tokens: list[int]) -> np.ndarray:
    """llama.cpp's logits (T, V)."""
    peer.reset()
    peer.eval(tokens)
    return np.array(peer.scores[: len(tokens)], np.float32)


def greedy(peer: Any, prompt: list[int], count: int, ends: frozenset[int]) -> list[int]:
    """The tokens that llama.cpp finds likeliest, up to an end token, which is one of them."""
    peer.reset()
    peer.eval(prompt)
    answer: list[int] = []
    while len(answer) < count and not (answer and answer[-1] in ends):
        answer.append(int(np.argmax(peer.scores[peer.n_tokens - 1])))
        peer.eval(answer[-1:])
    return answer


if __name__ == "__main__":
    main()
