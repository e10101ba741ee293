"""Riyaz's two engines on the same files, the one in C++ beside torch's, its oracle: log-probabilities, texts, scores.

    python benchmarks/agreement.py smollm2-135m                  # 20 built-in texts, or pieces of --text FILE …
    python benchmarks/agreement.py --run demo-result             # every arm of a comparison on its test rows
    python benchmarks/agreement.py --artifact FOLDER --test rows.jsonl
    python benchmarks/agreement.py smollm2-135m --nearness       # served as the file stores it, beside float32

Each engine runs in a process of its own, one after the other. A model is read in fp32 and in `auto`, in which the C++
engine serves weights as the file stores them and torch in bf16 or fp32; an artifact is served as its comparison served
it, where torch can.

Of a model: the largest difference of a log-probability after a text, that of the log-likelihood of a text, and in fp32
the tokens that follow it greedily. The oracle reads the tokens of the C++ engine in one pass: one that it would not
choose is a tie when it is less than TIE nats below the best. Of an artifact: both scores, an exact test of their
difference, and the rows that were answered otherwise. Such a row is a tie when the oracle's log-probabilities of both
answers, or of the two tokens where generated texts part, differ by less than TIES has for its precision; a row whose
prompts hold other passages is counted apart. `--precision fp32` tells rounding from a fault: no row should then differ.
Of nearness, in C++ alone: greedy answers of ANSWER tokens to QUESTIONS that equal those with the same weights and all
else in float32, and the mean divergence of the next token's distribution from float32's, in nats, over the built-in
texts: read some tokens at a time, as answers are made, and in one pass, as prompts are.
The last line is one JSON document; the exit status says whether everything agreed, of nearness all answers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from riyaz import hardware
from riyaz.artifact import examples_bytes, read_examples, reading_of
from riyaz.comparison.folder import ComparisonFolder
from riyaz.config import DataConfig, Precision
from riyaz.data import Example
from riyaz.data.formats import load
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.opening import ENGINE, TORCH_TYPES, open_engine
from riyaz.errors import RiyazError
from riyaz.json_files import read_lines, to_json
from riyaz.metrics.paired import paired_test
from riyaz.predictor import Prediction, Predictor, open_target
from riyaz.retrieval.open_retriever import without_own
from riyaz.scoring import predict, score
from riyaz.sources import open_source

OURS, ORACLE = SIDES = "native", "torch"
EQUAL, TIED, OTHER = "equal", "tie", "different"
LOGITS = 1e-4  # of a log-probability in fp32: nats, and of its size where that is more than one
NATS = {"fp32": 1e-4, "auto": 0.1}  # per token, of the log-likelihood of each text
NATS_ALL = {"fp32": 1e-4, "auto": 0.02}  # and of all texts together
TIE = 0.1  # nats between two tokens in fp32 under which either is a fair choice
# and between two answers, as the C++ engine serves the weights: three standard deviations of the error of a difference
# of two labels, .05 to .11 nats in bf16, .20 to .37 in int4, whose products round their inputs to 8 bits as int8's do
TIES = {"fp32": 0.01, "bf16": 0.3, "int8": 1.0, "int4": 1.0}
SIGNIFICANT = 0.05  # p-value under which two scores differ
LENGTHS = (32, 96, 256, 700)  # tokens of the pieces of a file, in turns: the last is longer than Gemma's window
TEXTS = (
    "The capital of France is Paris, and the river that runs through it is called the Seine. On its left bank",
    "Once upon a time there was a miller who had three sons. When he died he left them nothing but his mill, his",
    "Water boils at a lower temperature on a mountain, because the pressure of the air there is",
    "Dear Sir or Madam,\n\nI am writing to complain about the bicycle that I bought from your shop on 3 March. The",
    "Q: What is the largest planet of the solar system?\nA: Jupiter.\nQ: Which one is nearest to the sun?\nA:",
    "Ingredients:\n- 2 eggs\n- 100 g flour\n- 250 ml milk\n\nMethod:\n1. Whisk the eggs. 2.",
    "2, 4, 8, 16, 32, 64, 128,",
    "In 1969, two men walked on the Moon; a third stayed in orbit. 3 + 4 is 7, and 12 * 12 is 144, so 13 * 13 is",
    "Il était une fois, dans un pays lointain, une petite fille qui aimait lire. Chaque soir, elle",
    "Der schnelle braune Fuchs springt über den faulen Hund, weil er es eilig hat. Danach läuft er",
    "La capital de España es Madrid, y la ciudad más grande de Portugal es",
    "Столица России — Москва. Самый длинный роман Толстого называется",
    "日本の首都は東京です。大阪は日本で二番目に",
    "भारत की राजधानी नई दिल्ली है। सबसे लंबी नदी",
    "def fibonacci(n):\n    '''The n-th Fibonacci number.'''\n    if n < 2:\n        return n\n    return",
    "for (int i = 0; i < n; i++) {\n\tfor (int j = 0; j < i; j++) {\n\t\tif (a[j] > a[j + 1])",
    "SELECT customers.name, SUM(orders.price) AS total FROM customers JOIN orders ON",
    '{"name": "riyaz", "version": "0.1.0", "dependencies": {"numpy": ">=1.26", "tokenizers":',
    "<html>\n<head><title>A naïve café 🙂</title></head>\n<body>\n<h1>",
    "#!/bin/sh\nset -e\nfor file in *.txt; do\n  echo \"$file\"",
)  # fmt: skip

QUESTIONS = """\
What is the capital of France?|What is the capital of Japan?|What is the largest ocean?|How many days are in a week?
Who wrote Romeo and Juliet?|What is the boiling point of water?|What do bees make?|What colour is a ripe banana?
Name three primary colours.|What is the opposite of hot?|What is 7 plus 5?|What is 9 times 3?|Spell the word apple.
Which planet is closest to the sun?|What is the chemical symbol for gold?|How many legs does a spider have?
Translate "good morning" into French.|Translate "thank you" into Spanish.|What is the past tense of "go"?
Write a sentence with the word river.|Give a synonym for happy.|Give an antonym for large.|What is a noun?
Name a fruit that is red.|Name two animals that live in the sea.|What do plants need to grow?|What is photosynthesis?
Who painted the Mona Lisa?|In which year did the Second World War end?|What is the tallest mountain in the world?
What is the longest river in Africa?|Which language is spoken in Brazil?|What is the currency of Japan?
How many continents are there?|What is the freezing point of water?|What gas do people breathe in to live?
What is the square root of 81?|How many minutes are in an hour?|How many months are in a year?|What is half of 50?
Write a title for a story about a lost dog.|Suggest a name for a cat.|Write a short greeting for a birthday card.
List three things to take to the beach.|Give one tip for sleeping better.|How do you boil an egg?|What is gravity?
Why is the sky blue?|What is the heart for?|What is a computer?|What is the internet?|What is an island?
Describe a tree in one sentence.|Describe the taste of a lemon.|What does a teacher do?|What does a doctor do?
Is the sun a star?|Can penguins fly?|What comes after Monday?|Complete: Roses are red,"""
ANSWER = 16  # tokens
FEW = 16  # tokens of a piece that is read like an answer; the first is read alone

Found = dict[str, Any]
Arm = tuple[str, list[tuple[Path, tuple[Example, ...]]]]  # name, and each artifact with the rows that it answers


def main() -> None:
    """Compare what was asked for; prints a table and the JSON of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="name or path of a model")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=64, help="greedy tokens after each of them")
    parser.add_argument("--text", type=Path, nargs="+", help="take the texts from these files: plain, or JSON Lines")
    parser.add_argument("--run", type=Path, help="the folder of a comparison")
    parser.add_argument("--artifact", type=Path, help="the folder of an artifact; with --test")
    parser.add_argument("--test", type=Path, help="rows to answer")
    parser.add_argument("--limit", type=int, help="answer the first so many rows")
    parser.add_argument("--nearness", action="store_true", help="of a model: how near it is to float32")
    parser.add_argument("--precision", help="of artifacts (default: that of the comparison, or auto)")
    parser.add_argument("--oracle-precision", choices=("auto", *TORCH_TYPES), help="of artifacts in torch alone")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        job = json.loads(args.child.read_text())
        args.child.write_text(json.dumps({"read": read, "answer": answer, "nearness": nearness}[job.pop("do")](**job)))
        assert os.environ[ENGINE] == ORACLE or "torch" not in sys.modules, "torch was imported beside the C++ engine"
        return
    if (args.model, args.run, args.artifact).count(None) != 2 or (args.artifact is None) != (args.test is None):
        parser.error("give a model, --run FOLDER, or --artifact FOLDER --test FILE")
    if args.nearness and not args.model:
        parser.error("--nearness takes a model")
    try:
        if args.model:
            open_source(args.model)
    except RiyazError as error:
        parser.exit(2, f"error: {error}\n")
    if args.nearness:
        near = child(OURS, "nearness", model=args.model)
        found: Found = {"equal": near["same_answers"] == near["answers"], "model": args.model, **near}
    else:
        found = of_model(args) if args.model else of_artifacts(args)
    print(to_json({**found, "cpu": hardware.cpu_model(), "isa": list(hardware.isa())}))
    sys.exit(0 if found["equal"] else 1)


