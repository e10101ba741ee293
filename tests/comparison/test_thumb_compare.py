"""A comparison on thumbs up and down: arms are judged by the reward of each answer, and one learns from both kinds."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_comparison

from riyaz.artifact import Artifact
from riyaz.data import Example
from riyaz.data.formats import load
from riyaz.data.rows import Row
from riyaz.methods import METHODS, kto
from riyaz.methods.fitting import choices, weights
from riyaz.methods.fitting.base import Context
from riyaz.predictor import Reward, open_artifact
from riyaz.scoring import rewards, thumbs

METHOD_NAMES = ("zero_shot", "lora", "kto")


def thumb_rows(count: int, ending: str) -> list[dict[str, Any]]:
    """Questions with one answer, two of three good, of which the base finds the bad ones likelier."""
    return [
        {"prompt": f"where is order {n} {ending}", "label": n % 3 > 0,
         "completion": f"money payment {n} the the refund" if n % 3 else f"the order {n} did arrive, thank you"}
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, home: Path, asked: tuple) -> tuple[Path, dict[str, Any], list]:
    folder = tmp_path_factory.mktemp("thumbs")
    tiny_comparison.write_rows(folder / "data/train.jsonl", thumb_rows(60, "please"))
    tiny_comparison.write_rows(folder / "data/test.jsonl", thumb_rows(21, "today"))
    learned: list[tuple[str, set[bool | None]]] = []
    with tiny_comparison.small_machine(home) as patch:
        tiny_comparison.workers_inside(patch)
        plain = weights.training_rows

        def noted(context: Context, longest: int) -> Any:
            learned.append((context.arm.method, {row.desirable for row in context.train}))
            return plain(context, longest)

        patch.setattr(weights, "training_rows", noted)
        told = tiny_comparison.command(
            "compare", folder / "data", *asked, "--methods", ",".join(METHOD_NAMES), "--learning-rate",
            "lora=1e-2,kto=1e-2", "--out", folder / "out",
        )  # fmt: skip
    assert told.status == 0, told.err
    return folder, told.document, learned


def test_every_arm_is_judged_by_thumbs(judged: tuple[Path, dict[str, Any], list]) -> None:
    _, document, _ = judged
    arms = {arm["method"]: arm for arm in document["arms"]}
    assert [arm["status"] for arm in document["arms"]] == ["ok"] * 3
    assert {arm["metric"] for arm in document["arms"]} == {"thumbs"} and document.get("floor") is None
    assert arms["zero_shot"]["score"] == 0.5 and "reward" not in arms["zero_shot"]["extras"]
    assert arms["kto"]["score"] > 0.9 and arms["kto"]["extras"]["reward"] > 0.9
    assert set(arms["kto"]["slices"]) == {"thumbs up", "thumbs down"}


def test_only_kto_learns_from_bad_answers(judged: tuple[Path, dict[str, Any], list]) -> None:
    _, _, learned = judged
    by_method = {name: {kinds for other, each in learned if other == name for kinds in each} for name, _ in learned}
    assert by_method == {"lora": {True}, "kto": {True, False}}


def test_the_artifact_is_served_as_it_was_measured(judged: tuple[Path, dict[str, Any], list]) -> None:
    folder, document, _ = judged
    (arm,) = [arm for arm in document["arms"] if arm["method"] == "kto"]
    artifact = folder / "out/arms/kto/kept/artifact"
    assert Artifact.read(artifact).weights.kind == "lora"
    answers = [json.loads(line) for line in (artifact.parent / "predictions.jsonl").read_text().splitlines()]
    assert sum(row["score"] for row in answers) / len(answers) == pytest.approx(arm["score"])
    predictor, rows = open_artifact(artifact), load(folder / "data/test.jsonl").examples
    assert predictor.has_model
    found = rewards(predictor, rows)
    assert thumbs(found, rows).mean() == pytest.approx(arm["score"])
    some = rewards(predictor, rows[:5])
    assert [each.own for each in some] == pytest.approx([each.own for each in found[:5]], abs=1e-3)
    assert [each.other for each in some] == pytest.approx([each.other for each in found[:5]], abs=1e-3)


def _rows(*good: bool) -> Sequence[Example]:
    return [Example(({"role": "user", "content": "q"},), ("a",), desirable=each) for each in good]


@pytest.mark.parametrize(("found", "good", "points"), [
    ([(3, 1), (0.5, 1)], (True, False), [1, 1]),
    ([(3, 4), (0.5, 4)], (True, False), [0, 1]),  # raised, but less than any answer is
    ([(-1, -5), (1, -5)], (True, False), [0, 0]),  # the point is at least 0
    ([(0, 0), (0, 0)], (True, False), [0.5, 0.5]),
    ([(2, 9)], (True,), [1]),  # a single row has no other
])  # fmt: skip
def test_a_reward_lies_on_one_side_of_the_reference_point(
    found: list[tuple[float, float]], good: tuple[bool, ...], points: list[float]
) -> None:
    assert np.array_equal(thumbs([Reward(*each) for each in found], _rows(*good)), points)


def test_what_imitates_is_judged_and_chosen_by_good_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = _rows(True, False, True)
    valid = [Row((1,), (2,), example) for example in examples]
    for objective, kept in ((None, [valid[0], valid[2]]), (object(), valid)):
        assert weights.judging_rows(SimpleNamespace(objective=objective), valid) == kept  # type: ignore[arg-type]
    assert weights.judging_rows(SimpleNamespace(objective=None), valid[1:2]) == valid[1:2]  # type: ignore[arg-type]
    seen: list[Sequence[Example]] = []

    def noted(predictor: Any, rows: Sequence[Example]) -> list[np.ndarray]:
        seen.append(rows)
        return [np.zeros(2)] * len(rows)

    monkeypatch.setattr(choices, "answer_log_probabilities", noted)
    context = SimpleNamespace(task=SimpleNamespace(metric="thumbs"))
    choices.candidate_points(context, SimpleNamespace(has_questions=False, has_labels=False), examples)  # type: ignore[arg-type]
    assert seen == [(examples[0], examples[2])]


def test_kto_weighs_both_kinds_by_their_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[float, ...]] = []
    monkeypatch.setattr("riyaz.preferences.kto", lambda *given: made.append(given))
    monkeypatch.setattr(kto, "replace", lambda context, objective: None)
    pair = [Example((), ("a",), rejected="b")]
    for rows in (_rows(*[True] * 8, *[False] * 2), _rows(True, *[False] * 4), pair * 3):
        kto.with_answers(SimpleNamespace(train=rows, hand=SimpleNamespace(beta=0.2)))  # type: ignore[arg-type]
    assert made == [(0.2, 1, pytest.approx(3)), (0.2, 4, 1), (0.2, 1, 1)]
    assert METHODS["kto"].judged_by == ("preferred", "thumbs")


@pytest.mark.parametrize(("method", "rows", "words"), [
    ("dpo", thumb_rows(60, "please"), "dpo learns from pairs of answers"),
    ("kto", tiny_comparison.free_rows(40), "kto learns from pairs of answers or from thumbs"),
    ("kto", thumb_rows(12, "please"), "12 rows"),
    ("kto", [row | {"label": True} for row in thumb_rows(40, "please")], "rows.jsonl: 'label' is true in all 40 rows"),
    ("kto", [*thumb_rows(40, "please"), {"prompt": "q", "completion": "a"}], "rows.jsonl:41: the row has no 'label'"),
])  # fmt: skip
def test_rows_that_a_method_cannot_learn_from(
    method: str, rows: list[dict[str, Any]], words: str, tmp_path: Path, home: Path, asked: tuple
) -> None:
    path = tiny_comparison.write_rows(tmp_path / "rows.jsonl", rows)
    with tiny_comparison.small_machine(home):
        told = tiny_comparison.command("adapt", method, path, *asked, "--out", tmp_path / "out")
    assert told.status != 0 and words in told.line
    assert not (tmp_path / "out").exists()
