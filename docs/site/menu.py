"""The menu of the site: which pages there are and in what order, read from docs/site/readers.md."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
READERS = "docs/site/readers.md"
PART = re.compile(r"^## (?P<title>.+)\n\n(?P<sentence>.+)\n\n(?P<links>(?: *- \[.+\]\(.+\)\n)+)", re.MULTILINE)
LINK = re.compile(r"^( *)- \[(.+)\]\((.+)\)$", re.MULTILINE)
FRONT = "index"  # the page that README.md becomes


@dataclass(frozen=True)
class Part:
    """One part of the menu: its pages in their order, as paths without ending such as `docs/data`."""

    title: str
    sentence: str
    pages: list[str] = field(default_factory=list)
    below: dict[str, list[str]] = field(default_factory=dict)  # page -> the pages listed under it
    names: dict[str, str] = field(default_factory=dict)  # page -> the text of its link

    def every_page(self) -> list[str]:
        """The pages and those below them, in the order of the menu."""
        return [name for page in self.pages for name in (page, *self.below.get(page, ()))]


def read_menu(root: Path = ROOT) -> list[Part]:
    """The parts of readers.md. Raises AssertionError where a line of a list is no link."""
    text = (root / READERS).read_text(encoding="utf-8")
    parts = []
    for match in PART.finditer(text):
        part = Part(match["title"], match["sentence"])
        for indent, name, link in LINK.findall(match["links"]):
            page = os.path.normpath(PurePosixPath(READERS).parent / link).rpartition(".")[0]
            part.names[page] = name
            if indent:
                part.below.setdefault(part.pages[-1], []).append(page)
            else:
                part.pages.append(page)
        parts.append(part)
    assert len(re.findall(r"^ *- ", text, re.MULTILINE)) == sum(len(part.names) for part in parts), READERS
    return parts


def with_menu(page: str, text: str, menu: list[Part]) -> str:
    """The Markdown of a page with its part of the menu: on the front page all parts, before its first heading of the
    second level; on a page that has pages below it, those."""
    if page == FRONT:
        head, mark, rest = text.partition("\n## ")
        return head + "\n" + "\n".join(["## Where to start\n", *map(_shown, menu)]) + mark + rest
    below = [name for part in menu for name in part.below.get(page, ())]
    return f"{text}\n{_toctree('', below)}" if below else text


def _shown(part: Part) -> str:
    """A part as the front page shows it: title, sentence, links; the toctree that makes the menu is hidden."""
    endings = {page: ".rst" if (ROOT / f"{page}.rst").exists() else ".md" for page in part.pages}
    links = "\n".join(f"- [{part.names[page]}]({page}{endings[page]})" for page in part.pages)
    return f"### {part.title}\n\n{part.sentence}\n\n{links}\n\n{_toctree(part.title, part.pages)}"


def _toctree(caption: str, pages: list[str]) -> str:
    """A hidden toctree in MyST's Markdown."""
    lines = ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join([*lines, "", *(f"/{page}" for page in pages), "```", ""])
