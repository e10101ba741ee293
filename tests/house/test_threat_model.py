"""docs/threat-model.md: every limit that it names stands in the file that it links, with a test beside it; and each
kind of fuzzed input has its counts."""

import re
from pathlib import Path

from fuzz_native import TARGETS
from fuzz_readers import READERS

ROOT = Path(__file__).parents[2]
LIMITS, TRIED = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8").split("\n## What was tried\n")


def rows_of(part: str) -> list[list[str]]:
    lines = part.splitlines()
    return [
        line.split("|")[1:-1] for line in lines if line.startswith("| ") and not line.startswith(("| input", "| kind"))
    ]


ROWS = rows_of(LIMITS)


def linked(cell: str) -> list[Path]:
    return [ROOT / "docs" / target for target in re.findall(r"\]\(([^)]+)\)", cell)]


def test_limits_stand_where_the_threat_model_says() -> None:
    assert len(ROWS) > 25
    for what, _, limit, where, tests in ROWS:
        (source,) = linked(where)
        names = re.findall(r"`([A-Za-z_]+)`", limit)
        text = source.read_text(encoding="utf-8")
        absent = [name for name in names if not re.search(rf"\b{name}\b", text)]
        assert names and not absent, (what.strip(), absent)
        assert linked(tests) and all(path.is_file() for path in linked(tests)), what.strip()


def test_each_kind_of_fuzzed_input_has_its_counts() -> None:
    rows = [[cell.strip() for cell in row] for row in rows_of(TRIED.partition("\n## ")[0])]
    assert sorted(row[0] for row in rows) == sorted([*READERS, *TARGETS, "routes"])
    for kind, tried, through, seed, minutes in rows:
        assert int(tried.replace(",", "")) >= 50 and seed.isdigit() and float(minutes) > 0, kind
        assert (through == "") == (kind in TARGETS), kind
        assert not through or 0 < int(through.replace(",", "")) < int(tried.replace(",", "")), kind
