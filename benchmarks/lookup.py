"""What prompt lookup gives and costs: tokens a second with it ÷ without, in turns, on answers that repeat their prompt
and on some that do not.

    python benchmarks/lookup.py --model smollm2-135m --model qwen2.5-coder-0.5b        # minutes on two cores

rag: a question behind passages, of which the answer quotes one. extraction: fields of a text as JSON. code: a function
to be written again with another name. unrelated: drawn at a high temperature, so that nothing repeats. One sequence,
and the four kinds together. Only the tokens behind the first are timed; the texts with and without are compared. The
last line is one JSON document; `lookup_ratio` and `lookup_acceptance` are those of the first three kinds together.
"""

import argparse
import inspect
import json
import json.decoder
import pydoc_data.topics
import shlex
import statistics
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from riyaz import hardware
from riyaz.engine import Request, Sampling
from riyaz.engine.drafts import Drafts
from riyaz.engine.engine import Engine
from riyaz.engine.lookup import Counts
from riyaz.engine.opening import open_engine
from riyaz.sources import Source, open_source

LIMIT = 128  # tokens of an answer
KINDS = ("rag", "extraction", "code", "unrelated")
FUNCTIONS = (json.decoder.py_scanstring, shlex.join, textwrap.dedent, statistics.median_low, inspect.cleandoc)
PEOPLE = (("Ada Blum", "Graz", 41, "ada@example.org"), ("Jo Ferrer", "Nantes", 29, "jo.ferrer@example.org"))


def questions(kind: str) -> list[str]:
    """The prompts of a kind, as a user writes them."""
    topics = [" ".join(text.split())[:900] for _, text in sorted(pydoc_data.topics.topics.items())]
    if kind == "rag":
        ask = "Quote the passage above that says most about this, word for word: {}"
        return [
            "\n\n".join(topics[i : i + 2]) + "\n\n" + ask.format(topics[i + 1].split(".")[0]) for i in range(0, 12, 3)
        ]
    if kind == "extraction":
        text = "{0}, {2} years old, moved to {1} last spring. Letters reach {0} at {3}, calls between 9 and 5."
        form = (
            'Write name, age, city and mail of each person as JSON: [{"name": …, "age": …, "city": …, "mail": …}]\n\n'
        )
        return [form + text.format(*one) + " " + text.format(*other) for one, other in (PEOPLE, PEOPLE[::-1])]
    if kind == "code":
        ask = "Rewrite this function with the name `renamed` and change nothing else:\n\n```python\n{}```"
        return [ask.format(inspect.getsource(function)[:1500]) for function in FUNCTIONS]
    return [f"Tell me something new about {word}." for word in ("rivers", "looms", "owls", "salt")]


def requests_of(kind: str, source: Source) -> list[Request]:
    """The requests of a kind."""
    tokenizer = source.tokenizer()
    prompts = tokenizer.render([[{"role": "user", "content": question}] for question in questions(kind)])
    drawn = Sampling(temperature=1.5, seed=7) if kind == "unrelated" else Sampling()
    return [
        Request(i, tuple(prompt), limit=LIMIT, sampling=drawn, stop=tokenizer.eos_ids)
        for i, prompt in enumerate(prompts)
    ]


def answered(engine: Engine, requests: Sequence[Request]) -> tuple[dict[int, list[int]], float]:
    """The answers to requests together, and the seconds behind their first tokens."""
    tickets = {engine.add(request): i for i, request in enumerate(requests)}
    answers: dict[int, list[int]] = {i: [] for i in tickets.values()}
    began = 0.0
    while steps := engine.step():
        for step in steps:
            if step.token is not None:
                answers[tickets[step.ticket]].append(step.token)
        began = began or time.perf_counter()
    return answers, time.perf_counter() - began


def measured(engine: Engine, groups: Sequence[Sequence[Request]], rounds: int) -> dict[str, Any]:
    """Ratio, acceptance and speeds of groups of requests that run together, the modes in turns."""
    speeds: dict[str, list[float]] = {"off": [], "auto": []}
    counts = Counts()
    for round_ in range(rounds + 1):
        texts = {}
        for mode in ("off", "auto") if round_ % 2 else ("auto", "off"):
            # nothing of earlier rounds is known, least of all their answers
            engine.drafts = Drafts(engine.runner.vocab_size, mode)  # type: ignore[arg-type]
            engine.drafts.remembers = True  # as in `riyaz run`
            results = [answered(engine, group) for group in groups]
            texts[mode] = [answers for answers, _ in results]
            tokens = sum(len(answer) - 1 for answers in texts[mode] for answer in answers.values())
            if round_:
                speeds[mode].append(tokens / sum(seconds for _, seconds in results))
                counts += engine.drafts.counts
        assert texts["off"] == texts["auto"], "another text with lookup"
    ratios = [fast / plain for fast, plain in zip(speeds["auto"], speeds["off"])]
    return {
        "ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios],
        "tokens_s": {mode: round(statistics.median(each), 1) for mode, each in speeds.items()},
        "acceptance": round(counts.acceptance, 3), "from_drafts": round(counts.accepted / max(counts.tokens, 1), 3),
    }  # fmt: skip


def lookup(engine: Engine, source: Source, rounds: int) -> dict[str, Any]:
    """The figures of every kind, one answer after another and all at once."""
    requests = {kind: requests_of(kind, source) for kind in KINDS}
    rows = {kind: measured(engine, [[each] for each in requests[kind]], rounds) for kind in KINDS}
    mixed = [replace(each, id=i) for i, each in enumerate(each for kind in KINDS for each in requests[kind][:2])]
    rows["together"] = measured(engine, [mixed], rounds)
    repeating = [rows[kind] for kind in KINDS[:3]]
    return {
        "lookup_ratio": round(statistics.geometric_mean(row["ratio"] for row in repeating), 3),
        "lookup_acceptance": round(statistics.mean(row["acceptance"] for row in repeating), 3), "kinds": rows,
    }  # fmt: skip


def main() -> None:
    """Measure every model and print a table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="default: smollm2-135m; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    result: dict[str, Any] = {"cpu": hardware.cpu_model()}
    for model in args.model or ["smollm2-135m"]:
        source = open_source(model)
        result[source.name] = lookup(open_engine(source), source, args.rounds)
        for kind, row in result[source.name]["kinds"].items():
            speeds = "{auto:8.1f} ÷ {off:.1f} tokens/s".format(**row["tokens_s"])
            shares = f"{row['acceptance']:.2f} of drafts right, {row['from_drafts']:.2f} of the tokens"
            print(f"{source.name:24}{kind:12}{row['ratio']:6.2f}  {speeds}  {shares}  {row['ratios']}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
