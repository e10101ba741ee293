"""`riyaz tokenizer` as a person sees it."""

import json

import pytest
import tiny_llama

from riyaz.cli import main as cli
from riyaz.text.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def texts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(tiny_llama.CORPUS)
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"text": "naïve café"}\n')


def run(capsys, *line: str) -> tuple[int, str, str]:
    status = cli.main(["tokenizer", *line])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_folder_with_the_tokens_asked_for(capsys):
    status, out, err = run(capsys, "a.txt", "b.jsonl", "--vocab", "420", "--out", "made")
    first, second = out.splitlines()
    assert status == 0 and not err
    assert first.startswith("420 tokens from 2 files (0.0 MB) in made; ") and first.endswith(" bytes per token")
    assert second.startswith("example: T|he| qu")
    made = Tokenizer.from_folder("made")
    assert made.vocab_size == 420 and made.decode(made.encode("日本 fox")) == "日本 fox"


def test_json_and_kinds_and_writing_again(capsys):
    for kind, vocab in (("chars", 259), ("bytes", 257)):
        status, out, _ = run(capsys, ".", "--kind", kind, "--out", "made", "--json")
        document = json.loads(out)
        assert status == 0 and (document["kind"], document["vocab"]) == (kind, vocab)
        assert (document["files"], document["documents"], document["out"]) == (2, 3, "made")
        assert "".join(document["example"]) == "The quick brown fox jumps over the lazy dog."


def test_into_the_folder_one_is_in(capsys, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    status, _, err = run(capsys, "../a.txt", "--kind", "bytes", "--out", ".")
    assert status == 0 and not err and Tokenizer.from_folder(".").vocab_size == 257


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--out", "made"], "TEXT is missing"),
        (["a.txt"], "--out is missing"),
        (["a.txt", "--vocab", "300.9", "--out", "made"], 'unable to convert "300.9" into int'),
        (["loop.txt", "--out", "made"], "loop.txt: cannot be read (Too many levels of symbolic links)"),
        (["gone.txt", "--out", "made"], "gone.txt: no such file or folder"),
        (["a.txt", "--out", "made"], "the text supports a vocabulary of"),
        (["a.txt", "--vocab", "100", "--out", "made"], "too small"),
        (["a.txt", "--out", "b.jsonl"], "b.jsonl: is a file"),
        (["a.txt", "--out", "."], ".: holds other files"),
        (["a.txt", "--out", "no/such"], "no: the folder does not exist"),
        (["a.txt", "--kind", "words", "--out", "made"], "words"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(capsys, tmp_path, line, said):
    before = sorted(path.name for path in tmp_path.iterdir())
    status, out, err = run(capsys, *line)
    assert status == 2 and not out and err.startswith("error: ") and said in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
