"""Typed questions answered with probabilities: speed, equal bits, order of the choices and calibration, beside peers.

    riyaz pull smollm2-135m; riyaz pull minilm
    ../peers/bin/pip install transformers torch scikit-learn starlette uvicorn typed-decisions llama-cpp-python
    python benchmarks/decisions.py --peer --peer-python ../peers/bin/python      # half an hour on two cores
    python benchmarks/decisions.py --only order --only ece --artifacts runs/banking77/lora runs/snips

The sides of a ratio take turns, and a figure is the median of the rounds. The rows, by their names for --only:

choice: one choice of all labels of banking77 about a text of 60 tokens. zero_shot_ratio: without training ÷ one prompt
of as many tokens as the model read for it, which are counted in the engine. first_ms: where nobody has asked the
question yet, so that it is read without content too. lora_ms: by the head of a LoRA of rank 16, whose random weights
change no time. llama_cpp_ms: llama-cpp-python, asked for every label's log-probability behind an input that it reads
once.
questions: questions_ratio, 20 questions about an input of 2,000 tokens asked one by one, without kept prompts, ÷ all at
once.
servers: decisions a second of 16 clients over HTTP. linear_ratio: `linear` ÷ probe_server.py in its fastest way.
lora_ratio: the LoRA ÷ typed-decisions in its faster type, on the same base and labels, without training. alone_ms: one
client, the base without training too.
bits: answers over HTTP, in float32, that are not equal to the bit to those of a request of their own, among 400
questions and among 16 clients of two LoRAs and their base.
order: answers of 500 choices that change with their order (flips), the largest change of a probability, and accuracy by
the fifth of the list that holds the right choice, as it was asked and sorted, with the probability of such differences
by chance.
ece: the largest expected calibration error (15 bins of equal mass) on all test rows of the three sets, of the artifacts
given or of `linear`, fitted to 1,000 rows.

Rows are read from --data, or made up where they are missing, in `made_up`. The last line is one JSON document; null is
what was not measured.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import decisions_sides as use
import numpy as np

from riyaz import adapters, hardware
from riyaz import artifact as artifacts
from riyaz.adapters.base_shapes import shapes_of
from riyaz.artifact import Artifact, BaseModel, WeightsPart
from riyaz.data.questions import Choice, Question
from riyaz.data.task import Task
from riyaz.engine import Request
from riyaz.engine.parts import finished
from riyaz.families import describe
from riyaz.predictor import Base, LabelHead, deciding, deciding_on, open_base, open_on
from riyaz.sources import store

ROOT = Path(__file__).parents[1]
MUST = {
    "zero_shot_ratio": ("<=", 1.3), "lora_ms": ("<=", 20.0), "questions_ratio": (">=", 10.0),
    "linear_ratio": (">=", 2.0), "lora_ratio": (">=", 5.0), "differing": ("<=", 0), "flips": ("<=", 0),
    "ece": ("<=", 0.05),
}  # fmt: skip
RANK, SCALE, ASKED_TOKENS, FIFTHS = 16, 2.0, 50, 5
STEADY = 3  # times of a call within a round, one after the other
LLAMA = """
import json, os, sys, time
import numpy as np
from llama_cpp import Llama
threads = os.cpu_count()
model = Llama(sys.argv[1], n_ctx=2048, n_threads=threads, n_threads_batch=threads, logits_all=True, verbose=False)
for line in sys.stdin:
    asked, began, totals = json.loads(line), time.perf_counter(), []
    model.reset()
    model.eval(asked["prompt"])
    end = model.n_tokens
    for tokens in asked["choices"]:
        model.n_tokens = end  # what follows the prompt is dropped
        if tokens[1:]:
            model.eval(tokens[:-1])
        rows = np.array(model.scores[end - 1 : end - 1 + len(tokens)])
        rows -= np.logaddexp.reduce(rows, axis=1, keepdims=True)
        totals.append(float(rows[np.arange(len(tokens)), tokens].sum()))
    print(1000 * (time.perf_counter() - began), flush=True)
