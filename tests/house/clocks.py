"""A house rule: no test reads a clock, sleeps, or gives up sooner than only a hang would make it.

A test must pass on a machine that is busy, slow, or stands still for a minute. `clocks.json` lists the files that did
otherwise when the rule came, each with its number of uses; the list may only shrink. `python tests/house/clocks.py`
prints every use, `--write` lowers the list to what is there and raises nothing.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import house_rules as rules

HANG = 30  # seconds: a limit below it is reached by a machine that is busy
FOLDERS = ("tests", "page/tests")
HOME = "tests/helpers/waiting.py"  # the one place that sleeps; it counts its looks, and names what only a hang reaches
LIST = "tests/house/clocks.json"
ADVICE = "see tests/helpers/waiting.py"
CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time"}
CLOCKS |= {f"{name}_ns" for name in CLOCKS} | {"clock_gettime", "clock_gettime_ns"}
TIMES = {*CLOCKS, "sleep", "timeit", "repeat", "default_timer"}  # how an attribute that is a clock may be called
SLEEPS = {"sleep", "wait_for_timeout"}  # the second is a browser's
NAMES = {"timeout", "deadline"}  # of arguments, parameters and attributes that are limits; `queue_timeout` is a setting
# The places at which a call takes its limit; `wait` is a method, event.wait(5), and a function, wait(futures, 5).
PLACES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("join", "result", "exception", "poll", "settimeout", "setdefaulttimeout"), (0,)),
    **dict.fromkeys(("Timer", "call_later", "alarm", "timeout", "Timeout", "fail_after", "move_on_after"), (0,)),
    **dict.fromkeys(("create_connection", "wait_for", "communicate", "setitimer"), (1,)),
    **{"set_default_timeout": (0,), "wait": (0, 1), "select": (3,)},
}
AFTER_BLOCK = {"get": 1, "acquire": 1, "put": 2}  # the place behind a literal True, as in queue.get(True, 5)
MILLISECONDS = re.compile(r"to_|wait_for(_|$)|set_")  # names of calls whose limits are a browser's
PROFILES = {"settings", "register_profile"}  # of hypothesis, whose deadline is for one example
HTTPX = re.compile(r"httpx\.(get|post|put|patch|delete|head|options|request|stream|Client|AsyncClient)")


def clock_uses(root: Path) -> list[str]:
    """Files of the tests that use clocks, sleeps and short limits other than as often as LIST says."""
    allowed, found, problems = allowances(root), uses(root), []
    for name in sorted(allowed.keys() | found.keys()):
        here, most = found.get(name, []), allowed.get(name, 0)
        if not (root / name).exists():
            problems.append(f"{name}: stands in {LIST} and is gone; run `python tests/house/clocks.py --write`")
        elif len(here) > most:
            problems.append(f"{name}: {len(here)} uses of a clock, {most} allowed; {ADVICE}")
            problems += here
        elif len(here) < most:
            problems.append(
                f"{name}: {len(here)} uses of a clock, {most} in {LIST}; run `python tests/house/clocks.py --write`"
            )
    return problems


def allowances(root: Path) -> dict[str, int]:
    """The list: file -> its number of uses."""
    path = root / LIST
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def uses(root: Path) -> dict[str, list[str]]:
    """File -> its uses as `file:line what`, of the files that have any."""
    files = [path for folder in FOLDERS for path in rules.python_files(root / folder)]
    names = {path.relative_to(root).as_posix(): path for path in files}
    found = {
        name: [f"{name}:{line} {what}" for line, what in sorted(uses_of(rules.tree_of(path)))]
        for name, path in names.items()
        if name != HOME
    }
    return {name: here for name, here in found.items() if here}


def uses_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and words of every use in one file."""
    nodes = [*ast.walk(tree)]
    local, known = names_of(nodes), constants(tree)
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Load):
            if getattr(node, "attr", "") not in TIMES and getattr(node, "id", "") not in local:
                continue
            parts = rules.full(rules.dotted(node), local).split(".")
            # A sleep that is called is told below.
            asked = CLOCKS if id(node) in called else CLOCKS | {"sleep"}
            if (parts[-2:-1] == ["time"] and parts[-1] in asked) or (parts[0] == "timeit" and parts[1:]):
                yield node.lineno, f"reads a clock: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time" and node.names[0].name == "*":
            yield node.lineno, "imports every clock: from time import *"
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in call_uses(node, local, known))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from ((node.lineno, what) for what in short_defaults(node, known))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = {rules.dotted(target).rpartition(".")[2] for target in targets}
            if named & NAMES and short(node.value, known):
                yield node.lineno, f"a limit below {HANG} s: {ast.unparse(node)}"


