"""docs/glossary.md from page/src/glossary.json, the texts that the page shows: `python tests/house/glossary.py`.

tests/house/test_glossary.py fails when the document is not current.
"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE, DOCUMENT = "page/src/glossary.json", "docs/glossary.md"
HEAD = """# Glossary

The words of riyaz, in one or two sentences each. The [page](page.md) shows the same texts beside a word with a dotted
line: point at the word, touch it, or reach it with the Tab key.

| word | what it is |
|---|---|
"""


def texts(root: Path) -> dict[str, str]:
    """What each word means, in the order of the page's file."""
    read: dict[str, str] = json.loads((root / SOURCE).read_text(encoding="utf-8"))
    return read


def render(root: Path) -> str:
    """The document, a row for each word."""
    return HEAD + "".join(f"| {word} | {text} |\n" for word, text in texts(root).items())


if __name__ == "__main__":
    (ROOT / DOCUMENT).write_text(render(ROOT), encoding="utf-8")