def child(engine: str, do: str, **job: Any) -> Any:
    """What the function named `do` returns in a process of its own with this engine."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps({"do": do, **job}))
        command = [sys.executable, __file__, "--child", str(file)]
        subprocess.run(command, env={**os.environ, ENGINE: engine}, check=True)
        return json.loads(file.read_text())


# a model


def of_model(args: argparse.Namespace) -> Found:
    """Compare the engines on one model; prints a line per text."""
    prompts = pieces(args)
    found: dict[tuple[str, str], Found] = {}
    ends: dict[tuple[str, str], np.ndarray] = {}
    for precision in NATS:
        for engine in SIDES:
            theirs = found[OURS, precision]["tokens"] if engine == ORACLE else []
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "ends.npy"
                found[engine, precision] = child(
                    engine, "read", model=args.model, precision=precision, prompts=prompts, theirs=theirs,
                    tokens=args.tokens if precision == "fp32" else 0, ends=str(file),
                )  # fmt: skip
                ends[engine, precision] = np.load(file)
    nats = {key: np.array(side["nats"]) for key, side in found.items()}
    apart = {precision: nats[OURS, precision] - nats[ORACLE, precision] for precision in NATS}
    read_tokens = np.array([len(prompt) - 1 for prompt in prompts])
    over_all = {precision: float(np.average(each, weights=read_tokens)) for precision, each in apart.items()}
    wanted = ends[ORACLE, "fp32"]
    logits = np.abs(ends[OURS, "fp32"] - wanted)
    relative = float((logits / np.maximum(1, np.abs(wanted))).max())
    mine, oracle = found[OURS, "fp32"], found[ORACLE, "fp32"]
    rows = [parting(*each) for each in zip(mine["tokens"], oracle["tokens"], oracle["gaps"])]
    print("tokens  log-probability  nats in fp32  nats in auto  greedy text")
    for i, (prompt, row) in enumerate(zip(prompts, rows)):
        figures = f"{len(prompt):6} {logits[i].max():16.1e} {apart['fp32'][i]:13.1e} {apart['auto'][i]:13.1e}"
        print(f"{figures}  {row['text']}" + (f" at token {row['token']}, gap {row['gap']:.1e}" if "gap" in row else ""))
    verdicts = [row["text"] for row in rows]
    within = relative <= LOGITS and all(np.abs(apart[key]).max() <= limit for key, limit in NATS.items())
    within = within and all(abs(over_all[key]) <= limit for key, limit in NATS_ALL.items())
    return {
        "equal": bool(within) and OTHER not in verdicts, "model": args.model, "prompts": len(prompts),
        "prompt_tokens": sum(map(len, prompts)), "tokens": args.tokens,
        "served": {" ".join(key): side["served"] for key, side in found.items()},
        "log_probability": float(logits.max()), "relative": relative, "limit": LOGITS,
        "nats": {key: float(np.abs(each).max()) for key, each in apart.items()}, "nats_limit": NATS,
        "nats_all": over_all, "nats_all_limit": NATS_ALL,
        "auto_from_fp32": {side: float(np.abs(nats[side, "auto"] - nats[ORACLE, "fp32"]).max()) for side in SIDES},
        "greedy": {verdict: verdicts.count(verdict) for verdict in (EQUAL, TIED, OTHER)},
        "parted": [row for row in rows if row["text"] != EQUAL],
    }  # fmt: skip


def pieces(args: argparse.Namespace) -> list[list[int]]:
    """Token ids of the texts: built-in ones, or pieces of files, evenly spaced in each."""
    tokenizer = open_source(args.model).tokenizer()
    if args.text is None:
        parts = [tokenizer.encode(text) for text in TEXTS[: args.prompts]]
    else:
        streams, parts = [tokenizer.encode(content(path)) for path in args.text], []
        rounds = -(-args.prompts // len(streams))
        for i in range(args.prompts):
            turn, which = divmod(i, len(streams))
            stream, length = streams[which], LENGTHS[turn % len(LENGTHS)]
            start = turn * max(0, len(stream) - length) // rounds
            parts.append(stream[start : start + length])
    return [[*tokenizer.beginning, *part] for part in parts]


def content(path: Path) -> str:
    """The text of a file; of JSON Lines the longest text of every row."""
    if path.suffix != ".jsonl":
        return path.read_text(encoding="utf-8")
    rows = (row.values() for _, row in read_lines(path))
    return "\n\n".join(max((value for value in row if isinstance(value, str)), key=len, default="") for row in rows)


def read(
    model: str, precision: Precision, prompts: list[list[int]], tokens: int, theirs: list[list[int]], ends: str
) -> Found:  # fmt: skip
    """Nats per token of every text, greedy tokens after it, and by how many nats each of `theirs` is below the best
    token; the log-probabilities (texts, vocabulary) after the texts go to the file `ends`."""
    engine = open_engine(open_source(model), precision)
    whole = [Request(i, tuple(prompt), limit=tokens) for i, prompt in enumerate(prompts)]
    begun = [Request(i, tuple(prompt[:1])) for i, prompt in enumerate(prompts)]
    parts = engine.logprobs(begun, [prompt[1:] for prompt in prompts])
    np.save(ends, np.concatenate(list(engine.distributions(whole, [(0,)] * len(whole)))))
    return {
        "served": engine.served, "nats": [-float(part.mean(dtype=np.float64)) for part in parts],
        "tokens": engine.generate(whole) if tokens else [],
        "gaps": [gaps(engine, request, chosen) for request, chosen in zip(whole, theirs)],
    }  # fmt: skip


def gaps(engine: Engine, request: Request, tokens: list[int]) -> list[float]:
    """By how many nats each token of a continuation is below the likeliest one."""
    (rows,) = engine.distributions([request], [tokens])
    return (rows.max(1) - rows[np.arange(len(tokens)), tokens]).tolist()


def nearness(model: str) -> Found:
    """How near the model as its file stores it is to itself in float32: equal answers, and divergences in nats."""
    served, exact = (open_target(model, None, precision) for precision in ("auto", "fp32"))
    questions = QUESTIONS.replace("\n", "|").split("|")
    equal = 0
    for question in questions:
        mine, wanted = (each.answer(({"role": "user", "content": question},), ANSWER) for each in (served, exact))
        equal += mine == wanted
        if mine != wanted:
            print(f"{question}\n  float32 {wanted!r}\n  served  {mine!r}", flush=True)
    engines = served.lm, exact.lm
    texts = [served.tokenizer.encode(text) for text in TEXTS]
    pieces_of = [text[at : at + FEW] for text in texts for at in range(0, len(text) - 1, FEW)]
    together = [list(chain(*texts[at : at + 5]))[: served.lm.context] for at in range(0, len(texts), 5)]
    read = {"as_answers": [piece for piece in pieces_of if len(piece) > 1], "as_prompts": together}
    nats = {name: divergence(*engines, parts) for name, parts in read.items()}
    print(f"{equal} of {len(questions)} answers equal; divergence, nats: {nats}")
    return {"served": served.lm.served, "answers": len(questions), "same_answers": equal, "divergence": nats}


def divergence(engine: Engine, exact: Engine, parts: list[list[int]]) -> float:
    """Mean Kullback-Leibler divergence of the distributions of one engine from another's after each token but one."""
    total, count = 0.0, 0
    for part in parts:
        (mine,), (wanted,) = (each.distributions([Request(0, (part[0],))], [part[1:]]) for each in (engine, exact))
        total += float((np.exp(wanted, dtype=np.float64) * (wanted - mine)).sum())
        count += len(part) - 1
    return total / count


