"""The house rules of names: methods are asked for by theirs only at home, and a name says what it stands for."""

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
    "export/__init__.py": "kinds of weights",
    "families/": "a kind of RoPE scaling",
    "metrics/paired.py": "a kind of quantiles",
    "report/comparison/next_commands.py": "kinds of weights",
    "results/comparison.py": "the method of the data curve of version 0.1, which did not write it",
    "serve/page/documents.py": "the verb rag",
}

BARE_VERBS = {"make", "look", "keep", "say", "tell", "settle", "put", "start"}  # of what?
PARTICIPLES = {"asked", "found", "given", "told"}  # the field has a term: query, options, results, listener
STORED = ("results/pretraining.py", "results/ternarizing.py")  # whose field `asked` stands in files on disk


def vague_names(src: Path) -> list[str]:
    """Module-level functions named by a verb without an object; names that are a participle without a noun."""
    problems = []
    for path in sorted((src / "riyaz").rglob("*.py")):
        where, tree = path.relative_to(src / "riyaz").as_posix(), tree_of(path)
        named = [(node.lineno, node.name) for node in tree.body if isinstance(node, ast.FunctionDef)]
        problems += [f"{where}:{line} {name} names no object" for line, name in named if name in BARE_VERBS]
        for node in ast.walk(tree):
            stored = isinstance(node, ast.Name) and where in STORED
            name = getattr(node, "id", getattr(node, "name", getattr(node, "arg", None)))
            if name in PARTICIPLES and not isinstance(node, ast.keyword) and not stored:
                problems.append(f"{where}:{node.lineno} {name} names no thing")
    return problems


def method_names(root: Path) -> list[str]:
    """Where a method stands by its name outside `methods/`: as a string or an import in the package, quoted or as a
    key in the page."""
    package, page = root / "src/riyaz", root / "page/src"
    names = {path.stem for path in (package / "methods").glob("*.py")} - {"__init__"}
    problems = []
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).as_posix().startswith(("methods/", *OTHER_WORDS)):
            continue
        for node in named(tree_of(path), names):
            problems.append(f"{path.relative_to(root)}:{node.lineno} asks for a method: {ast.unparse(node)}")
    one = "|".join(names)
    word = rf"""(?<!block: )(["'`])({one})\1|(^|[{{,])\s*({one}):"""  # `block` is an option of scrollIntoView
    for path in sorted(page.rglob("*.ts*")):
        found = [n for n, line in enumerate(path.read_text().splitlines(), 1) if names and re.search(word, line)]
        problems += [f"{path.relative_to(root)}:{n} asks for a method by its name" for n in found]
    return problems


def named(tree: ast.AST, names: set[str]) -> Iterator[ast.expr | ast.stmt]:
    """Strings that are a method's name, without those that are compared with one of KINDS, and imports of its file."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Compare) and KINDS & {
            getattr(side, "attr", getattr(side, "id", "")) for side in (node.left, *node.comparators)
        }:
            continue
        if isinstance(node, ast.ImportFrom):
            imported = {f"{node.module}.{name.name}" for name in node.names} | {node.module}
            if imported & {f"riyaz.methods.{name}" for name in names}:
                yield node
        if isinstance(node, ast.Constant) and node.value in names:
            yield node
        yield from named(node, names)