"""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int = 5
    slow_rounds: int = 3  # of them with typed-decisions, which takes seconds for a decision
    text: int = 60  # tokens of a text with one choice
    long: int = 2000  # tokens of an input with `asked` questions
    asked: int = 20
    clients: int = 16
    seconds: float = 10.0  # that the clients ask one server in a round
    many: int = 400  # questions of one request
    ordered: int = 500
    train: int = 1000
    labels: int = 1000  # most of a set that is made up


QUICK = Sizes(rounds=1, text=20, long=300, asked=3, clients=4, seconds=0.5, many=12, ordered=12, train=80, labels=7)


def judged(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each row's value, what it must be, and whether it is; None for one that was not measured."""
    rows = {}
    for name, (sign, limit) in MUST.items():
        value = found.get(name)
        met = None if value is None else bool(value <= limit if sign == "<=" else value >= limit)
        rows[name] = {"value": value, "must": f"{sign} {limit:g}", "met": met}
    return rows


def commit() -> str:
    """The short name of this repository's commit, with a + when files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"


def milliseconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def steady(work: Callable[[], Any]) -> float:
    """The median of a few times, after one that another kind of work has made slow."""
    work()
    return statistics.median(milliseconds(work) for _ in range(STEADY))


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure of the first round, over the rounds that have it."""
    return {name: statistics.median(told[name] for told in rounds if name in told) for name in rounds[0]}


def text_of(base: Base, tokens: int, number: int) -> str:
    """A text of so many tokens that no other number has."""
    start = number * 977 % (len(use.WORDS) - 2 * tokens)
    words = base.tokenizer.encode(f"{number}. " + " ".join(use.WORDS[start : start + 2 * tokens]))
    return base.tokenizer.decode(words[:tokens])


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def choice_of(labels: Sequence[str], instructions: str = use.WHICH) -> Question:
    return Question("", "choice", instructions, tuple(map(Choice, labels)))


def write_lora(base: Base, labels: Sequence[str], folder: Path, seed: int = 0) -> Path:
    """An artifact of a LoRA on every linear of the layers and a head of labels, all of random numbers."""
    generator, family = np.random.default_rng(seed), describe(base.source)

    def drawn(*shape: int) -> np.ndarray:
        return generator.normal(0, 0.01, shape).astype(np.float32)

    linears = {path: shape for path, shape in shapes_of(family).linears.items() if "layers." in path}
    pairs = {path: adapters.Pair(drawn(RANK, i), drawn(o, RANK), SCALE) for path, (o, i) in linears.items()}
    files = folder.with_name(f"{folder.name}-files")
    files.mkdir(parents=True)
    adapters.peft.write(adapters.Adapter(pairs=pairs), files, family, base=base.source.name)
    LabelHead(100 * drawn(len(labels), base.lm.runner.width)).write(files / artifacts.LABELS)
    made_for = BaseModel(base.source.name, str(base.source.path), base.source.sha256(), base.parameters)
    task = Task("closed", tuple(labels), "accuracy", use.WHICH, "")
    described = Artifact(
        "lora", weights=WeightsPart("lora", label_head=True), base=made_for, task=task, temperature=1.0
    )
    artifacts.write(folder, described, {path.name: path for path in files.iterdir()})
    return folder


@contextmanager
def counted(base: Base) -> Iterator[list[int]]:
    """Tokens of each pass of the model."""
    runner, tokens = base.lm.runner, list[int]()
    forward = runner.forward

    def counting(runs: Sequence[Any]) -> list[Any]:
        tokens.append(sum(len(run.tokens) for run in runs))
        return forward(runs)

    runner.forward = counting  # type: ignore[method-assign]
    try:
        yield tokens
    finally:
        del runner.forward


