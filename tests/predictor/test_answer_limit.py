"""`--max-new-tokens`: the longest answer, from the flag to the artifact and to what is served."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_comparison
from refusals import assert_refused
from test_rooms import FREE, context  # noqa: F401 - a fixture
from tiny_comparison import command

from riyaz.artifact import Artifact
from riyaz.config import DataConfig
from riyaz.data import formats
from riyaz.data.task import Task, detect
from riyaz.errors import RiyazError
from riyaz.methods import zero_shot
from riyaz.methods.fitting.base import Context
from riyaz.methods.fitting.choices import answer_limit, answer_limits, base_predictor
from riyaz.predictor import FreePredictor, open_artifact, open_model, within
from riyaz.target_scores import evaluate_target

LIMIT = 5
quiet = lambda event: None  # noqa: E731


def written(folder: Path, rows: list[dict[str, str]]) -> Path:
    return tiny_comparison.write_rows(folder / "rows.jsonl", rows)


def test_a_task_keeps_its_limit_and_labels_have_none(tmp_path: Path) -> None:
    free = formats.load(written(tmp_path, tiny_comparison.free_rows(30)))
    assert detect(free, max_new_tokens=LIMIT).max_new_tokens == LIMIT and detect(free).max_new_tokens is None
    closed = formats.load(written(tmp_path, tiny_comparison.closed_rows(30, "please")))
    with assert_refused("--max-new-tokens", "a closed set of labels, which are chosen", "leave it out", "--task free"):
        detect(closed, max_new_tokens=LIMIT)
    with assert_refused("--max-new-tokens: 0 is too small"):
        DataConfig(max_new_tokens=0)


def test_the_limit_of_a_task_is_every_methods_limit(context: Context) -> None:  # noqa: F811
    limited = replace(context, task=replace(FREE, max_new_tokens=LIMIT))
    assert answer_limit(context) != LIMIT and len(answer_limits(context)) > 1
    assert answer_limit(limited) == LIMIT and answer_limits(limited) == [LIMIT]
    fitted, plain = zero_shot.fit(limited), base_predictor(limited)
    assert fitted.max_new_tokens == LIMIT and "rooms" not in fitted.chosen
    assert isinstance(plain, FreePredictor) and plain.max_new_tokens == LIMIT


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, home: Path, model_folder: Path) -> Path:
    """A comparison whose riyaz.toml limits the answers."""
    folder = tmp_path_factory.mktemp("limited")
    rows = tiny_comparison.free_rows(51)
    tiny_comparison.write_rows(folder / "data/train.jsonl", rows[:45])
    tiny_comparison.write_rows(folder / "data/test.jsonl", rows[45:])
    (folder / "data/riyaz.toml").write_text(f"max_new_tokens = {LIMIT}\n")
    asked = ("--model", model_folder, "--budget", "60s", "--methods", "nearest,zero_shot", "--out", folder / "out")
    with tiny_comparison.small_machine(home) as patch:
        tiny_comparison.workers_inside(patch)
        told = command("compare", folder / "data", *asked)
    assert told.status == 0, told.err
    return folder


def test_an_artifact_answers_within_its_limit(limited: Path, tmp_path: Path) -> None:
    folder = limited / "out/arms/zero_shot/kept"
    artifact, opened = Artifact.read(folder / "artifact"), open_artifact(folder / "artifact")
    assert artifact.max_new_tokens == LIMIT and artifact.task is not None and artifact.task.max_new_tokens == LIMIT
    assert isinstance(opened, FreePredictor) and opened.max_new_tokens == LIMIT  # which `serve` takes as the usual one
    rows = formats.load(limited / "data/test.jsonl").examples
    prepared = opened.prepare([row.messages for row in rows])
    made = opened.lm.generate([each.request for each in prepared])
    assert max(map(len, made)) == LIMIT
    said = [json.loads(line)["prediction"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert said == [opened.text_of(ids, LIMIT) for ids in made]

    longer = tmp_path / "longer.jsonl"
    command("run", folder / "artifact", limited / "data/test.jsonl", "--out", longer, "--max-new-tokens", 40)
    more = [json.loads(line)["prediction"] for line in longer.read_text().splitlines()]
    assert sum(map(len, more)) > sum(map(len, said))
    same = command("run", folder / "artifact", limited / "data/test.jsonl", "--out", longer, "--max-new-tokens", 0)
    assert same.status == 2 and "--max-new-tokens" in same.line


def test_evaluating_may_take_another_limit(limited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test, artifact = limited / "data/test.jsonl", str(limited / "out/arms/zero_shot/kept/artifact")
    asked: list[int] = []
    answers = FreePredictor.answers

    def noted(self: FreePredictor, *args: object, **options: object) -> object:
        asked.append(self.max_new_tokens)
        return answers(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(FreePredictor, "answers", noted)
    evaluate_target(artifact, test, DataConfig(), limit=2, listen=quiet)
    assert set(asked) == {LIMIT}
    asked.clear()
    evaluate_target(artifact, test, DataConfig(max_new_tokens=3), limit=2, listen=quiet)
    assert set(asked) == {3}
    copies = str(limited / "out/arms/nearest/kept/artifact")
    evaluate_target(copies, test, DataConfig(max_new_tokens=LIMIT), limit=2, listen=quiet)  # as in its riyaz.toml
    with assert_refused("--max-new-tokens", "which no limit cuts", "leave it out"):
        evaluate_target(copies, test, DataConfig(max_new_tokens=3), limit=2, listen=quiet)


def test_an_artifact_from_before_the_limit_opens(limited: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(limited / "out/arms/zero_shot/kept/artifact", tmp_path / "old")
    described = json.loads((folder / "riyaz.json").read_text())
    del described["task"]["max_new_tokens"]
    (folder / "riyaz.json").write_text(json.dumps(described))
    opened = open_artifact(folder)
    assert isinstance(opened, FreePredictor) and opened.task is not None
    assert (opened.max_new_tokens, opened.task.max_new_tokens) == (LIMIT, None)


def test_no_limit_changes_nothing(model_folder: Path) -> None:
    plain = open_model(model_folder)
    assert within(plain, None) is plain and replace(plain, max_new_tokens=7).max_new_tokens == 7
    limited = within(plain, 7)
    assert isinstance(limited, FreePredictor) and limited.max_new_tokens == 7
    assert Task("free", (), "rouge_l", "", "").max_new_tokens is None
    with pytest.raises(RiyazError):
        DataConfig(max_new_tokens=-1)
