"""A real server with a tiny model, and Chromium: what the tests of the page in a browser share.

They are no part of the suite, since not every machine has a browser: `make test-page` runs them (Debian: chromium).
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/helpers")]

import fake_page  # noqa: E402
from live_server import Running, running  # noqa: E402
from playwright.sync_api import expect  # noqa: E402
from tiny_llama import write_hf_folder  # noqa: E402

from riyaz.methods import abouts, from_votes  # noqa: E402
from riyaz.serve.opening import Opener  # noqa: E402
from riyaz.serve.page.place import Page  # noqa: E402

expect.set_options(timeout=60_000)  # other work may hold the CPU
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
LONG = "Rechtsschutzversicherungsgesellschaften-Donaudampfschifffahrtsgesellschaftskapitaen"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the page: a model, rows, documents, a comparison, and a file with a long German name."""
    made = tmp_path_factory.mktemp("page")
    write_hf_folder(made / "tiny", context=32_768)  # an answer can go on for as long as a test wants
    rows = [{"prompt": f"card number {n} is lost", "answer": ["card", "money"][n % 2]} for n in range(60)]
    for name in ("rows", LONG):
        (made / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(ROOT / "examples/helpdesk/handbook", made / "handbook")
    (made / "workshop").mkdir()
    (made / "workshop/settings.json").write_text("{}")
    (made / "workshop/compare.json").write_text(json.dumps(fake_page.rich()))
    return made


@pytest.fixture(scope="session")
def served(folder: Path) -> Iterator[Running]:
    """A server with the tiny model under two names."""
    opener = Opener("fp32")
    opener.serve(str(folder / "tiny"))
    page = Page.of(folder, "riyaz ui", abouts(), from_votes())
    with running(opener, page=page) as found:
        found.http.headers["x-riyaz-token"] = page.token
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or "/usr/bin/chromium"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield opened
        opened.close()