def one_choice(base: Base, labels: Sequence[str], lora: Path, sizes: Sizes, llama: str) -> dict[str, Any]:
    """One choice of all labels: without training beside a prompt, by a LoRA's head, and by llama.cpp."""
    question = choice_of(labels)
    predictor, adapter = open_on(base, lora, "choice")
    assert adapter is not None
    base.lm.load("choice", adapter)
    told, endings = [], base.tokenizer.answer_ids(list(labels))
    with ExitStack() as stack:
        peer = stack.enter_context(use.process([llama, "-c", LLAMA, str(base.source.files[0].path)])) if llama else None
        for turn in range(sizes.rounds + 1):
            conversation = user(text_of(base, sizes.text, turn))
            asked = partial(deciding, base.plain, conversation, [question])
            with counted(base) as read:
                finished(asked())
            (own,) = finished(deciding_on(predictor, conversation, [question]))
            assert own is not None and own.trained, "the head answers its own question"
            ids = base.tokenizer.encode(text_of(base, 2 * sum(read), turn))[: sum(read)]
            sides = {
                "zero_shot_ms": lambda: finished(asked()),  # noqa: B023
                "prompt_ms": lambda: base.lm.generate([Request(0, tuple(ids), limit=1)]),  # noqa: B023
                "lora_ms": lambda: finished(deciding_on(predictor, conversation, [question])),  # noqa: B023
            }
            order = list(sides) if turn % 2 else list(sides)[::-1]
            told.append({"tokens": sum(read), **{name: steady(sides[name]) for name in order}})
            new = choice_of(labels, f"{use.WHICH} ({turn})")
            told[-1]["first_ms"] = milliseconds(lambda: finished(deciding(base.plain, conversation, [new])))  # noqa: B023
            if peer is not None:
                prompt = base.tokenizer.encode(f"{conversation[0]['content']}\n\n{use.WHICH}\n")
                told[-1]["llama_cpp_ms"] = float(use.answered(peer, {"prompt": prompt, "choices": endings}))
    rounds = [{**each, "zero_shot_ratio": each["zero_shot_ms"] / each["prompt_ms"]} for each in told[1:]]
    return {**medians(rounds), "labels": len(labels)}


def some_questions(number: int, seed: int = 0) -> list[Question]:
    """Different questions of every type, each with at most ten choices."""
    generator, questions = np.random.default_rng(seed), []
    words = sorted({word for word in use.WORDS if word.isalpha() and len(word) > 3})
    for place in range(number):
        about, *others = generator.choice(words, 11, replace=False).tolist()
        name, kind = f"q{place}", ("predicate", "choice", "score")[place % 3]
        if kind == "predicate":
            questions.append(Question(name, "predicate", f"Is number {place} about {about}?"))
        elif kind == "choice":
            most = 2 + int(generator.integers(9))
            questions.append(replace(choice_of(others[:most], f"What of {about} is meant in {place}?"), name=name))
        else:
            levels = tuple(map(Choice, ("none", "a little", "much")))
            questions.append(Question(name, "score", f"How much is {place} about {about}?", levels))
    return questions


def tokens_of(base: Base, question: Question) -> int:
    """Tokens of its instructions and choices."""
    return len(base.tokenizer.encode(" ".join([question.instructions, *question.labels])))


def lengthened(base: Base, question: Question) -> Question:
    """With more words before its instructions, as many as ASKED_TOKENS allow."""
    longest = question
    for many in count(1):
        longer = replace(question, instructions=" ".join([*use.WORDS[:many], question.instructions]))
        if tokens_of(base, longer) > ASKED_TOKENS:
            return longest
        longest = longer
    raise AssertionError("words have no tokens")


def twenty_questions(base: Base, sizes: Sizes) -> dict[str, Any]:
    """Questions about one long input, together and one by one."""
    questions = [lengthened(base, question) for question in some_questions(sizes.asked)]
    lengths = [tokens_of(base, question) for question in questions]
    assert max(lengths) <= ASKED_TOKENS, lengths
    told = []
    for turn in range(sizes.rounds + 1):
        conversation = user(text_of(base, sizes.long, turn))
        ask = lambda asked: finished(deciding(base.plain, conversation, asked))  # noqa: B023, E731
        sides = {
            "together_ms": lambda: ask(questions),  # noqa: B023
            "single_ms": lambda: [ask([each]) for each in questions],  # noqa: B023
        }
        if turn:
            told.append({name: milliseconds(sides[name]) for name in (list(sides) if turn % 2 else list(sides)[::-1])})
        else:
            ask(questions)
    rounds = [{**each, "questions_ratio": each["single_ms"] / each["together_ms"]} for each in told]
    return {**medians(rounds), "questions": len(questions), "question_tokens": statistics.median(lengths)}


