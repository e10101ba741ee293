"""A method is one file: with one file more, the plan, the table, the report, the page and the help have one more."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_comparison
from waiting import HANG

from riyaz.results import COMPARE

SRC = Path(__file__).parents[2] / "src"
CODE = "import sys; from riyaz.cli.main import main; sys.exit(main(sys.argv[1:]))"
WHAT = "Answers as the most similar training question was answered, in a file of its own."
FILE = f'''"""Another name for nearest."""

from riyaz.methods import nearest
from riyaz.methods.fitting.base import Method
from riyaz.results import About

ABOUT = About(what="{WHAT}", suits="a test", colour=8, mark="*", weights="copy", language_model=False)
METHOD = Method(name="borrowed", about=ABOUT, fit=nearest.fit, candidates=0)
'''


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package by links, and the new file."""
    made = tmp_path_factory.mktemp("source")
    (made / "riyaz/methods").mkdir(parents=True)
    for path in [*(SRC / "riyaz").iterdir(), *(SRC / "riyaz/methods").iterdir()]:
        if path.name not in ("methods", "__pycache__"):
            (made / path.relative_to(SRC)).symlink_to(path)
    (made / "riyaz/methods/borrowed.py").write_text(FILE)
    return made


def riyaz(source: Path, *words: object) -> "subprocess.Popen[str]":
    """A command of the package with the new file."""
    command = [sys.executable, "-c", CODE, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(source), "COLUMNS": "200"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def told(source: Path, *words: object) -> str:
    process = riyaz(source, *words)
    out, err = process.communicate(timeout=HANG)
    assert process.returncode == 0, err
    return out


def test_the_help_of_adapt_names_it(source: Path) -> None:
    said = " ".join(told(source, "adapt", "--help").split())
    names = "borrowed, distil, dpo, encoder, ensemble, few_shot, full, instruct, kto, linear, lora, nearest, orpo"
    assert names in said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training and test rows, in the folder of a page."""
    made = tmp_path_factory.mktemp("page")
    tiny_comparison.write_rows(made / "rows/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(made / "rows/test.jsonl", tiny_comparison.closed_rows(18, "today"))
    return made


@pytest.fixture(scope="module")
def compared(source: Path, folder: Path, model_folder: Path) -> dict[str, Any]:
    """compare.json of a comparison with the new method."""
    words = (
        "compare",
        folder / "rows",
        "--model",
        model_folder,
        "--methods",
        "nearest,borrowed",
        "--budget",
        "3h",
    )
    planned = json.loads(told(source, *words, "--out", folder / "out", "--dry-run", "--json").splitlines()[-1])
    assert [arm["method"] for arm in planned["plan"]["arms"]] == ["nearest", "borrowed"]
    assert "borrowed" in told(source, *words, "--out", folder / "out"), "in the table on the terminal"
    return json.loads((folder / "out" / COMPARE).read_text())


@pytest.mark.slow
def test_the_plan_the_table_and_the_report_have_it(folder: Path, compared: dict[str, Any]) -> None:
    (arm,) = [arm for arm in compared["arms"] if arm["method"] == "borrowed"]
    about = {"what": WHAT, "suits": "a test", "colour": 8, "mark": "*", "weights": "copy", "language_model": False}
    assert (arm["status"], arm["about"]) == ("ok", about)
    page, text = ((folder / "out" / name).read_text() for name in ("report.html", "report.md"))
    assert WHAT in page and "A test." in page and 'class="dot c8"' in page and "borrowed" in text


@pytest.mark.slow
def test_the_page_has_it_before_and_after_a_run(
    source: Path, folder: Path, model_folder: Path, compared: dict[str, Any]
) -> None:
    process = riyaz(source, "ui", folder, "--no-browser", "--port", "0", "--model", model_folder)
    try:
        assert process.stdout is not None
        url, _, token = process.stdout.readline().strip().partition("/#token=")
        with httpx.Client(base_url=url, headers={"x-riyaz-token": token}, timeout=HANG) as page:
            methods = page.get("/page/info").json()["methods"]
            run = page.get("/page/run", params={"path": "out"}).json()
    finally:
        process.kill()
        process.communicate()
    assert methods["borrowed"]["what"] == WHAT
    assert run["document"]["arms"] == compared["arms"]
