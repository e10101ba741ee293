"""A task's schema in an artifact: a file of its own with a checksum, by which its answers are made wherever it is
opened; and the predictors that take no schema."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from live_server import running
from refusals import assert_refused

import riyaz
from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel
from riyaz.cli import main as cli
from riyaz.data import Example
from riyaz.data.schema import schema_text
from riyaz.data.task import Task
from riyaz.engine.grammar import misfit
from riyaz.export.prompt import not_held
from riyaz.predictor import CopyPredictor, keeping_to, open_artifact, open_model
from riyaz.serve.opening import Opener
from riyaz.sources import open_source

FIELDS = {"name": {"type": "string", "maxLength": 5}, "day": {"enum": ["Monday", None]}}
DOCUMENT = {"type": "object", "properties": FIELDS, "required": [*FIELDS], "additionalProperties": False}
SCHEMA = schema_text(json.dumps(DOCUMENT), "here")
TASK = Task("free", (), "rouge_l", "Write JSON.", "it was given", schema=SCHEMA)
OTHER = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 1, "maxItems": 2,
         "x-guidance": {"whitespace_pattern": " "}}  # fmt: skip
UNFINISHED = "it ends before its JSON is complete"
QUESTIONS = ["where is my card", "please help me", "the order did not arrive today"]


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def base(model_folder: Path) -> BaseModel:
    return BaseModel("tiny", str(model_folder), open_source(model_folder).sha256(), 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, base: BaseModel) -> Path:
    made = tmp_path_factory.mktemp("made") / "form"
    artifacts.write(made, Artifact("zero_shot", base=base, task=TASK, max_new_tokens=80), {})
    return made


def test_the_schema_is_a_file_that_comes_back_into_the_task(folder: Path) -> None:
    described = json.loads((folder / "riyaz.json").read_text())
    assert described["task"]["schema"] == "" and described["text"]["schema_file"] == "schema.json"
    assert described["checksums"].keys() == {"schema.json"} and json.loads((folder / "schema.json").read_text())
    artifact = Artifact.read(folder)
    assert artifact.task == TASK and "schema" in " ".join(not_held(artifact))


def test_a_changed_schema_is_refused_and_an_artifact_without_one_opens(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("riyaz.json", "schema.json"):
        (tmp_path / "a" / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "a/schema.json").write_text("{}")
    with assert_refused("schema.json: the checksum does not match"):
        Artifact.read(tmp_path / "a")
    old = json.loads((folder / "riyaz.json").read_text())
    del old["text"]["schema_file"], old["task"]["schema"]
    (tmp_path / "a/riyaz.json").write_text(json.dumps(old | {"checksums": {}}))
    assert Artifact.read(tmp_path / "a").task == replace(TASK, schema="")
    old["task"]["schema"] = '{"type": "integer"}'  # without a checksum
    (tmp_path / "a/riyaz.json").write_text(json.dumps(old | {"checksums": {}}))
    assert Artifact.read(tmp_path / "a").task == replace(TASK, schema="")
    old["text"] |= {"schema_file": "schema.json", "span_words": 3}
    (tmp_path / "a/riyaz.json").write_text(json.dumps(old | {"checksums": {"schema.json": "0"}}))
    with assert_refused("riyaz.json: text.schema_file is named where answers are chosen"):
        Artifact.read(tmp_path / "a")


def test_its_answers_parse_alone_in_a_batch_and_streamed(folder: Path) -> None:
    predictor = open_artifact(folder, precision="fp32")
    texts = [each.text for each in predictor.answers([asked(text) for text in QUESTIONS])]
    assert all(misfit(SCHEMA, text, "schema") == "" for text in texts), texts
    assert texts == [predictor.answer(asked(text)) for text in QUESTIONS]
    assert texts[0] == "".join(predictor.stream(asked(QUESTIONS[0])))
    assert predictor.has_model and predictor.base().answer(asked(QUESTIONS[0])) == texts[0]
    cut = predictor.stream(asked(QUESTIONS[0]), max_tokens=3)
    text = "".join(cut)
    assert cut.cut and texts[0].startswith(text) and misfit(SCHEMA, text, "schema") == UNFINISHED


def test_a_server_answers_by_it_unless_the_request_names_a_form(folder: Path) -> None:
    opener = Opener("fp32")
    opener.serve(str(folder))
    with running(opener) as served:
        ask = {"model": "form", "messages": asked(QUESTIONS[0]), "temperature": 0}

        def text(**more: object) -> str:
            answer = served.post("/v1/chat/completions", {**ask, **more}).json()["choices"][0]
            assert answer["finish_reason"] == ("length" if "max_tokens" in more else "stop")
            return answer["message"]["content"]

        assert misfit(SCHEMA, text(), "schema") == ""
        assert text() == open_artifact(folder, precision="fp32").answer(asked(QUESTIONS[0]))
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": OTHER}}
        assert json.loads(text(response_format=form)) in ([1], [2], [1, 1], [1, 2], [2, 1], [2, 2])
        assert misfit(SCHEMA, text(response_format={"type": "text"}, max_tokens=9), "schema")
        assert misfit(SCHEMA, text(max_tokens=4), "schema") == UNFINISHED


def test_a_schema_is_given_to_any_model_by_file_or_in_python(
    folder: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.json").write_text(json.dumps(OTHER))
    for target in (folder, model_folder):  # in place of the artifact's own
        schema = ("--schema", str(tmp_path / "s.json"))
        assert cli.main(["generate", str(target), "hi", *schema, "--temperature", "0"]) == 0
        told = json.loads(capsys.readouterr().out)
        model = riyaz.open(target)
        assert told == json.loads(model.answer("hi", schema=OTHER))
        assert told == json.loads(model.answers(["hi"], schema=OTHER)[0])
    drawn = model.answers(QUESTIONS, schema=tmp_path / "s.json", temperature=1.0, seed=3)
    assert all(misfit(json.dumps(OTHER), text, "schema") == "" for text in drawn)
    with assert_refused("schema: is no JSON"):
        model.answer("hi", schema={"a": float("nan")})
    with assert_refused("none.json: no such file"):
        model.answer("hi", schema=tmp_path / "none.json")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": text}) + "\n" for text in QUESTIONS))
    out = tmp_path / "out.jsonl"
    command = ["run", str(folder), str(rows), "--out", str(out), "--quiet", "--schema", str(tmp_path / "s.json")]
    assert cli.main(command) == 0
    texts = [json.loads(line)["prediction"] for line in out.read_text().splitlines()]
    assert len(texts) == 3 and all(misfit(json.dumps(OTHER), text, "schema") == "" for text in texts)
    assert "cut" not in capsys.readouterr().err
    assert cli.main([*command[:-3], "--force", "--max-new-tokens", "3"]) == 0  # by its own schema
    assert "3 of 3 answers were cut before their JSON was complete" in capsys.readouterr().err


def test_chosen_and_copied_answers_refuse_a_schema(base: BaseModel, tmp_path: Path) -> None:
    closed = Task("closed", ("a", "b"), "accuracy", "", "")
    artifacts.write(tmp_path / "closed", Artifact("zero_shot", base=base, task=closed), {})
    rows = [Example(tuple(asked(text)), ("{}",), f"a:{text}") for text in ("x", "y")]
    chosen = open_artifact(tmp_path / "closed", precision="fp32"), CopyPredictor(examples=rows, task=TASK)
    for predictor, says in zip(chosen, ("chosen from labels", "copied")):
        with assert_refused(f"s.json: answers are {says}, which no schema changes; leave it out"):
            keeping_to(predictor, SCHEMA, "s.json")


def test_a_schema_that_cannot_be_followed_is_said_when_it_is_given(model_folder: Path) -> None:
    with assert_refused("s.json: the schema cannot be followed"):
        keeping_to(open_model(model_folder, "fp32"), '{"type": "thing"}', "s.json")