def many_clients(args: argparse.Namespace, data: use.Data, lora: Path, sizes: Sizes, installed: Any) -> dict[str, Any]:
    """Decisions a second of every server, in turns."""
    name, linear, found = "banking77", data.linear("banking77"), dict[str, Any]()
    labels = Artifact.read(linear).task.labels  # type: ignore[union-attr]
    rows, number = data.rows(name), count()
    texts = (f"{each}: {rows[each % len(rows)]['text']}" for each in number)  # none twice, as prompts are kept
    with ExitStack() as stack:
        url = stack.enter_context(use.serving(args.model, {"linear": linear, "lora": lora}))
        sides = {"linear": use.asked_of(url, "linear", labels), "lora": use.asked_of(url, "lora", data.labels(name))}
        sides["zero_shot"] = use.asked_of(url, use.own_name(url, ("linear", "lora")), data.labels(name))
        peers = dict[str, Mapping[str, use.Way]]()
        if args.peer and all(installed.get(package) for package in use.PACKAGES[:5]):
            peers["probe"] = use.probe(args, data.train_file(name))
        if args.peer and installed.get("typed-decisions"):
            use.run(*use.RIYAZ, "export", args.model, "--format", "hf", "--dtype", "float32", "--out", data.work / "hf")
            peers["typed"] = use.typed(args, data.work / "hf", data.labels(name))
        for peer, ways in peers.items():
            tried = dict(list(ways.items())[: 1 if args.quick else None])
            few = (0, 1) if peer == "typed" else (sizes.seconds / 4, sizes.clients)  # it takes seconds for a decision
            found[f"{peer}_by"], sides[peer] = use.fastest(stack, tried, texts, *few)
        for side in ("linear", "lora"):
            (answer,) = use.answers_of(url, [sides[side].body(next(texts))], 1)
            assert answer["answered_by"] == "artifact", answer
        told = list[dict[str, float]]()
        for turn in range(sizes.rounds):
            order = [side for side in sides if side != "typed" or turn < sizes.slow_rounds][:: 1 if turn % 2 else -1]
            told.append(
                {side: asyncio.run(sides[side].load(texts, sizes.seconds, sizes.clients)) for side in order}
                | {f"{side} alone": asyncio.run(sides[side].load(texts, sizes.seconds / 4, 1)) for side in order}
            )
            use.say(
                f"round {turn + 1}: "
                + ", ".join(f"{side} {speed:.2f}" for side, speed in told[-1].items())
                + " a second"
            )
    middle = medians(told)
    found["decisions_s"] = {side: middle[side] for side in sides}
    found["alone_ms"] = {side: 1000 / middle[f"{side} alone"] for side in sides}
    for ratio, peer in (("linear", "probe"), ("lora", "typed")):
        if peer in sides:
            found[f"{ratio}_ratio"] = statistics.median(each[ratio] / each[peer] for each in told if peer in each)
    return found


