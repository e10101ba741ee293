"""The CPU that the page takes while it follows a training: of `riyaz ui` without the run, and of Chromium.

PYTHONPATH=src .venv/bin/python page/tests/share.py
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

import conftest
from playwright.sync_api import sync_playwright
from processes import Server
from tiny_llama import write_hf_folder
from visits import Visit

SECONDS = 30
TICKS = os.sysconf("SC_CLK_TCK")


def ticks(process: int) -> int:
    """User and system time of a process so far, in ticks, without its children's."""
    try:
        rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0
    return int(rest[11]) + int(rest[12])


def below(process: int) -> list[int]:
    """The processes that a process started, and that those started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            found += [int(path.parent.name), *below(int(path.parent.name))]
    return found


def is_browser(process: int) -> bool:
    """Whether it is one of Chromium's processes."""
    return "chrom" in Path(f"/proc/{process}/comm").read_text()


def used(server: int, browser: list[int]) -> tuple[int, int]:
    """Ticks of the server and of the browser."""
    return ticks(server), sum(map(ticks, browser))


def main() -> None:
    """Follow a training that the page began, and print both shares of one core and of all."""
    place = Path(tempfile.mkdtemp())
    write_hf_folder(place / "tiny")
    shutil.copytree(conftest.ROOT / "examples/helpdesk/handbook", place / "handbook")
    with Server(place, "--model", "tiny") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=conftest.ARGUMENTS)
        with Visit(browser, server, "learn", token=server.token) as visit:
            page = visit.page
            page.get_by_label("Text to learn from").fill("handbook")
            page.get_by_label("Text to learn from").press("Tab")
            page.get_by_label("Size").select_option("5m")
            page.get_by_label("Budget").fill("4m")
            page.get_by_role("button", name="Start").click()
            page.get_by_role("img", name="Loss in nats per token").wait_for(timeout=120_000)
            page.wait_for_timeout(5000)
            step = page.locator(".tiles > div", has_text="step").locator("b")
            processes = [each for each in below(os.getpid()) if is_browser(each)]
            steps, before, began = step.inner_text(), used(server.process.pid, processes), time.monotonic()
            page.wait_for_timeout(1000 * SECONDS)
            after, took = used(server.process.pid, processes), time.monotonic() - began
            cores = os.cpu_count() or 1
            shares = [100 * (now - then) / TICKS / took for now, then in zip(after, before)]
            for name, share in zip(("riyaz ui", "Chromium", "together"), [*shares, sum(shares)]):
                print(f"{name}: {share:.1f} % of a core, {share / cores:.1f} % of {cores} cores")
            print(f"step {steps}, {took:.0f} s later {step.inner_text()}")
            assert page.locator(".badge").first.inner_text() == "running", "it trained to the end of the measurement"
        browser.close()
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
