"""A small form of `make torture`: two quick verbs are killed, and the campaign sees what is lost and what is left."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import campaign
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quantize", "rag-add"])
def test_a_verb_that_is_killed_ends_as_one_that_is_not(name: str, tmp_path: Path) -> None:
    (verb,) = [verb for verb in campaign.VERBS if verb.name == name]
    campaign.prepare(tmp_path / "work", [verb])
    cases = [campaign.run_case(verb, number, 1, tmp_path / "work") for number in range(2)]
    assert [case.failure for case in cases] == ["", ""]
    assert sum(case.kills for case in cases) >= 1
    assert not (tmp_path / f"work/{name}-0").exists(), "only a failed case keeps its folder"


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same result, and what lies beside them."""
    for name in ("whole", "case"):
        for folder in ("", ".tmp", ".home"):
            (tmp_path / f"{name}{folder}").mkdir()
        (tmp_path / name / "out.json").write_text('{"score": 1, "seconds": 2}')
    return tmp_path / "whole", tmp_path / "case"


def test_equal_results_pass_also_where_times_differ(cases: tuple[Path, Path]) -> None:
    whole, case = cases
    (case / "out.json").write_text('{"score": 1, "seconds": 3}')
    (case.with_name("case.home") / "entry.json").write_text("kept on purpose")
    campaign.expect_same(whole, case)
    (case / "out.json").write_text('{"score": 2, "seconds": 2}')
    with pytest.raises(campaign.Failure, match=r"score 1 became 2"):
        campaign.expect_same(whole, case)


def test_the_place_that_was_free_is_no_difference(cases: tuple[Path, Path]) -> None:
    for folder, place in zip(cases, ("here", "ssh a")):
        turns = [{"place": place, "began": len(place), "arm": "lora"}]
        (folder / "places.json").write_text(json.dumps({"turns": turns}))
    campaign.expect_same(*cases)
    (cases[1] / "places.json").write_text(json.dumps({"turns": turns, "turned": 1}))
    with pytest.raises(campaign.Failure, match="turned"):
        campaign.expect_same(*cases)


@pytest.mark.parametrize(("name", "kind"), [
    ("case/out.json", "lost"), ("case/.out.riyaz-7.tmp", "left"), ("case.tmp/riyaz-x", "left"),
    ("case.home/.tmp-1", "left"), ("whole/more.json", "lost"),
])  # fmt: skip
def test_what_is_lost_or_left_is_a_failure(name: str, kind: str, cases: tuple[Path, Path]) -> None:
    whole, case = cases
    (case.parent / name).write_text('{"score": 2}')
    with pytest.raises(campaign.Failure) as raised:
        campaign.expect_same(whole, case)
    assert raised.value.kind == kind


def test_answers_to_go_on_with_may_lie_beside_a_result_that_was_complete_before_the_kill(
    cases: tuple[Path, Path],
) -> None:
    (cases[1] / "out.jsonl.partial").touch()
    campaign.expect_same(*cases, there=True)
    with pytest.raises(campaign.Failure, match=r"out\.jsonl\.partial"):
        campaign.expect_same(*cases)


def test_only_a_killed_command_may_say_that_its_result_is_there(cases: tuple[Path, Path]) -> None:
    campaign.beside(cases[1], "stderr").write_text("error: out: already exists; choose another --out or remove it")
    assert campaign.is_there(2, cases[1], killed=True) and not campaign.is_there(0, cases[1], killed=True)
    for status, killed in ((2, False), (None, True)):
        with pytest.raises(campaign.Failure):
            campaign.is_there(status, cases[1], killed)


def test_an_unknown_verb_is_told_with_the_known_ones() -> None:
    with pytest.raises(SystemExit, match="no such verb; there are export, quantize"):
        campaign.chosen("quantise")
    assert [verb.name for verb in campaign.chosen("rag")] == ["rag-add"]


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(SystemExit, match="holds something else"):
        campaign.prepare(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_campaign_of_one_verb_keeps_the_cases_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ready").touch()
    state = tmp_path / "state.jsonl"
    state.write_text(json.dumps(asdict(campaign.Case("export", 0, 2, 0))) + "\n")
    monkeypatch.setattr(campaign, "run_case", lambda verb, number, **_: campaign.Case(verb.name, number, 1, 0))
    monkeypatch.setattr(sys, "argv", ["campaign.py", "--only", "rag", "--kills", "1", "--folder", str(tmp_path)])
    assert campaign.main() == 0
    assert [json.loads(line)["verb"] for line in state.read_text().splitlines()] == ["export", "rag-add"]


def test_the_summary_counts() -> None:
    cases = [campaign.Case("run", 0, 3, 0), campaign.Case("run", 1, 2, 1, "differs", "lost", "run")]
    said = campaign.summary(cases, 4, 2.0)
    assert said == "torture: 1 verbs, 5 kills, 1 lost, 0 left behind, 1 complete before the kill, seed 4, 2.0 min"
