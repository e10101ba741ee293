"""A model's tokenizer is made while its weights are packed, and chat templates are rendered by a process that is
started before."""

import threading
from pathlib import Path

import pytest
import tiny_llama
from refusals import assert_refused
from waiting import HANG, until

from riyaz.errors import RiyazError
from riyaz.predictor import from_files, open_base, open_model
from riyaz.sources import Source
from riyaz.text import template


def test_the_tokenizer_is_made_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_llama.write_hf_folder(tmp_path / "tiny")
    begun, engine, tokenizer = threading.Event(), from_files.open_engine, Source.tokenizer

    def making(self: Source):
        begun.set()
        return tokenizer(self)

    def packing(*args):
        assert begun.wait(HANG), "the tokenizer waits for the weights"
        return engine(*args)

    monkeypatch.setattr(Source, "tokenizer", making)
    monkeypatch.setattr(from_files, "open_engine", packing)
    plain = open_base(path).plain
    messages = [{"role": "user", "content": "hello"}]
    assert plain.answer(messages, 4) == open_model(path).answer(messages, 4)


def test_what_is_wrong_with_either_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_llama.write_hf_folder(tmp_path / "tiny")
    (path / "tokenizer.json").write_text("{}")
    with assert_refused("not a valid tokenizer"):
        open_model(path)

    def failing(*args):
        raise RiyazError("weights that are none")

    monkeypatch.setattr(from_files, "open_engine", failing)
    with assert_refused("weights that are none"):
        open_model(path)


def test_the_process_for_templates_is_started_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    template._worker.stop()
    template.start_worker()
    pid = until(lambda: template._worker.pid, "a process for templates")
    conversation = [{"role": "user", "content": "hello"}]
    texts = template.render_chat(
        "{{ messages[0]['content'] }}", [conversation], add_generation_prompt=True, variables={}
    )
    assert texts == ["hello"] and template._worker.pid == pid

    def refusing() -> None:
        raise RiyazError("no process")

    monkeypatch.setattr(template._worker, "start", refusing)
    template.start_worker()  # and nothing is printed: pytest fails on an exception of a thread