def parting(mine: list[int], wanted: list[int], below: list[float]) -> Found:
    """Whether two greedy texts are equal, part at a tie or differ; `below` are the gaps of `mine` under the oracle."""
    worst = max(below, default=0.0)
    if mine == wanted and worst < TIE:
        return {"text": EQUAL}
    place = next((i for i, (a, b) in enumerate(zip(mine, wanted)) if a != b), int(np.argmax(below)))
    return {"text": TIED if worst < TIE else OTHER, "token": place, "gap": below[place], "largest_gap": worst}


# artifacts


def of_artifacts(args: argparse.Namespace) -> Found:
    """Compare the engines on artifacts; prints a line per arm."""
    precision, arms = chosen(args)
    torchs = args.oracle_precision or (precision if precision in TORCH_TYPES else "auto")
    print(f"{'':16} rows   native    torch      p  differ  ties  other passages  other answers")
    found = {}
    for name, parts in arms:
        mine: list[Found] = []
        wanted: list[Found] = []
        for target, rows in parts:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "rows.jsonl"
                file.write_bytes(examples_bytes(rows[: args.limit]))
                job = {"target": str(target), "rows": str(file)}
                ours = child(OURS, "answer", precision=precision, theirs=[], **job)
                oracle = child(ORACLE, "answer", precision=torchs, theirs=ours["rows"], **job)
            mine, wanted = mine + ours["rows"], wanted + oracle["rows"]
        served = {OURS: ours["served"], ORACLE: oracle["served"]}
        found[name] = {"served": served, **judged(mine, wanted, TIES.get(served[OURS].split()[0], 0.0))}
        print(line(name, found[name]), flush=True)
    return {"equal": all(arm["equal"] for arm in found.values()), "arms": found}