def in_float32(args: argparse.Namespace, base: Base, labels: Sequence[str], work: Path, sizes: Sizes) -> dict[str, Any]:
    """Answers alone, among many questions, and among clients of two LoRAs and their base."""
    loras = {f"lora{n}": write_lora(base, labels, work / f"bits{n}", 1 + n) for n in range(2)}
    questions = [each.document() for each in some_questions(sizes.many, 1)]
    text = text_of(base, sizes.text, 1)
    with use.serving(args.model, loras, "--precision", "fp32") as url:
        model = use.own_name(url, loras)
        one = [{"model": model, "input": text, "questions": [each]} for each in questions]
        head = use.asked_of(url, "", labels)
        heads = [
            {**head.body(text_of(base, sizes.text, 2 + n)), "model": f"lora{n % 2}"} for n in range(len(one) // 2)
        ]  # fmt: skip
        mixed = [body for pair in zip(heads, one[: len(heads)]) for body in pair]
        alone, heads_alone = use.answers_of(url, one, 1), use.answers_of(url, heads, 1)
        together = use.answers_of(url, [{"model": model, "input": text, "questions": questions}], 1)
        talk = [{"model": name, "prompt": text, "max_tokens": 32} for name in (*loras, model)]
        in_batch = use.answers_of(url, mixed, sizes.clients, talk)
    wanted = [answer for pair in zip(heads_alone, alone[: len(heads)]) for answer in pair]
    among = sum(a != b for a, b in zip(together, alone, strict=True))
    batch = sum(a != b for a, b in zip(in_batch, wanted, strict=True))
    return {"differing": among + batch, "among": f"{among} of {len(alone)}", "mixed": f"{batch} of {len(wanted)}"}


def reordered(base: Base, data: use.Data, sizes: Sizes) -> dict[str, Any]:
    """Answers to choices in two random orders."""
    generator = np.random.default_rng(0)
    sets = {name: (data.rows(name), data.labels(name)) for name in use.SETS}
    right, asked_place, sorted_place, flips, change = list[bool](), list[int](), list[int](), 0, 0.0
    for number in range(sizes.ordered):
        rows, labels = sets[list(sets)[number % len(sets)]]
        row = rows[int(generator.integers(len(rows)))]
        others = [label for label in labels if label != row["label"]]
        many = int(generator.integers(1, min(20, len(others)) + 1))
        choices = [row["label"], *generator.choice(others, many, replace=False).tolist()]
        orders = [generator.permutation(choices).tolist() for _ in range(2)]
        first, second = (
            finished(deciding(base.plain, user(row["text"]), [choice_of(order)]))[0] for order in orders
        )  # fmt: skip
        by_label = [dict(zip(order, each.probabilities.tolist())) for order, each in zip(orders, (first, second))]
        flips += first.answer != second.answer
        change = max(change, *(abs(by_label[0][label] - by_label[1][label]) for label in choices))
        right.append(first.answer == row["label"])
        for places, order in ((asked_place, orders[0]), (sorted_place, sorted(choices))):
            places.append(order.index(row["label"]) * FIFTHS // len(order))
    return {
        "flips": flips, "largest_change": change, "accuracy": float(np.mean(right)), "ordered": sizes.ordered,
        "by_place": by_place(asked_place, right), "by_sorted_place": by_place(sorted_place, right),
    }  # fmt: skip


def by_place(places: Sequence[int], right: Sequence[bool]) -> dict[str, Any]:
    """Accuracy by fifth of the list, and the probability of such differences by chance (a chi-squared test)."""
    from scipy.stats import chi2_contingency

    hits = np.bincount(np.array(places)[np.array(right)], minlength=FIFTHS)
    table = np.stack([hits, np.bincount(places, minlength=FIFTHS) - hits])[:, np.bincount(places, minlength=FIFTHS) > 0]
    chance = float(chi2_contingency(table).pvalue) if (table.sum(1) > 0).all() and table.shape[1] > 1 else 1.0
    return {"accuracy": (table[0] / table.sum(0)).tolist(), "rows": table.sum(0).tolist(), "chance": chance}


def calibration(data: use.Data, given: Sequence[str]) -> dict[str, Any]:
    """The expected calibration error of an artifact on all test rows of each set."""
    targets: dict[str, list[str]] = {name: [] for name in use.SETS}
    for target in given:
        task = Artifact.read(artifacts.resolve(target)).task
        assert task is not None, target
        shared = {name: len(set(task.labels) & set(data.labels(name))) for name in use.SETS}
        if not any(shared.values()):
            raise SystemExit(f"{target} has no label of {', '.join(use.SETS)}")
        targets[max(shared, key=lambda name: shared[name])].append(target)
    found = {}
    for name, named in targets.items():
        for target in named or ([] if given else [str(data.linear(name))]):
            test = data.folders[name] / "test.jsonl"
            printed = use.run(*use.RIYAZ, "evaluate", target, "--test", test, "--json", "--quiet")
            told = json.loads(printed.splitlines()[-1])
            if told["calibration"] is None:
                raise SystemExit(f"the answers of {target} have no confidence")
            label = f"{name} {target}" if given else name
            found[label] = {key: told["calibration"][key] for key in ("ece", "ece_low", "ece_high")} | {
                "accuracy": told["score"], "rows": told["n_test"],
            }  # fmt: skip
            use.say(f"{label}: ECE {found[label]['ece']:.3f}")
    measured = {name for name, named in targets.items() if named or not given}
    return {
        "calibration": found,
        "ece": max(each["ece"] for each in found.values()) if measured == use.SETS.keys() else None,
    }  # fmt: skip


ROWS = ("choice", "questions", "servers", "bits", "order", "ece")


def measured(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The figures of all rows that are wanted."""
    sizes = replace(QUICK if args.quick else Sizes(), **({"rounds": args.rounds} if args.rounds else {}))
    wanted, data = args.only or ROWS, use.Data(args.data, work, sizes.train, sizes.labels, args.model)
    installed = use.versions_of(args.peer_python) if args.peer else {}
    missing = [name for name, version in installed.items() if version is None]
    if missing:
        use.say(f"{args.peer_python} lacks {', '.join(missing)}: not measured")
    base, labels = open_base(args.model), data.labels("banking77")
    lora = write_lora(base, labels, work / "lora")
    readable = base.source.files[0].path.suffix == ".gguf"  # the only files that llama.cpp reads
    llama = args.peer_python if installed.get("llama-cpp-python") and readable else ""
    rows: dict[str, Callable[[], dict[str, Any]]] = {
        "choice": lambda: one_choice(base, labels, lora, sizes, llama),
        "questions": lambda: twenty_questions(base, sizes),
        "servers": lambda: many_clients(args, data, lora, sizes, installed),
        "bits": lambda: in_float32(args, base, labels, work, sizes),
        "order": lambda: reordered(base, data, sizes),
        "ece": lambda: calibration(data, args.artifacts),
    }
    found: dict[str, Any] = {}
    for name in ROWS:
        if name in wanted:
            found |= rows[name]()
            use.say(f"{name}: done")
    return {
        "rows": judged(found), **found, "made_up": data.made_up, "not_installed": missing, "versions": installed,
        "rounds": sizes.rounds,
    }  # fmt: skip


def main() -> None:
    """Measure, print a line for each row of the target; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--only", choices=ROWS, action="append")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data", help="a folder with the three sets")
    parser.add_argument("--artifacts", nargs="+", default=[], help="artifacts or comparisons whose ECE is measured")
    parser.add_argument("--rounds", type=int, help=f"of every figure of speed; {Sizes.rounds} if not given")
    parser.add_argument("--quick", action="store_true", help="a few rows of everything, to see that it runs")
    parser.add_argument("--peer", action="store_true", help="measure the peers too")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has them")
    parser.add_argument("--peer-port", type=int, default=8770, help="the first of five ports that they take")
    parser.add_argument("--embedder", help="the probe's sentence encoder; minilm as it was pulled if not given")
    args = parser.parse_args()
    args.embedder = args.embedder or str(store.home() / "models" / "minilm")
    if not shutil.which(args.peer_python):
        parser.error(f"--peer-python {args.peer_python}: no such program")
    if args.peer and not Path(args.embedder).is_dir():
        parser.error(f"{args.embedder}: no such folder; riyaz pull minilm, or give --embedder")
    with tempfile.TemporaryDirectory() as folder:
        found = measured(args, Path(folder))
    for name, row in found["rows"].items():
        value = "not measured" if row["value"] is None else f"{row['value']:.3g}"
        print(f"{name:16} {value:>12}   must {row['must']:6}   {({True: 'met', False: 'MISSED'}).get(row['met'], '-')}")
    machine = {"cpu": hardware.cpu_model(), "threads": hardware.threads(), "commit": commit()}
    print(json.dumps({**found, **machine, "model": args.model}))


if __name__ == "__main__":
    main()