def call_uses(node: ast.Call, local: dict[str, str], known: dict[str, float]) -> Iterator[str]:
    """What one call does by the clock: a sleep, short limits, httpx's own limit."""
    name = rules.full(rules.dotted(node.func), local)
    # A method has its name also behind a call: pool.submit(f).result(5). A function of this very file is none of these.
    last = node.func.attr if isinstance(node.func, ast.Attribute) else name.rpartition(".")[2] if "." in name else ""
    if last in SLEEPS and (node.args or node.keywords):
        if not (name == "asyncio.sleep" and node.args and number(node.args[0], known) == 0):
            yield f"sleeps: {ast.unparse(node)}"
        return
    places = PLACES.get(last, ())
    if last in AFTER_BLOCK and node.args and getattr(node.args[0], "value", None) is True:
        places = (AFTER_BLOCK[last],)
    limits = [node.args[place] for place in places if place < len(node.args)]
    limits += [word.value for word in node.keywords if word.arg in NAMES]
    milliseconds = bool(MILLISECONDS.match(last)) and name != "asyncio.wait_for"
    if any(short(value, known, milliseconds) for value in limits):
        yield f"a limit below {HANG} s: {ast.unparse(node)[:120]}"
    elif {last, name} & PROFILES and any(
        word.arg == "deadline" and number(word.value, known) for word in node.keywords
    ):
        yield f"a limit of seconds for one example: {ast.unparse(node)[:120]}"
    if HTTPX.fullmatch(name) and not any(word.arg in {"timeout", None} for word in node.keywords):
        yield f"{name} gives up after 5 s unless it is given a `timeout=`"


def short_defaults(node: ast.FunctionDef | ast.AsyncFunctionDef, known: dict[str, float]) -> Iterator[str]:
    """Parameters that are limits and are short unless a caller says more."""
    placed = [*node.args.posonlyargs, *node.args.args]
    pairs = [*zip(placed[::-1], node.args.defaults[::-1]), *zip(node.args.kwonlyargs, node.args.kw_defaults)]
    for parameter, default in pairs:
        if parameter.arg in NAMES and default and short(default, known):
            yield f"a limit below {HANG} s: {node.name}({parameter.arg}={ast.unparse(default)})"


def short(node: ast.expr, known: dict[str, float], milliseconds: bool = False) -> bool:
    """Whether a limit is a number that a busy machine reaches. None waits for ever, 0 only looks."""
    value = number(node, known)
    return value is not None and 0 < value < (HANG * 1000 if milliseconds else HANG)


def number(node: ast.AST, known: dict[str, float]) -> float | None:
    """The value of an expression of numbers and of the file's constants, else None."""
    if isinstance(node, ast.Constant):
        return float(node.value) if isinstance(node.value, (int, float)) and not isinstance(node.value, bool) else None
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div, ast.Add)):
        left, right = number(node.left, known), number(node.right, known)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Add):
            return left + right
        return left / right if right else None
    return None


def constants(tree: ast.Module) -> dict[str, float]:
    """The numbers that the file names at its top level, if it names each once."""
    found: dict[str, float] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = number(node.value, found)
            if value is not None:
                found[node.targets[0].id] = value
    return found


def names_of(nodes: list[ast.AST]) -> dict[str, str]:
    """What imports call a thing in this file -> its name in full."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {item.asname: item.name for item in node.names if item.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {item.asname or item.name: f"{node.module or ''}.{item.name}" for item in node.names}
    return found


def write(root: Path) -> list[str]:
    """Lowers the list to what is there; returns the files that use more than it allows, whose numbers it leaves."""
    found = {name: len(here) for name, here in uses(root).items()}
    allowed = allowances(root) if (root / LIST).exists() else found
    kept = {name: min(count, allowed[name]) for name, count in sorted(found.items()) if name in allowed}
    (root / LIST).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return [
        f"{name}: {count} uses of a clock, {allowed.get(name, 0)} allowed; not written; {ADVICE}"
        for name, count in sorted(found.items())
        if count > allowed.get(name, 0)
    ]


def main(arguments: list[str], root: Path = rules.ROOT) -> int:
    """Prints every use, or with `--write` lowers the list and prints what stands above it; the exit status."""
    if "--write" in arguments:
        above = write(root)
        print("\n".join([*above, f"{LIST}: {sum(allowances(root).values())} uses"]))
        return bool(above)
    print("\n".join(line for here in uses(root).values() for line in here))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