def chosen(args: argparse.Namespace) -> tuple[str, list[Arm]]:
    """The precision that was asked for or that a comparison served in, and what answers which rows."""
    if args.artifact:
        rows = load(args.test, **DataConfig().reading(), like=reading_of(args.artifact)).examples
        return args.precision or "auto", [(args.artifact.name, [(args.artifact, rows)])]
    folder = ComparisonFolder(args.run)
    settings, names = folder.settings(), sorted(path.name for path in (args.run / "split").iterdir())
    tested = {name: rows for name in names if (rows := folder.rows(name, "test"))}
    arms: list[Arm] = []
    for method in settings.methods:
        made = {part: folder.part(method, part) / "artifact" for part in tested}
        if parts := [(path, tested[part]) for part, path in made.items() if path.is_dir()]:
            arms.append((method, parts))
    return args.precision or settings.settings.precision, arms


def answer(target: str, rows: str, precision: Precision, theirs: list[Found]) -> Found:
    """Answers of an artifact with their scores, and how far each of `theirs` that differs is from the own answer."""
    examples = read_examples(Path(rows))
    predictor = open_target(target, precision=precision)
    task = predictor.task
    assert task is not None, "a model has no task; give an artifact"
    if predictor.has_model and predictor.retriever is not None:
        predictor = replace(predictor, retriever=without_own(predictor.retriever, examples))
    predictions, tokens = answers(predictor, examples)
    points = score(task, predictions, examples).rows.tolist()
    found: list[Found] = [
        {"text": made.text, "tokens": ids, "score": point, "passages": list(made.citations)}
        for made, ids, point in zip(predictions, tokens, points)
    ]
    for example, mine, other in zip(examples, found, theirs):
        if mine["text"] != other["text"]:
            mine["gap"] = distance(predictor, example, mine, other)
    return {"served": predictor.served or "no model", "rows": found}


