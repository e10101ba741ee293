"""Makes the notebooks beside this file from pages of the documentation, and executes them: `make notebooks`.

    python docs/notebooks/make.py [NAME…] [--tiny]

Every block of Python is a cell of code; the text between is a cell of Markdown. With `--tiny` a tiny model without
training answers in a few seconds, as in the tests; otherwise the models of this machine do.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
HERE = "docs/notebooks"
PAGES = {"library": "docs/library.md", "compare": f"{HERE}/compare.md", "lesson": f"{HERE}/lesson.md"}
TINY = ("library",)  # committed with the outputs of the tiny model: its calls would take half an hour
BLOCK = re.compile(r"^```python\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)\s#]+)(#[^)]*)?\)")
HEAD = "*This notebook is made from [{page}]({link}) by [make.py](make.py); change the page, not the notebook.*"
OF_TINY = " *Its outputs come from a tiny model without training, so that answers and scores mean nothing.*"
LARGEST = 200_000  # bytes of a notebook
SECONDS = 1200  # for one cell


def cells_of(name: str) -> list[nbformat.NotebookNode]:
    """The cells of a page: first what made them, then its text and its code in their order."""
    page = ROOT / PAGES[name]
    link = os.path.relpath(page, ROOT / HERE)
    head = HEAD.format(page=PAGES[name], link=link) + (OF_TINY if name in TINY else "")
    cells = [nbformat.v4.new_markdown_cell(head)]
    for place, part in enumerate(BLOCK.split(page.read_text(encoding="utf-8"))):
        if place % 2:
            cells.append(nbformat.v4.new_code_cell(part))
        elif part.strip():
            cells.append(nbformat.v4.new_markdown_cell(_from_here(part.strip(), page.parent)))
    for place, cell in enumerate(cells):
        cell["id"] = f"{name}-{place}"
    return cells


def _from_here(text: str, folder: Path) -> str:
    """Markdown whose links lead from the folder of the notebooks to where they led from `folder`."""
    return LINK.sub(lambda link: f"]({os.path.relpath(folder / link[1], ROOT / HERE)}{link[2] or ''})", text)


def notebook_of(name: str) -> nbformat.NotebookNode:
    """The notebook of a page, without outputs."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells_of(name), metadata=metadata)


def execute(name: str, folder: Path, tiny: bool) -> nbformat.NotebookNode:
    """The notebook of a page, executed in `folder`, which holds the examples. With `tiny` its calls are shortened as
    tests/helpers/tiny_notebook.py says. Raises nbclient's CellExecutionError."""
    notebook = notebook_of(name)
    sources = [cell.source for cell in notebook.cells]
    if tiny:
        import tiny_notebook

        for cell in notebook.cells:
            cell.source = tiny_notebook.shortened(name, cell.source) if cell.cell_type == "code" else cell.source
        notebook.cells.insert(0, nbformat.v4.new_code_cell(tiny_notebook.setup(folder)))
    if not (folder / "examples").exists():
        shutil.copytree(ROOT / "examples", folder / "examples")
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()
    if tiny:
        notebook.cells.pop(0)
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
        cell.metadata.pop("execution", None)  # when it began and ended
        cell["execution_count"] = None
        if cell.cell_type == "code":
            cell.outputs = [_without_place(output, folder) for output in cell.outputs]
        else:
            del cell["execution_count"]
    return notebook


def _without_place(output: Any, folder: Path) -> nbformat.NotebookNode:
    """An output without the name of the folder in which it was made, and without the count of its cell."""
    if output.get("output_type") == "execute_result":
        output["execution_count"] = None
    text = nbformat.from_dict({"x": output})["x"]
    return _replaced(text, f"{folder}{os.sep}")


def _replaced(value: Any, path: str) -> Any:
    if isinstance(value, str):
        return value.replace(path, "")
    if isinstance(value, dict):
        return type(value)({key: _replaced(each, path) for key, each in value.items()})
    return [_replaced(each, path) for each in value] if isinstance(value, list) else value


def main() -> int:
    """Write the notebooks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PAGES)}; all if none is given")
    parser.add_argument("--tiny", action="store_true", help="with the tiny model of the tests")
    options = parser.parse_args()
    for name in options.names:
        if name not in PAGES:
            parser.error(f"no notebook is called {name!r}; choose from {', '.join(PAGES)}")
    sys.path.insert(0, str(ROOT / "tests/helpers"))
    for name in options.names or PAGES:
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(name, Path(folder).resolve(), options.tiny or name in TINY)
        text = nbformat.writes(notebook) + "\n"
        if len(text.encode()) > LARGEST:
            print(f"error: {name}.ipynb has {len(text.encode()):,} bytes; show less in {PAGES[name]}", file=sys.stderr)
            return 1
        path = ROOT / HERE / f"{name}.ipynb"
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(text.encode()):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
