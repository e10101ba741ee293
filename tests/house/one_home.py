"""House rules about what has one home: defaults in config/, types of result files in results/."""

import ast
from pathlib import Path

from house_rules import dotted, modules, top, tree_of

NOT_CHOSEN = {"None", "False", "0", "()", "'auto'"}  # defaults that leave an option as it would be without it


def default_homes(src: Path) -> list[str]:
    """Defaults of options that stand outside config/: a duration, and a parameter's literal default that is also the
    default of the option of its name."""
    known, homes = modules(src), set()
    options = [node for name, path in known.items() if top(name) == "config" for node in ast.walk(tree_of(path))]
    for node in options:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and node.value.args:
            homes.add((ast.unparse(node.target), ast.unparse(node.value.args[0])))
    homes = {(option, value) for option, value in homes if value not in NOT_CHOSEN}
    problems = []
    for name, path in known.items():
        for node in ast.walk(tree_of(path)) if top(name) != "config" else ():
            if (
                isinstance(node, ast.Call)
                and dotted(node.func) == "Seconds"
                and any(isinstance(a, ast.Constant) for a in node.args)
            ):
                problems.append(f"{name}:{node.lineno} {ast.unparse(node)}, a default outside config/")
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                spec = node.args
                pairs = [*zip([*spec.posonlyargs, *spec.args][::-1], spec.defaults[::-1])]
                pairs += zip(spec.kwonlyargs, spec.kw_defaults)
                repeated = homes & {(argument.arg, ast.unparse(value)) for argument, value in pairs if value}
                problems += [
                    f"{name}:{node.lineno} {node.name}({argument}={value}) repeats the default of an option"
                    for argument, value in sorted(repeated)
                ]
    return problems


def result_homes(src: Path) -> list[str]:
    """Documents with a version of their schema, which are results of a command, that are no types in results/."""
    return [
        f"{name}:{node.lineno} {node.name} has a schema and is not in results/"
        for name, path in modules(src).items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and top(name) != "results"
        if any(ast.unparse(field).startswith("schema: Literal") for field in node.body)
    ]
