"""`riyaz run`, `decide` and `evaluate` take little memory for each row: the peak of a process of its own."""

from pathlib import Path

import pytest
from rows_memory import measured

ROWS, MOST = 25_000, 12  # MB; two million rows may take 200, and what a row's texts and answers take is over 1 kB


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "decide", "evaluate"])
def test_memory_for_many_rows_is_bounded(verb: str, tmp_path: Path) -> None:
    few, many = (measured(verb, count, tmp_path)["peak_mb"] for count in (2_000, ROWS))
    assert many - few < MOST, f"{many - few:.0f} MB for {ROWS:,} rows"
