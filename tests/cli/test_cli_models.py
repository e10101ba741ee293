"""The verbs that open a model, run on a tiny one: data, run, chat, generate, predict, merge, export, pull."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from small_llama import next_log_p
from test_export import make

from riyaz.cli import main as cli
from riyaz.cli import predict as predict_verb
from riyaz.cli import run as run_verb
from riyaz.cli import stream
from riyaz.cli.output import Screen
from riyaz.data import Example
from riyaz.predictor import CopyPredictor, FreePredictor, open_model
from riyaz.report.media.screen import PipeConsole

ROWS = [{"id": i, "text": f"where is my order {i}?", "label": ("refund", "delivery")[i % 2]} for i in range(24)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny-base")


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("riyaz.hardware.cores", lambda: 1)  # a tiny model only waits for more
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path: str = "rows.jsonl", examples: list[dict] = ROWS) -> str:
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in examples), encoding="utf-8")
    return path


def succeed(capsys, *line: object) -> tuple[str, str]:
    """Run a command that must succeed; its stdout and stderr."""
    status = cli.main([str(word) for word in line])
    out, err = capsys.readouterr()
    assert status == 0, err
    return out, err


def test_data_shows_the_task_and_three_rows_with_the_loss_marked(capsys, model):
    out, _ = succeed(capsys, "data", rows(), "--model", model)
    assert "24 rows read as text,label" in out
    assert "closed set of labels, because the column 'label' holds 2 labels" in out
    assert "not read       columns id" in out
    assert out.count("<|im_start|>assistant\n⟦") == 3 and "⟦refund<|im_end|>⟧" in out
    assert "all 6 held in every row" in out and "answer tokens  median" in out
    assert "0 test rows (0.0%) are also in the training rows" in out
    assert "labels         delivery: train" in out


def test_data_colours_the_loss_on_a_terminal(capsys, model, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, _ = succeed(capsys, "data", rows(), "--model", model)
    assert "\x1b[1;32mrefund<|im_end|>\x1b[0m" in out and "⟦" not in out


def test_data_json_holds_what_is_shown(capsys, model):
    out, _ = succeed(capsys, "data", rows(), "--model", model, "--instruction", "Say it.", "--json")
    document = json.loads(out)
    assert document["task"] == {
        "kind": "closed", "metric": "accuracy", "labels": ["delivery", "refund"], "instruction": "Say it.",
        "why": "the column 'label' holds 2 labels",
    }  # fmt: skip
    assert "Say it.<|im_end|>" in document["rendered"][0]["prompt"]
    assert document["rendered"][0]["answer"] == "refund<|im_end|>"
    assert document["report"]["rows"]["file"] == 24 and all(check["ok"] for check in document["checks"].values())


def test_data_works_without_the_default_model_and_needs_one_that_is_named(capsys):
    out, err = succeed(capsys, "data", rows())
    assert "metric         accuracy" in out and "rows are not rendered: " in err and "pull" in err
    assert cli.main(["data", "rows.jsonl", "--model", "absent"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_data_shows_leakage_that_compare_would_refuse(capsys):
    rows()
    rows("test.jsonl", ROWS[:4] + [{"id": 99, "text": "a new one", "label": "refund"}] * 6)
    out, _ = succeed(capsys, "data", "rows.jsonl", "--test", "test.jsonl")
    assert "4 test rows (40.0%) are also in the training rows" in out


def test_evaluate_prints_the_score_with_its_interval(capsys, model):
    out, err = succeed(capsys, "evaluate", model, "--test", rows(), "--limit", "8")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith("accuracy 0.") and lines[0].endswith("95 %) on 8 rows")
    assert lines[1].startswith("macro F1 ") and lines[2].startswith("ms per answer ")
    assert "riyaz: evaluate" in err
    out, _ = succeed(capsys, "evaluate", model, "--test", rows(), "--limit", "8", "--json")
    document = json.loads(out)
    assert f"accuracy {document['score']:.3f} ({document['ci_low']:.3f}–{document['ci_high']:.3f}, 95 %)" in lines[0]


def test_run_answers_every_row_and_keeps_its_fields(capsys, model):
    rows(examples=[{"prompt": f"question {i} नमस्ते", "id": i} for i in range(5)])
    artifact = make(model, Path("artifact"))
    out, err = succeed(capsys, "run", artifact, "rows.jsonl", "--out", "answers.jsonl")
    found = [json.loads(line) for line in Path("answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["prompt"]) for row in found] == [(i, f"question {i} नमस्ते") for i in range(5)]
    assert all(isinstance(row["prediction"], str) for row in found)
    assert out == "" and "5 rows answered in answers.jsonl" in err
    assert "नमस्ते" in Path("answers.jsonl").read_text(encoding="utf-8"), "text stays readable"


def test_run_alone_drafts_what_it_has_just_answered(capsys, model, monkeypatch):
    seen, opened = [], run_verb.opened
    monkeypatch.setattr(run_verb, "opened", lambda *words, **more: seen.append(opened(*words, **more)) or seen[-1])
    succeed(capsys, "run", model, rows(examples=ROWS[:2]), "--out", "o.jsonl", "--max-new-tokens", 2)
    assert seen[0].lm.drafts.remembers and not open_model(str(model)).lm.drafts.remembers


def test_run_reads_tables_and_a_named_column(capsys, model):
    Path("rows.csv").write_text("number,what\n1,hello\n2,the fox\n")
    line = ["run", make(model, Path("artifact")), "rows.csv", "--out", "o.jsonl", "--prompt-column", "what", "--json"]
    out, _ = succeed(capsys, *line)
    assert json.loads(out)["rows"] == 2
    assert json.loads(Path("o.jsonl").read_text().splitlines()[1])["number"] == "2"


def test_run_says_at_once_that_it_could_not_write(capsys, model):
    assert cli.main(["run", str(model), rows(), "--out", "no/such/o.jsonl"]) == 2
    assert capsys.readouterr().err == "error: no/such: the folder does not exist; create it or choose another --out\n"
    Path("taken").mkdir()
    for out, what in (("taken", "is a folder"), (rows(), "is the file that is read")):
        before = Path(rows()).read_bytes()
        assert cli.main(["run", str(model), rows(), "--out", str(out)]) == 2
        assert capsys.readouterr().err == f"error: {out}: {what}; choose another --out\n"
        assert Path(rows()).read_bytes() == before


def test_generate_streams_what_a_whole_answer_would_be(capsys, model):
    question = [{"role": "user", "content": "hello"}]
    whole = open_model(model).answer(question, 12)
    out, _ = succeed(capsys, "generate", model, "hello", "--max-tokens", "12")
    assert out == whole + "\n" and len(whole) > 5
    out, _ = succeed(capsys, "generate", model, "hello", "--max-tokens", "12", "--json")
    document = json.loads(out)
    assert document["sampling"]["temperature"] == 0 and isinstance(document["cut"], bool)
    said = {key: document[key] for key in ("target", "prompt", "answer", "citations")}
    assert said == {"target": str(model), "prompt": "hello", "answer": whole, "citations": []}


def test_generate_reads_stdin(capsys, model, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hello"))
    out, _ = succeed(capsys, "generate", model, "-", "--max-tokens", "12")
    assert out == open_model(model).answer([{"role": "user", "content": "hello"}], 12) + "\n"
    assert cli.main(["generate", str(model), "hello", "--max-tokens", "0"]) == 2


def test_pieces_never_break_a_character(model):
    predictor = open_model(model)
    ids = predictor.tokenizer.encode("é नमस्ते 🙂")

    class Scripted:
        context = 1024

        def adapter_tokens(self, adapter):
            return 0

        def stream(self, request):
            return iter(ids)

    scripted = FreePredictor(tokenizer=predictor.tokenizer, lm=Scripted())
    parts = list(scripted.stream([{"role": "user", "content": "x"}]))
    assert "".join(parts) == "é नमस्ते 🙂" and len(ids) > len(parts) > 3
    assert not any("\ufffd" in part for part in parts)


@pytest.mark.parametrize("terminal", [False, True])
def test_an_answer_is_printed_without_what_a_terminal_obeys_and_as_it_comes(monkeypatch, terminal):
    out = io.StringIO()
    screen = Screen()
    screen.data = PipeConsole(file=out, force_terminal=terminal, markup=False, highlight=False, emoji=False)
    parts = ["a\x1b", "[2Jb\x9b1m\r", "\nc d", "\u202ee\x07\x08\x7f", "[b]"]
    seen = []

    def coming():
        for part in parts:
            seen.append(out.getvalue())
            yield part

    assert stream.print_stream(screen, coming()) == "".join(parts), "the answer itself is as it was"
    shown = "a[2Jb1m\nc d[U+202E]e[b]\n"
    assert out.getvalue() == shown
    assert seen[1] == "a" and seen[2] == "a[2Jb1m", "each piece at once"
    assert not set("\x1b\x9b\r\x07\x08\x7f\u202e") & set(out.getvalue())


def test_a_copied_answer_comes_in_one_piece():
    example = Example(({"role": "user", "content": "where is it"},), ("there",), where="t:1")
    copying = CopyPredictor(examples=(example, example))
    assert list(copying.stream([{"role": "user", "content": "where"}])) == ["there"]


def test_chat_answers_piped_lines_and_remembers_until_an_empty_one(capsys, model, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\nand you?\n\nhello\n"))
    out, err = succeed(capsys, "chat", model, "--max-tokens", "8")
    predictor = open_model(model)
    first = predictor.answer([{"role": "user", "content": "hello"}], 8)
    turns = [("user", "hello"), ("assistant", first), ("user", "and you?")]
    second = predictor.answer([{"role": role, "content": text} for role, text in turns], 8)
    assert out == f"{first}\n{second}\n{first}\n" and first != second
    assert "> " not in err


def test_chat_on_a_terminal_survives_a_question_that_is_too_long(capsys, model, monkeypatch):
    lines = iter(["word " * 2000, "hello"])

    def ask(prompt):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
    monkeypatch.setattr("builtins.input", ask)
    out, err = succeed(capsys, "chat", model, "--max-tokens", "8")
    assert "error: the prompt has" in err
    assert out == open_model(model).answer([{"role": "user", "content": "hello"}], 8) + "\n"


def test_predict_shows_probabilities_that_are_the_models(capsys, model):
    out, _ = succeed(capsys, "predict", "the quick brown", "--model", model, "--top", "3", "--json")
    document = json.loads(out)
    predictor = open_model(model)
    log_probabilities = next_log_p(predictor.lm, predictor.tokenizer.encode("the quick brown"))
    for entry in document["before"]:
        assert math.isclose(entry["probability"], math.exp(log_probabilities[entry["id"]]), rel_tol=1e-6)
        assert entry["token"] == predictor.tokenizer.token_text(entry["id"])
    chances = [entry["probability"] for entry in document["before"]]
    assert len(chances) == 3 and chances == sorted(chances, reverse=True)
    assert math.isclose(chances[0], math.exp(log_probabilities.max()), rel_tol=1e-6)
    assert "after" not in document


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_predict_shows_before_and_after_side_by_side(capsys, model, kind):
    artifact = make(model, Path("artifact"), kind)
    out, _ = succeed(capsys, "predict", "the quick brown", "--adapter", artifact, "--json")
    document = json.loads(out)
    plain, _ = succeed(capsys, "predict", "the quick brown", "--model", model, "--json")
    assert document["before"] == json.loads(plain)["before"], "the adapter is truly off"
    assert document["after"] != document["before"]
    out, _ = succeed(capsys, "predict", "the quick brown", "--adapter", artifact)
    assert out.splitlines()[0].split() == ["before", "p", "after", "p"]
    assert len(out.splitlines()) == 11 and "█" in out


def test_predict_draws_both_sides_on_one_scale(capsys, model):
    artifact = make(model, Path("artifact"))
    document = json.loads(succeed(capsys, "predict", "the quick brown", "--adapter", artifact, "--json")[0])
    highest = max(entry["probability"] for side in ("before", "after") for entry in document[side])
    rows = succeed(capsys, "predict", "the quick brown", "--adapter", artifact)[0].splitlines()[1:]
    assert max(document["before"][0]["probability"], document["after"][0]["probability"]) == highest
    for row, before, after in zip(rows, document["before"], document["after"], strict=True):
        drawn = [predict_verb.bar(entry["probability"] / highest) for entry in (before, after)]
        found = [part for part in row.split() if set(part) <= set("█▏▎▍▌▋▊▉")]
        assert found == [each for each in drawn if each], row
    assert document["before"][0]["probability"] != document["after"][0]["probability"]


def test_predict_at_a_temperature(capsys, model):
    def at(temperature):
        line = ["predict", "the quick brown", "--model", model, "--top", "4", "--temperature", temperature, "--json"]
        return json.loads(succeed(capsys, *line)[0])

    plain, cool, hot = at("1"), at("0.5"), at("2")
    predictor = open_model(model)
    log_probabilities = next_log_p(predictor.lm, predictor.tokenizer.encode("the quick brown"))
    for document in (plain, cool, hot):
        powers = np.exp(log_probabilities.astype(float) / document["temperature"])
        for entry, known in zip(document["before"], plain["before"], strict=True):
            assert entry["id"] == known["id"], "the order stays"
            assert math.isclose(entry["probability"], powers[entry["id"]] / powers.sum(), rel_tol=1e-4)
    tops = [document["before"][0]["probability"] for document in (hot, plain, cool)]
    assert tops == sorted(tops)
    assert at("1e-300")["before"][0]["probability"] == 1
    for wrong in ("0", "-1", "inf", "nan"):
        assert cli.main(["predict", "x", "--model", str(model), "--temperature", wrong]) == 2
        assert "--temperature" in capsys.readouterr().err


def test_predict_refuses_what_has_no_next_token_of_its_own(capsys, model):
    artifact = make(model, Path("artifact"), "none")
    assert cli.main(["predict", "x", "--adapter", str(artifact)]) == 2
    assert "changes no weights" in capsys.readouterr().err
    assert cli.main(["predict", "", "--model", str(model)]) == 2
    assert "error: TEXT: the text has 0 tokens; give at least one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("share", "text"), [(0, ""), (1, "█" * 20), (0.5, "█" * 10), (1 / 160, "▏"), (0.999, "█" * 20)]
)
def test_bars_are_exact_to_an_eighth(share, text):
    assert predict_verb.bar(share) == text


def test_merge_and_export_print_the_difference(capsys, model):
    artifact = make(model, Path("artifact"))
    out, _ = succeed(capsys, "merge", artifact, "--out", "merged", "--dtype", "bfloat16")
    assert out.startswith("merged: hf, bfloat16, ") and "largest logit difference 0.0" in out
    out, _ = succeed(capsys, "export", artifact, "--format", "peft", "--out", "adapter", "--json")
    document = json.loads(out)
    assert document["format"] == "peft" and document["path"] == "adapter" and document["difference"] == 0
    out, _ = succeed(capsys, "generate", "merged", "hello", "--max-tokens", "4")
    assert out.strip()


def test_a_pulled_folder_is_listed_and_used_by_name(capsys, model):
    out, _ = succeed(capsys, "pull", model, "--json")
    entry = json.loads(out)
    assert entry["name"] == "tiny-base" and Path(entry["path"]).exists()
    out, _ = succeed(capsys, "models", "--json")
    assert [found["name"] for found in json.loads(out)["models"]] == ["tiny-base"]
    out, _ = succeed(capsys, "models")
    assert out.splitlines()[1].split()[:2] == ["tiny-base", "hf"]
    out, _ = succeed(capsys, "predict", "hello", "--model", "tiny-base", "--top", "1")
    assert len(out.splitlines()) == 2


def test_a_model_of_no_known_family_is_not_pulled(capsys, model):
    config = json.loads((model / "config.json").read_text()) | {"model_type": "phi3"}
    Path("phi").mkdir()
    for file in model.iterdir():
        (Path("phi") / file.name).write_bytes(file.read_bytes())
    (Path("phi") / "config.json").write_text(json.dumps(config))
    assert cli.main(["pull", "phi"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: phi: the architecture 'phi3' (model_type) is not supported") and not out
    assert json.loads(succeed(capsys, "models", "--json")[0])["models"] == []
