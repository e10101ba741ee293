"""A prompt of millions of characters is refused before it is tokenised or searched with; one of a megabyte is read."""

import io
import json
import re
import select
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from refusals import assert_refused
from tiny_comparison import command, write_pages
from waiting import HANG

from riyaz.data.bounds import ROW
from riyaz.sources import open_source
from riyaz.text.tokenizer import ALONE, MARK, Tokenizer
from riyaz.text.tokenizer_files import ADDED, ALL_ADDED

LONG = "the card " * (2 * ROW // 9)


@pytest.fixture
def untokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenising a long text fails the test."""
    encode, render = Tokenizer.encode, Tokenizer.render

    def short(text: object) -> None:
        assert len(str(text)) < ROW, "tokenised"

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
    assert told.status == 2


def test_a_prompt_of_a_megabyte_is_tokenised_and_does_not_fit(model_folder: Path) -> None:
    told = command("generate", model_folder, "the card " * (ROW // 9))
    assert told.status == 2 and "it does not fit the context of 1024" in told.line


def changed(folder: Path, **changes: object) -> Path:
    """The folder, with other parts in its tokenizer.json."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_long_added_tokens_are_refused_before_they_cost(tmp_path: Path) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "model")
    definition = json.loads((folder / "tokenizer.json").read_text())
    added = definition["added_tokens"]
    longest = {**added[2], "id": 512, "content": "x" * ADDED}
    assert open_source(changed(folder, added_tokens=[*added, longest])).tokenizer().encode("the card")
    for content in ("x" * 2**20, "x" * (ADDED + 1)):
        changed(folder, added_tokens=[*added[:2], {**added[2], "content": content}])
        with assert_refused(f"an added token has {len(content):,} characters; the longest that is read has 256"):
            open_source(folder).tokenizer()
    many = [{**added[2], "id": 512 + i, "content": f"{i:0{ADDED}}"} for i in range(ALL_ADDED // ADDED)]
    with assert_refused("its added tokens have more than 4,194,304 characters"):
        open_source(changed(folder, added_tokens=[*added, *many])).tokenizer()
    settings = folder / "tokenizer_config.json"
    changed(folder, added_tokens=added)
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "pad_token": "x" * 2**20}))
    with assert_refused("an added token has 1,048,576 characters"):
        open_source(folder).tokenizer()


def test_a_piece_of_a_megabyte_is_read(tmp_path: Path) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "model")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    vocabulary = {"x" * 2**20 if number == 511 else piece: number for piece, number in model["vocab"].items()}
    changed(folder, model={**model, "vocab": vocabulary, "merges": model["merges"][:-1]})
    assert open_source(folder).tokenizer().encode("the card")


@pytest.mark.parametrize("letter", ["\ufffd", "a b "])
def test_other_threads_go_on_while_a_long_prompt_is_tokenised(tmp_path: Path, letter: str) -> None:
    """The package's own call for one text lets no other thread of Python run: a server stood still for a second.

    Here no thread is interrupted, so that this one runs only where the other lets it."""
    tokenizer = Tokenizer.from_folder(tiny_llama.write_tokenizer(tmp_path))
    short, long = letter * 10, letter * (100_000 // len(letter))
    assert len(long) > ALONE
    turns, turns_inside, ids = 0, list[int](), list[int]()
    backend = tokenizer._backends[MARK]

    class Watched:
        """The package's tokenizer, which counts the turns of this thread that fall into a call of it."""

        def __getattr__(self, name: str) -> Any:
            def call(*given: Any, **named: Any) -> Any:
                before = turns
                result = getattr(backend, name)(*given, **named)
                turns_inside.append(turns - before)
                return result

            return call

    tokenizer._backends[MARK] = Watched()  # type: ignore[assignment]
    thread, interval = threading.Thread(target=lambda: ids.extend(tokenizer.encode(long))), sys.getswitchinterval()
    sys.setswitchinterval(HANG)
    try:
        thread.start()
        while thread.is_alive():
            select.select([], [], [], 0)  # lets the other thread go on
            turns += 1
    finally:
        sys.setswitchinterval(interval)
    assert len(turns_inside) == 1 and turns_inside[0] > 20, turns_inside
    head = tokenizer.encode(short)
    assert ids[: len(head) - 2] == head[:-2] and len(ids) > 25_000
