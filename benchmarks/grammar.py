"""How much of a batch's time a JSON schema takes: answers under the schema, and as many tokens of text of any kind.

    chrt -r 10 .venv/bin/python benchmarks/grammar.py [--model smollm2-135m] [--rounds 7] [--temperature 0]

Both make the same tokens a row in the same steps, in turns, after a round that is not counted; the share is the median
of the rounds. Set-up (the table of tokens, the rules) is once for each model and schema and stands apart.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace

from riyaz.engine.grammar import Grammar, schema_grammar
from riyaz.engine.request import Request, Sampling
from riyaz.predictor import open_model

ROWS = 64
TEXT = {"type": ["string", "null"], "maxLength": 40}
FIELDS = {
    "name": TEXT, "bike": {"enum": ["city", "road", "mountain", "cargo", None]}, "problem": {"type": "string",
    "maxLength": 80}, "day": {"enum": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", None]},
    "time": {"type": ["string", "null"], "pattern": "^[0-9]{2}:[0-9]{2}$"}, "phone": TEXT,
}  # fmt: skip
SCHEMA = {"type": "object", "properties": FIELDS, "required": [*FIELDS], "additionalProperties": False,
          "x-guidance": {"whitespace_pattern": " "}}  # fmt: skip
ASKED = "Write as JSON: name, bike, problem, day, time and phone. Hello, I am {name}, the brakes of my {bike} squeal."


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--temperature", type=float, default=0.0)
    args = parser.parse_args()
    print(json.dumps(share(args.model, args.rounds, Sampling(args.temperature, seed=1))))


def share(name: str, rounds: int, sampling: Sampling) -> dict[str, float | str]:
    """The grammar's share of a batch's time, and the seconds that it comes from."""
    model = open_model(name)
    prompts = [ASKED.format(name=f"Ada {row}", bike=("city bike", "cargo bike")[row % 2]) for row in range(ROWS)]
    plain = [
        replace(each.request, sampling=sampling)
        for each in model.prepare([[{"role": "user", "content": text}] for text in prompts], room=200)
    ]
    began = time.perf_counter()
    grammar = schema_grammar(model.tokenizer, json.dumps(SCHEMA), model.lm.runner.vocab_size, "schema")
    grammar.start().allowed()
    setup = time.perf_counter() - began
    answers = model.lm.generate(under(plain, grammar))
    free = [
        replace(each, limit=min(len(answer) + 1, each.limit), stop=frozenset()) for each, answer in zip(plain, answers)
    ]
    seconds: dict[str, list[float]] = {"grammar": [], "free": []}
    for round_ in range(rounds + 1):
        for kind in ("grammar", "free") if round_ % 2 else ("free", "grammar"):
            requests = under(plain, grammar) if kind == "grammar" else free
            began = time.perf_counter()
            model.lm.generate(requests)
            if round_:
                seconds[kind].append(time.perf_counter() - began)
    with_, without = (statistics.median(values) for values in seconds.values())
    tokens = sum(each.limit for each in free)
    shares = [1 - one / other for other, one in zip(*seconds.values())]
    return {
        "model": name, "rows": ROWS, "tokens": tokens, "cut": sum(len(answer) == 200 for answer in answers),
        "setup_s": round(setup, 3), "grammar_s": round(with_, 3), "free_s": round(without, 3),
        "ms_a_token": round(1000 * (with_ - without) / tokens, 4), "share": round(statistics.median(shares), 3),
    }  # fmt: skip


def under(requests: list[Request], grammar: Grammar) -> list[Request]:
    """The requests with the grammar."""
    return [replace(request, grammar=grammar) for request in requests]


if __name__ == "__main__":
    main()