def answers(predictor: Predictor, examples: Sequence[Example]) -> tuple[list[Prediction], list[list[int]]]:
    """The answer to every example, and the tokens of those that are generated."""
    if predictor.from_set:
        return predict(predictor, examples), [[]] * len(examples)
    prepared = predictor.prepare([example.messages for example in examples], [example.where for example in examples])
    tokens = predictor.lm.generate([each.request for each in prepared])
    texts = [predictor.text_of(ids, each.request.limit) for ids, each in zip(tokens, prepared)]
    return [Prediction(text, citations=each.citations) for text, each in zip(texts, prepared)], tokens


def distance(predictor: Predictor, example: Example, mine: Found, other: Found) -> float | None:
    """Nats between two answers, or between the tokens with which they part; None for prompts with other passages."""
    if not predictor.has_model:
        return float("inf")
    if json.loads(json.dumps(mine["passages"])) != other["passages"]:
        return None
    request = predictor.prepare([example.messages])[0].request
    if not predictor.from_set:
        pair = list(zip_longest(mine["tokens"], other["tokens"]))
        place = next(i for i, (a, b) in enumerate(pair) if a != b)
        (rows,) = predictor.lm.distributions([request], [[*mine["tokens"][:place], 0]])
        a, b = (rows[-1, sorted(request.stop) if token is None else [token]].max() for token in pair[place])
        return abs(float(a - b))
    texts = [mine["text"], other["text"]]
    parts = predictor.lm.logprobs([request] * 2, predictor.tokenizer.answer_ids(texts))
    a, b = (float(part.sum(dtype=np.float64)) + offset(predictor, text) for part, text in zip(parts, texts))
    return abs(a - b)


