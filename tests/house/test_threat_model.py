"""docs/threat-model.md: every limit that it names stands in the file that it links, with a test beside it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    line.split("|")[1:-1]
    for line in (ROOT / "docs/threat-model.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| input")
]


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
