"""The notebooks: made from pages of the documentation, executed without an error, and small."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
import tiny_notebook
from jupyter_client.manager import start_new_kernel
from waiting import HANG

ROOT = Path(__file__).parents[2]
NAMES = ("library", "compare", "lesson")
TEXT = "the quick brown fox jumps over the lazy dog and then the other one\\n"
PRETRAIN = (
    "import riyaz, pathlib\n"
    f"pathlib.Path('text.txt').write_text('{TEXT}' * 400)\n"
    "run = riyaz.pretrain('text.txt', out='fresh', steps=6, tokenizer='bytes', context=64, layers=1, width=32, "
    "heads=2, batch=4, resume={resume})"
)
SHOWN = "train, 3/6"
# Every step is shown, and at the third one the training waits until it is interrupted, however late that comes.
WAITING = f"""
import select
from riyaz.library import progress
progress.EVERY = 0
hear = progress.NotebookProgress.hear
def waiting(shown, event):
    hear(shown, event)
    if {SHOWN!r} in repr(shown):
        select.select([], [], [], {HANG})
progress.NotebookProgress.hear = waiting
"""


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The program that makes the notebooks."""
    spec = importlib.util.spec_from_file_location("make_notebooks", ROOT / "docs/notebooks/make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / f"docs/notebooks/{name}.ipynb", as_version=4)


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str, str]]:
    return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]


def outputs(notebook: nbformat.NotebookNode) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_is_its_page(make: ModuleType, name: str) -> None:
    notebook = committed(name)
    nbformat.validate(notebook)
    assert cells(notebook) == cells(make.notebook_of(name)), "run `make notebooks`"
    assert (ROOT / f"docs/notebooks/{name}.ipynb").stat().st_size <= make.LARGEST
    kinds = {output.output_type for output in outputs(notebook)}
    assert "execute_result" in kinds and "error" not in kinds
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"], "a warning"
    assert not [text for text in ("/tmp", "/root", "/home/") if text in json.dumps(notebook)], "a path of a machine"


def test_the_stories_have_pictures() -> None:
    for name in ("compare", "lesson"):
        assert any("image/png" in output.get("data", {}) for output in outputs(committed(name)))


def test_a_changed_page_is_seen(make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / make.PAGES["lesson"]).read_text(encoding="utf-8")
    (tmp_path / "lesson.md").write_text(text.replace('"The capital of France is"', '"The capital of Spain is"'))
    monkeypatch.setitem(make.PAGES, "lesson", str(tmp_path / "lesson.md"))
    changed = [
        pair for pair in zip(cells(committed("lesson")), cells(make.notebook_of("lesson"))) if pair[0] != pair[1]
    ]
    assert [code for _, (_, _, code) in changed if "Spain" in code]


def test_links_lead_from_the_folder_of_the_notebooks(make: ModuleType) -> None:
    for name in NAMES:
        for cell in make.cells_of(name):
            for link in make.LINK.findall(cell.source if cell.cell_type == "markdown" else ""):
                assert (ROOT / make.HERE / link[0]).exists(), (name, link)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "library"])
def test_a_notebook_runs(make: ModuleType, name: str, tmp_path: Path) -> None:
    """That of docs/library.md is run by tests/cli/test_library.py, without a kernel."""
    for long, _ in tiny_notebook.SHORTER[name]:
        assert long in (ROOT / make.PAGES[name]).read_text(encoding="utf-8"), "the page says it no more"
    tiny_notebook.few_examples(tmp_path)
    notebook = make.execute(name, tmp_path, tiny=True)
    assert cells(notebook) == cells(make.notebook_of(name)) and str(tmp_path) not in json.dumps(notebook)
    shown = [output for output in outputs(notebook) if "text/html" in output.get("data", {})]
    assert shown and not [output for output in outputs(notebook) if output.output_type == "error"]
    for cell in notebook.cells:
        tables = [
            output for output in cell.get("outputs", ()) if "<table" in output.get("data", {}).get("text/html", "")
        ]
        assert len(tables) <= 1, "a result shows once"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """A kernel with the tiny model, and its manager."""
    manager, client = start_new_kernel(cwd=str(tmp_path))
    try:
        client.execute_interactive(tiny_notebook.setup(tmp_path), output_hook=lambda message: None, timeout=HANG)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run_cell(client: Any, code: str, hear: Callable[[str], None] = lambda text: None) -> list[Any]:
    """The messages of a cell with its outputs; `hear` is called with every text that the cell displays."""
    messages: list[Any] = []

    def keep(message: Any) -> None:
        messages.append(message)
        hear(message["content"].get("data", {}).get("text/plain", ""))

    client.execute_interactive(code, output_hook=keep, timeout=HANG)
    return messages


@pytest.mark.slow
def test_an_interrupted_cell_ends_with_one_line_and_goes_on(kernel: tuple[Any, Any]) -> None:
    manager, client = kernel
    interrupts: list[str] = []

    def stop(text: str) -> None:
        if SHOWN in text and not interrupts:
            interrupts.append(text)
            manager.interrupt_kernel()

    run_cell(client, WAITING)
    messages = run_cell(client, PRETRAIN.format(resume=False), stop)
    (error,) = [message["content"] for message in messages if message["msg_type"] == "error"]
    assert len(error["traceback"]) == 1 and error["ename"] == "Stopped" and interrupts
    assert error["traceback"][0] == "stopped at step 3; the same call with resume=True goes on"
    assert not [message for message in messages if message["msg_type"] == "stream"], "nothing else is written"
    run_cell(client, "progress.NotebookProgress.hear = hear")
    again = run_cell(client, PRETRAIN.format(resume=True).replace("pathlib.Path", "#") + "\nprint(run.result.status)")
    written = [message["content"]["text"] for message in again if message["msg_type"] == "stream"]
    assert written == ["done\n"]