def offset(predictor: Predictor, text: str) -> float:
    """What is added to the log-probability of an answer from a closed set, or of a common one beside spans."""
    if predictor.has_labels:
        return float(predictor.offsets[predictor.task.labels.index(text)])
    common = predictor.from_set and text in predictor.text.common
    return predictor.text.common_offset if common else 0.0


def judged(mine: Sequence[Found], wanted: Sequence[Found], tie: float) -> Found:
    """Both scores of the same rows, the test of their difference, and the rows that were answered otherwise; a row is a
    tie where the answers are less than `tie` nats apart."""
    points = [np.array([row["score"] for row in side]) for side in (mine, wanted)]
    test = paired_test(*points)
    apart = [(i, row["gap"]) for i, row in enumerate(wanted) if "gap" in row]
    others = [{"row": i, "gap": gap} for i, gap in apart if gap is not None and gap >= tie]
    gaps = sorted(gap for _, gap in apart if gap is not None)
    return {
        "equal": not others and test.p_value >= SIGNIFICANT, "rows": len(mine),
        "score": {OURS: float(points[0].mean()), ORACLE: float(points[1].mean())},
        "scores_differ": int((points[0] != points[1]).sum()), "differ": len(apart), "ties": len(gaps) - len(others),
        "tie": tie, "other_passages": len(apart) - len(gaps), "others": others, "gaps": [round(gap, 4) for gap in gaps],
        "p": test.p_value, "test": test.test, "low": test.low, "high": test.high,
    }  # fmt: skip


def line(name: str, arm: Found) -> str:
    """An arm's row of the table."""
    scores = f"{arm['score'][OURS]:8.4f} {arm['score'][ORACLE]:8.4f} {arm['p']:6.3f}"
    counts = f"{arm['differ']:7} {arm['ties']:5} {arm['other_passages']:15} {len(arm['others']):14}"
    return f"{name:16} {arm['rows']:4} {scores} {counts}"


if __name__ == "__main__":
    main()
