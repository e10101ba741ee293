"""The house rule that methods are asked for their fields, and by their names only where they are at home."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from house_rules import tree_of

# Words that are a method's name and mean something else: what an artifact says of itself, and what is in these files.
KINDS = {"kind", "weights", "examples"}
OTHER_WORDS = {
    "artifact.py": "kinds of weights and of examples",
    "card.py": "kinds of weights",
    "adapters/": "kinds of adapter files",
    "cli/main.py": "the verb rag",
    "serve/page/documents.py": "the verb rag",
}


def method_names(root: Path) -> list[str]:
    """Where a method is asked for by its name outside `methods/`, in the package and in the page."""
    package, page = root / "src/riyaz", root / "page/src"
    names = {path.stem for path in (package / "methods").glob("*.py")} - {"__init__"}
    problems = []
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).as_posix().startswith(("methods/", *OTHER_WORDS)):
            continue
        for node in looked_up(tree_of(path)):
            if isinstance(node, ast.Constant) and node.value in names:
                problems.append(f"{path.relative_to(root)}:{node.lineno} asks for the method {node.value} by its name")
    one = "|".join(names)
    word = rf"""(?<!block: )(["'`])({one})\1|^\s*({one}):"""  # `block` is an option of scrollIntoView
    for path in sorted(page.rglob("*.ts*")):
        found = [n for n, line in enumerate(path.read_text().splitlines(), 1) if names and re.search(word, line)]
        problems += [f"{path.relative_to(root)}:{n} asks for a method by its name" for n in found]
    return problems


def looked_up(tree: ast.AST) -> Iterator[ast.expr | None]:
    """What a file compares with, and what its tables, lists and subscripts hold; without comparisons of KINDS."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Compare):
            if any(getattr(side, "attr", getattr(side, "id", "")) in KINDS for side in (node.left, *node.comparators)):
                continue
            yield from (node.left, *node.comparators)
        elif isinstance(node, ast.Dict):
            yield from node.keys
        elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            yield from node.elts
        elif isinstance(node, ast.Subscript):
            yield node.slice
        elif isinstance(node, ast.MatchValue):
            yield node.value
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("startswith", "endswith"):
            yield from node.args
        yield from looked_up(node)
