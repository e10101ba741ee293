"""Text that this machine's Python carries, as JSON Lines: python examples/pretrain/gather.py python.jsonl

The docstrings of the standard library and Python's own help topics; nothing is imported, run or downloaded. Another
Python gives a little more or less of it.
"""

import json
import pydoc_data.topics
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gathering import docstrings

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
SHORTEST = 80  # characters; shorter ones are names and not sentences


def texts() -> Iterator[str]:
    """The help topics, then what each module says of itself, every text once."""
    yield from (text for _, text in sorted(pydoc_data.topics.topics.items()))
    library = Path(sysconfig.get_path("stdlib"))
    seen = set[str]()
    for file in sorted(library.rglob("*.py")):
        if LEFT_OUT.isdisjoint(file.relative_to(library).parts):
            found = [text for _, text in docstrings(file) if len(text) >= SHORTEST and text not in seen]
            seen.update(found)
            if found:
                yield "\n\n".join(found)


def main(out: Path) -> None:
    """Write the texts, one a line, and say how much it is."""
    found = list(texts())
    out.write_text("".join(json.dumps({"text": text}) + "\n" for text in found), encoding="utf-8")
    print(f"{len(found):,} texts, {sum(len(text.encode()) for text in found) / 1e6:.1f} MB in {out}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/pretrain/gather.py OUT.jsonl")
    main(Path(sys.argv[1]))
