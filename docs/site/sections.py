"""The site's own index: how often each word stands in each section, which Sphinx's index of whole pages does not hold.

static/ranking.js ranks with it. Words are cut to their stems as Sphinx does it. asked.toml adds what strangers ask.
"""

import json
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import desc, desc_signature
from sphinx.application import Sphinx
from sphinx.errors import ConfigError
from sphinx.search.en import SearchEnglish

FILE = "_static/sections.js"
ASKED = Path(__file__).with_name("asked.toml")
TITLE, PAGE_TITLE = 4, 2  # how many times a word of a section's title counts, and of its page's
OPTION = re.compile(r"^  (--[a-z][\w-]*)", re.MULTILINE)


@dataclass
class Section:
    """A section of a page without the sections below it: its page, anchor, title and words, each with its count."""

    page: str
    anchor: str
    title: str
    words: Counter[str] = field(default_factory=Counter)


def write_index(app: Sphinx, error: Exception | None) -> None:
    """Write the index of all sections beside the site's scripts, once its pages are written."""
    if error is not None:
        return
    language = SearchEnglish({})
    sections = [
        each for page in sorted(app.env.all_docs) for each in sections_of(page, app.env.get_doctree(page), language)
    ]
    mean = sum(each.words.total() for each in sections) / len(sections)  # of the site's own
    sections += asked_of(sections, tomllib.loads(ASKED.read_text(encoding="utf-8")), language)
    postings: dict[str, list[int]] = {}
    for place, section in enumerate(sections):
        for word, count in section.words.items():
            postings.setdefault(word, []).extend((place, count))
    index = {
        "sections": [
            [each.page, each.anchor, each.title, each.words.total(), " ".join(sorted(set(stems(each.title, language))))]
            for each in sections
        ],
        "mean": mean,
        "later": app.config.later_pages,
        "words": postings,
    }
    text = json.dumps(index, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    (app.outdir / FILE).write_text(f"const SECTIONS = {text};\n", encoding="utf-8")


def sections_of(page: str, tree: nodes.document, language: SearchEnglish) -> list[Section]:
    """The sections of a page in their order. What stands before the first heading belongs to the page itself."""
    sections: dict[int, Section] = {}
    options: list[Section] = []
    heads = list(tree.findall(nodes.section))
    page_title = heads[0].next_node(nodes.title).astext() if heads else page
    for text in tree.findall(nodes.Text):
        owner, anchor, title = owner_of(text)
        if owner is None or (heads and anchor in heads[0]["ids"]):
            anchor, title = "", title if isinstance(owner, nodes.row) else page_title
        if id(owner) not in sections:
            sections[id(owner)] = Section(page, anchor, title)
            sections[id(owner)].words.update(stems(title, language) * (TITLE - 1))
            sections[id(owner)].words.update(stems(page_title, language) * PAGE_TITLE)
        sections[id(owner)].words.update(stems(text.astext(), language))
        if isinstance(text.parent, nodes.literal_block):  # an option explained in a help text counts as a title
            sections[id(owner)].words.update(OPTION.findall(text.astext()) * TITLE)
            options += options_in(text.astext(), Section(page, anchor, title), language)
    return [*sections.values(), *options]


def options_in(text: str, section: Section, language: SearchEnglish) -> list[Section]:
    """A section for every option of a help text: a page of a hundred of them says too many other words."""
    starts = [match.start() for match in OPTION.finditer(text)]
    explained = []
    for start, end in zip(starts, [*starts[1:], len(text)]):
        lines = text[start:end].split("\n\n")[0]
        words = Counter(stems(lines.replace("-", " "), language))
        explained.append(Section(section.page, section.anchor, section.title, words))
    return explained


def asked_of(sections: list[Section], asked: dict[str, list[str]], language: SearchEnglish) -> list[Section]:
    """A section for every question of asked.toml, with the page, anchor and title of the place that answers it. Raises
    ConfigError for a place that the site does not have."""
    places = {f"{each.page}#{each.anchor}".rstrip("#"): each for each in reversed(sections)}
    unknown = [place for place in asked if place not in places]
    if unknown:
        raise ConfigError(f"{ASKED.name}: {unknown[0]!r} is no page and no heading of the site")
    return [
        Section(places[place].page, places[place].anchor, places[place].title, Counter(stems(question, language)))
        for place, questions in asked.items()
        for question in questions
    ]


def owner_of(text: nodes.Text) -> tuple[nodes.Element | None, str, str]:
    """(what a text belongs to, its anchor, its title): a section, a function or class with its docstring, or a row of
    a table of two columns, which explains what its first cell names and has the anchor of its section."""
    node, row = text.parent, None
    while node is not None:
        if isinstance(node, nodes.section):
            title = node.next_node(nodes.title).astext() if row is None else row[0].astext()
            return row or node, node["ids"][0], title
        if isinstance(node, nodes.row) and len(node) == 2 and isinstance(node.parent, nodes.tbody):
            row = node
        ids = node[0]["ids"] if isinstance(node, desc) and isinstance(node[0], desc_signature) else []
        if ids:
            return node, ids[0], ids[0]
        node = node.parent
    return None, "", ""


def stems(text: str, language: SearchEnglish) -> list[str]:
    """The stems of the words of a text that the search looks for: no stop words; `limit_train` is two words."""
    words = language.split(text.lower().replace("_", " "))
    return [language.stem(word) for word in words if language.word_filter(word)]
