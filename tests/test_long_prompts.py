"""A prompt of millions of characters is refused before it is tokenised or searched with; one of a megabyte is read."""

import io
import re
from pathlib import Path

import pytest
import tiny
from comparing import command, write_pages
from expect import assert_refused

from riyaz.predictor.prompt import LONGEST
from riyaz.sources import open_source
from riyaz.tokenizer import Tokenizer

LONG = "the card " * (2 * LONGEST // 9)


@pytest.fixture
def untokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenising a long text fails the test."""
    encode, render = Tokenizer.encode, Tokenizer.render

    def short(text: object) -> None:
        assert len(str(text)) < LONGEST, "tokenised"

    monkeypatch.setattr(Tokenizer, "encode", lambda self, text, *more: short(text) or encode(self, text, *more))
    monkeypatch.setattr(Tokenizer, "render", lambda self, rows, *more: short(rows) or render(self, rows, *more))


@pytest.mark.parametrize("verb", ["generate", "chat", "predict", "rag"])
def test_a_prompt_of_megabytes_is_one_line(
    verb: str, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, untokenised: None
) -> None:
    if verb == "rag":
        assert command("rag", "add", tmp_path / "c.sqlite", write_pages(tmp_path / "pages"), "--lexical").status == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(LONG + "\n"))
    asked = {
        "generate": ("generate", model_folder, "-"),
        "chat": ("chat", model_folder),
        "predict": ("predict", LONG, "--model", model_folder),
        "rag": ("rag", "ask", tmp_path / "c.sqlite", LONG),
    }
    told = command(*asked[verb])
    assert re.search(r"the prompt has 2,097,14\d characters; at most 1,048,576 are read; shorten it", told.err)
    assert len(told.err) < 400
    assert told.status == (0 if verb == "chat" else 2), "a chat goes on with the next line"


def test_a_prompt_of_a_megabyte_is_tokenised_and_does_not_fit(model_folder: Path) -> None:
    told = command("generate", model_folder, "the card " * (LONGEST // 9))
    assert told.status == 2 and "it does not fit the context of 1024" in told.line


def test_a_token_of_a_megabyte_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_hf_folder(tmp_path / "model")
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"<|im_end|>"', '"' + "x" * 2**20 + '"'))
    with assert_refused("tokenizer.json"):
        open_source(folder).tokenizer()
