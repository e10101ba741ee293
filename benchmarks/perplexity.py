"""Perplexity of a text by riyaz and by llama.cpp on the same GGUF file: what 8-bit inputs and packed weights cost.

    riyaz pull smollm2-135m
    python -m venv ../peers                                # the peer is never a dependency of riyaz
    CMAKE_ARGS=-DGGML_NATIVE=ON ../peers/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    python benchmarks/perplexity.py smollm2-135m wikitext.txt --peer-python ../peers/bin/python

The first tokens of the text in windows of 512, each read alone behind the token that the model begins texts with, if it
has one; every token of a window but its first counts. Riyaz reads in `auto`, as it serves the file, and in fp32. The
last line is one JSON document: perplexities, tokens, and riyaz's in `auto` ÷ the peer's.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

WINDOW = 512  # tokens


def main() -> None:
    """Parse the command line; measure riyaz here, and the peer in a process of its own Python."""
    args = options().parse_args()
    if args.child:
        print(peer(args.model, json.loads(args.child.read_text())))
        return
    from riyaz.hardware import describe
    from riyaz.sources import open_source

    source = open_source(args.model)
    windows = cut(source.tokenizer(), args.text.read_text(), args.windows)
    found: dict[str, float | str | int] = {"model": args.model, "tokens": sum(len(window) - 1 for window in windows)}
    for precision in ("auto", "fp32"):
        found[precision] = riyaz(source, precision, windows)
        print(f"riyaz {precision}: {found[precision]:.4f}", flush=True)
    if args.peer_python:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "windows.json"
            file.write_text(json.dumps(windows))
            command = [args.peer_python, __file__, source.path, str(args.text), "--child", file]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        theirs = float(done.stdout.splitlines()[-1])
        print(f"llama.cpp: {theirs:.4f}")
        found |= {"llama.cpp": theirs, "ratio": float(found["auto"]) / theirs}
    print(json.dumps(found | {"cpu": describe()["cpu"]}))


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a pulled model, or a GGUF file")
    parser.add_argument("text", type=Path)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--peer-python", type=Path, help="the Python that has llama-cpp-python")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser


def cut(tokenizer, text: str, count: int) -> list[list[int]]:
    """The first windows of the text."""
    begin = list(tokenizer.beginning)
    tokens = tokenizer.encode(text[: 16 * WINDOW * count])
    size = WINDOW - len(begin)
    return [begin + tokens[at : at + size] for at in range(0, size * count, size) if at + size <= len(tokens)]


def riyaz(source, precision: str, windows: list[list[int]]) -> float:
    """By the engine that serves the model."""
    from riyaz.engine import Request
    from riyaz.engine.opening import open_engine

    engine = open_engine(source, precision)
    log_p = [
        engine.logprobs([Request(0, tuple(window[:1]))], [tuple(window[1:])])[0].astype(np.float64)
        for window in windows
    ]
    return float(np.exp(-np.concatenate(log_p).mean()))


def peer(model: str, windows: list[list[int]]) -> float:
    """By llama.cpp with flash attention, its own logits in float64."""
    from llama_cpp import Llama

    llama = Llama(model, n_ctx=WINDOW, n_batch=WINDOW, logits_all=True, flash_attn=True, verbose=False)
    nats = []
    for window in windows:
        llama.reset()
        llama.eval(window)
        logits = np.array(llama.scores[: len(window) - 1], np.float64)
        logits -= logits.max(1, keepdims=True)
        nats.append(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), window[1:]])
    return float(np.exp(np.concatenate(nats).mean()))


if __name__ == "__main__":
    main()
