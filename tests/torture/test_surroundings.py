"""A small form of the campaign of surroundings: little memory, a process that is stopped, and what it refuses."""

from pathlib import Path

import campaign
import pytest
import surroundings


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "number", "outcomes"), [
    ("rag-add", "memory", 150 * 2**20, ("told", "aborted")),
    ("rag-add", "stopped", 10, ("1 made it", "2 made it")),
])  # fmt: skip
def test_a_command_ends_well_where_it_is_hard_to(
    name: str, kind: str, number: int, outcomes: tuple[str, ...], tmp_path: Path
) -> None:
    (verb,) = [verb for verb in campaign.VERBS if verb.name == name]
    campaign.prepare(tmp_path / "work", [verb])
    case = surroundings.run_case(verb, kind, number, 1, tmp_path / "work")
    assert case.failure == "" and case.outcome in outcomes, case


@pytest.mark.parametrize(("status", "line", "kind"), [
    (2, "error: out: another riyaz is working in this folder; wait for it", ""),
    (2, "error: out: already exists; choose another --out or remove it", ""),
    (2, "error: out: Directory not empty", "unclear"),
    (1, "error: another riyaz is working in this folder", "unclear"),
    (2, "Traceback\nerror: another riyaz is working in this folder", "unclear"),
    (-6, "", "unclear"),
    (None, "", "hung"),
])  # fmt: skip
def test_who_does_not_make_the_result_says_why(status: int | None, line: str, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    campaign.beside(folder, "stderr1").write_text(line)
    if not kind:
        return surroundings.expect_one_line(status, folder, surroundings.BUSY, "1")
    with pytest.raises(campaign.Failure) as raised:
        surroundings.expect_one_line(status, folder, surroundings.BUSY, "1")
    assert raised.value.kind == kind


def test_none_of_several_that_makes_the_result_is_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    with pytest.raises(campaign.Failure):
        surroundings.together("export absent --format hf --out out", folder, 2, None)


def test_what_is_written_where_a_folder_was_away_is_a_failure(tmp_path: Path) -> None:
    folder, store = tmp_path / "case", tmp_path / "case.store"
    store.mkdir()
    (store / "out").write_text("whole")
    folder.mkdir()
    (folder / "out").write_text("nobody sees this")
    with pytest.raises(campaign.Failure):
        surroundings.put_back(folder)
    (folder / "out").unlink()
    surroundings.put_back(folder)
    assert (folder / "out").read_text() == "whole" and not store.exists()


def test_every_kind_is_planned() -> None:
    verbs = [verb for verb in campaign.VERBS if verb.name in ("inside", "pull")]
    planned = list(surroundings.planned(verbs, list(surroundings.KINDS), 20, 60))
    memory = sorted({number for _, kind, number in planned if kind == "memory"})
    assert len(memory) == 20 and (memory[0], memory[-1]) == (surroundings.LEAST, surroundings.MOST)
    assert {verb.name for verb, kind, _ in planned if kind == "two"} == {"pull"}, "nobody shares what is only printed"
    assert [number for _, kind, number in planned if kind == "stopped"] == [60]
