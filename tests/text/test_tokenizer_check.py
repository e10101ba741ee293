"""Tokenizers of strangers: tried in a process with limits, chains of replacements bounded, panics in one line."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from refusals import assert_refused
from tiny_comparison import command
from waiting import HANG

from riyaz.sources import open_source, tokenizer_check
from riyaz.text import tokenizer_worker
from riyaz.text.tokenizer import Tokenizer
from riyaz.text.tokenizer_gguf import LLAMA3_SPLIT

ENDLESS = "(?:e|ee)+$"  # on many letters "e" and another one


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def model(folder: Path, **parts: Any) -> Path:
    """A tiny model whose tokenizer.json has other parts."""
    folder = tiny_llama.write_hf_folder(folder)
    definition = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(definition | parts))
    return folder


def splitting(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}}


def doubling(count: int, name: str, **pattern: str) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": pattern or {"String": "a"}, "content": "aa"}
    return {name: {"type": "Sequence", f"{name}s": [step] * count}}


@pytest.mark.parametrize("verb", ["pull", "generate", "export"])
def test_an_endless_pattern_is_refused_in_one_line(verb: str, tmp_path: Path, home: Path) -> None:
    folder = model(tmp_path / "model", **splitting(ENDLESS))
    more = {"pull": (), "generate": ("hello",), "export": ("--format", "hf", "--out", tmp_path / "out")}[verb]
    told = command(verb, folder, *more)
    assert told.status == 2 and f"{folder}/tokenizer.json: the tokenizer" in told.line
    assert "ordinary text" in told.line and "another copy of this model" in told.line
    assert not (tmp_path / "out").exists() and not list(home.glob("models/*")) and not list(home.glob("tokenizers/*"))


def test_a_tokenizer_that_passed_is_not_tried_again(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    real = subprocess.run
    monkeypatch.setattr(tokenizer_check.subprocess, "run", lambda *a, **k: tried.append(a) or real(*a, **k))
    folder = model(tmp_path / "model", **splitting(r"\w+|\s+"))
    for _ in range(2):
        tokenizer = open_source(folder).tokenizer()
        assert tokenizer.decode(tokenizer.encode("the card")) == "the card"
    assert len(tried) == 1 and len(list((home / "tokenizers").iterdir())) == 1
    open_source(model(tmp_path / "other", **splitting(r"\w+|\s"))).tokenizer()
    assert len(tried) == 2
    for harmless in (
        tiny_llama.write_hf_folder(tmp_path / "plain"),
        model(tmp_path / "known", **splitting(LLAMA3_SPLIT)),
    ):
        open_source(harmless).tokenizer()
    assert len(tried) == 2


@pytest.mark.parametrize("part", ["normalizer", "decoder"])
@pytest.mark.parametrize("pattern", [{"String": "a"}, {"Regex": "q"}, {"String": ""}])
def test_a_chain_of_replacements_is_refused_before_it_fills_the_memory(
    tmp_path: Path, part: str, pattern: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_check, "expect_safe", lambda definition, folder: None)
    with assert_refused(f"its {part} can make a text more than 1,000 times as long"):
        open_source(model(tmp_path / "model", **doubling(34, part, **pattern))).tokenizer()


def test_replacements_of_real_tokenizers_are_read(tmp_path: Path) -> None:
    spaces = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    ]
    assert open_source(model(tmp_path / "a", normalizer={"type": "Sequence", "normalizers": spaces})).tokenizer()
    for broken in ({"type": "Replace"}, {"type": "Sequence", "normalizers": 3}, [], {"type": "Precompiled"}):
        with assert_refused("not a valid tokenizer"):
            open_source(model(tmp_path / "b", normalizer=broken)).tokenizer()


def test_a_panic_of_the_package_is_one_line(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(model(tmp_path / "model", **splitting(ENDLESS)))
    with assert_refused("the tokenizer cannot encode a text"):
        tokenizer.encode("e" * 200 + "!")


def tried(doublings: int, **limits: float) -> "subprocess.CompletedProcess[bytes]":
    """The end of a worker with these limits, whose tokenizer makes each "a" to so many."""
    _, environment = tokenizer_check.module_command("riyaz.text.tokenizer_worker")
    code = f"from riyaz.text import tokenizer_worker as worker; worker.__dict__.update({limits}); worker.main()"
    content = json.dumps(json.loads(tiny_llama.tokenizer_json(512)) | doubling(doublings, "normalizer"))
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, input=content.encode(), capture_output=True, env=environment, timeout=HANG)


def test_the_limits_of_memory_and_time_end_the_process() -> None:
    assert tried(1, MEMORY_MIB=512).stdout == b"ok\n"
    by_memory, by_time = tried(34, MEMORY_MIB=512), tried(34, MEMORY_MIB=1 << 20, SECONDS=0)
    assert by_memory.returncode not in (0, -signal.SIGXCPU) and by_memory.stdout == b""
    assert by_time.returncode == -signal.SIGXCPU and by_time.stdout == b""
    assert tokenizer_worker.MEMORY_MIB <= 4096 and tokenizer_worker.SECONDS <= 5
