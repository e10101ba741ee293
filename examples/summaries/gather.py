"""Docstrings of this machine's Python and their first lines, as rows: python examples/summaries/gather.py [FOLDER]

By Python's custom the first line of a docstring sums up the rest: the rest is the text, the first line its summary.
Nothing is imported, run or downloaded. Another Python gives somewhat other rows.
"""

import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gathering import Row, apart, destination, docstrings, shuffled, words, write

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
OTHER = re.compile(r"\s|>>>|[-*+=~]+ |[-=~*]{3}|:\w+|@\w+|\w+ *:$|\w+\(.*\) *->|\w+ +-- ")  # a line that is no prose
SHORTEST, LONGEST = 25, 160  # words of a text: the least, and where longer ones are cut
SUMMARY = 4, 20  # words of a summary, at least and at most: the instruction says the second
GIVEN = 0.8  # share of a summary's words in the text's first sentence from which the row asks only for a copy
TRAIN, TEST = 1000, 250


def prose(text: str) -> str:
    """The paragraphs of sentences of a docstring on one line, without lists, sessions and indented blocks."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        if not any(OTHER.match(line) for line in lines):
            kept.append(" ".join(" ".join(lines).split()))
    return " ".join(" ".join(kept).split()[:LONGEST])


def row(name: str, docstring: str) -> Row | None:
    """A text with its summary; None where either is too short or long, or is no prose."""
    first, _, rest = docstring.partition("\n\n")
    if "\n" in first and re.search(r"[.]$", first.splitlines()[0]):  # no blank line behind the summary
        first, rest = first.splitlines()[0], docstring.partition("\n")[2]
    summary, text = " ".join(first.split()), prose(rest)
    fewest, most = SUMMARY
    plain = summary[:1].isupper() and not any(mark in summary for mark in (". ", "->", "deprecated"))
    if not (plain and fewest <= len(summary.split()) <= most and len(text.split()) >= SHORTEST):
        return None
    own, opening = words(summary), words(re.split(r"(?<=[.!?]) ", text)[0])
    if len(own & opening) >= GIVEN * len(own) or not own & words(text):
        return None  # a copy, or nothing in common
    return {"prompt": f"{text}\n\nThis documents `{name}`.", "answer": summary.rstrip(".:") + "."}


def rows(library: Path) -> Iterator[Row]:
    """The rows of a folder of modules."""
    for file in sorted(library.rglob("*.py")):
        if LEFT_OUT.isdisjoint(file.relative_to(library).parts):
            made = (row(name, text) for name, text in docstrings(file))
            yield from (each for each in made if each)


def main() -> None:
    """Read the standard library and write train.jsonl and test.jsonl."""
    out = destination(__file__, __doc__).out
    print(f"the standard library of Python {sys.version.split()[0]}, licence PSF-2.0")
    once = {each["answer"].casefold(): each for each in rows(Path(sysconfig.get_path("stdlib")))}
    found = shuffled(list({each["prompt"].casefold(): each for each in once.values()}.values()))
    test = found[:TEST]
    write(__file__, out, train=apart(found[TEST:], test)[:TRAIN], test=test)


if __name__ == "__main__":
    main()
