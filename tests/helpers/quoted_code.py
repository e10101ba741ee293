"""Code that a document quotes: each quote stands inside the function or class that the link before it names.

[`train.train`](../src/riyaz/train.py)

```python
lines as they stand in the function, indented as one likes
```
"""

import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-a-model-learns.md"
REFERENCE = re.compile(
    r"\[`(?P<symbol>[\w.]+)`\]\(\.\./(?P<path>[\w./-]+\.py)\)\n\n```python\n(?P<code>.*?)\n```", re.DOTALL
)


def plain(lines: list[str]) -> list[str]:
    """Lines without the indentation that all of them share."""
    return textwrap.dedent("\n".join(lines)).rstrip().splitlines()


def body(source: str, name: str) -> list[str] | None:
    """The lines of a function or class, named as `Class.method`; None when the file has none of this name."""
    scope: ast.AST = ast.parse(source)
    for part in name.split("."):
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        inside = [node for node in ast.iter_child_nodes(scope) if isinstance(node, kinds) and node.name == part]
        if not inside:
            return None
        scope = inside[-1]
    assert isinstance(scope, ast.stmt)
    return source.splitlines()[scope.lineno - 1 : scope.end_lineno]


def holds(lines: list[str], code: list[str]) -> bool:
    """Whether the code stands somewhere in these lines, whatever its indentation."""
    return any(plain(lines[start : start + len(code)]) == code for start in range(len(lines) - len(code) + 1))


def problem(root: Path, symbol: str, path: str, code: str) -> str:
    """What is not true of one reference, or ``."""
    if not (root / path).is_file():
        return f"{path}: no such file"
    module = path.removeprefix("src/riyaz/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if not symbol.startswith(f"{module}."):
        return f"{symbol} links to {path}"
    lines = body((root / path).read_text(encoding="utf-8"), symbol.removeprefix(f"{module}."))
    if lines is None:
        return f"{symbol}: {path} has no such function or class"
    quote = plain(code.splitlines())
    return "" if holds(lines, quote) else f"{symbol}: `{quote[0]}`: it does not say that"


def problems(root: Path, page: str) -> list[str]:
    """References whose file, symbol or quote is not true; blocks of code that belong to none."""
    references = list(REFERENCE.finditer(page))
    wrong = [problem(root, one["symbol"], one["path"], one["code"]) for one in references]
    blocks = page.count("```python")
    counted = [] if blocks == len(references) else [f"{blocks} blocks of code, but {len(references)} references"]
    return [line for line in wrong if line] + counted
