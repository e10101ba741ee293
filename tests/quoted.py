"""Lines of code that a document names and quotes: `python tests/quoted.py` renumbers those that moved, and says which
are not there any more.

A reference is a link that names path and line, and behind it a block with the very lines:

    [`src/riyaz/x.py:12`](../src/riyaz/x.py#L12)

    ```python
    code as it stands there
    ```
"""

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/how-a-model-learns.md"
REFERENCE = re.compile(
    r"\[`(?P<path>[\w./-]+):(?P<line>\d+)`\]\(\.\./(?P<link>[\w./-]+)#L(?P<anchor>\d+)\)\n\n```python\n(?P<code>.*?)\n```",
    re.DOTALL,
)


def plain(text: str) -> list[str]:
    """Lines without the indentation that all of them share."""
    return textwrap.dedent(text).rstrip().splitlines()


def places(source: list[str], code: list[str]) -> list[int]:
    """Lines, from 1, at which the code begins in a file."""
    starts = range(len(source) - len(code) + 1)
    return [start + 1 for start in starts if plain("\n".join(source[start : start + len(code)])) == code]


def problems(root: Path, page: str) -> list[str]:
    """References whose file, line or quote is not true; links and quotes that belong to none."""
    found = []
    references = list(REFERENCE.finditer(page))
    for one in references:
        name, path = f"{one['path']}:{one['line']}", root / one["path"]
        if one["path"] != one["link"] or one["line"] != one["anchor"]:
            found.append(f"{name} links to {one['link']}#L{one['anchor']}")
        if not path.is_file():
            found.append(f"{name}: no such file")
            continue
        at = places(path.read_text(encoding="utf-8").splitlines(), plain(one["code"]))
        if int(one["line"]) not in at:
            first = plain(one["code"])[0]
            moved = f"it stands at {at}: python tests/quoted.py mends it" if at else "the file does not say that"
            found.append(f"{name}: `{first}`: {moved}")
    for what, count in (
        ("blocks of code", page.count("```python")),
        ("named lines", len(re.findall(r"\.py:\d+`", page))),
    ):
        if count != len(references):
            found.append(f"{count} {what}, but {len(references)} references")
    return found


def mended(root: Path, page: str) -> str:
    """The page with the numbers of lines that moved; a quote that stands nowhere, or twice, is left as it is."""

    def mend(one: re.Match[str]) -> str:
        path = root / one["path"]
        at = places(path.read_text(encoding="utf-8").splitlines(), plain(one["code"])) if path.is_file() else []
        if len(at) != 1:
            return one[0]
        text = one[0].replace(f":{one['line']}`", f":{at[0]}`", 1)
        return text.replace(f"#L{one['anchor']})", f"#L{at[0]})", 1)

    return REFERENCE.sub(mend, page)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(mended(ROOT, text), encoding="utf-8")
    left = problems(ROOT, PAGE.read_text(encoding="utf-8"))
    print("\n".join(left) or "every named line says what the page quotes")
    sys.exit(1 if left else 0)
