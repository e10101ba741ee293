"""Asks the search of a built site, in V8: Sphinx's own script, its index and what the site adds to them."""

import json
import re
from pathlib import Path

from py_mini_racer import MiniRacer

# What the scripts expect of a browser; the search itself reads and writes nothing of a page.
BROWSER = """
var window = globalThis, SPHINX_HIGHLIGHT_ENABLED = false, _ready = () => {}, _ = text => text;
var document = {getElementById: () => null};
"""
ASK = "query => Search._performSearch(...Search._parseQuery(query)).reverse().map(result => result[0] + result[2])"
LOOKS = {"documentation_options.js", "doctools.js", "sphinx_highlight.js", "furo.js"}  # not of the search


def results_of(site: Path, queries: list[str]) -> list[list[str]]:
    """The results of each query in the site of a folder, best first, such as `docs/data#columns`."""
    page = (site / "search.html").read_text(encoding="utf-8")
    scripts = re.findall(r'<script( defer="defer")? src="([^"?]+)', page)
    order = sorted(scripts, key=lambda script: bool(script[0]))  # a deferred script runs after the others
    texts = [(site / source).read_text(encoding="utf-8") for _, source in order if Path(source).name not in LOOKS]
    engine = MiniRacer()
    try:
        engine.eval(BROWSER + "\n".join(texts))
        return json.loads(str(engine.eval(f"JSON.stringify({json.dumps(queries)}.map({ASK}))")))
    finally:
        engine.close()


def places(site: Path, queries: list[tuple[str, str]]) -> list[int | None]:
    """For each query and the page it should find: the place of that page among the pages found, from 1, or None."""
    ranked = [
        list(dict.fromkeys(result.partition("#")[0] for result in results))
        for results in results_of(site, [query for query, _ in queries])
    ]
    return [pages.index(page) + 1 if page in pages else None for pages, (_, page) in zip(ranked, queries)]
