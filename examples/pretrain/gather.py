"""Text that this machine's Python carries, as JSON Lines: python examples/pretrain/gather.py python.jsonl

The docstrings of the standard library and Python's own help topics; nothing is imported, run or downloaded. Another
Python gives a little more or less of it.
"""

import ast
import json
import pydoc_data.topics
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
SHORTEST = 80  # characters; shorter ones are names and not sentences
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(file: Path) -> Iterator[str]:
    """The docstrings of one module, without a name or a line of its code."""
    try:
        with warnings.catch_warnings(action="ignore"):  # old escapes in old modules
            tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if text and len(text) >= SHORTEST:
            yield text


def texts() -> Iterator[str]:
    """The help topics, then what each module says of itself, every text once."""
    yield from (text for _, text in sorted(pydoc_data.topics.topics.items()))
    library = Path(sysconfig.get_path("stdlib"))
    seen = set[str]()
    for file in sorted(library.rglob("*.py")):
        if LEFT_OUT.isdisjoint(file.relative_to(library).parts):
            found = [text for text in docstrings(file) if text not in seen]
            seen.update(found)
            if found:
                yield "\n\n".join(found)


def main(out: Path) -> None:
    """Write the texts, one a line, and say how much it is."""
    found = list(texts())
    out.write_text("".join(json.dumps({"text": text}) + "\n" for text in found), encoding="utf-8")
    print(f"{len(found):,} texts, {sum(len(text.encode()) for text in found) / 1e6:.1f} MB in {out}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/pretrain/gather.py OUT.jsonl")
    main(Path(sys.argv[1]))
