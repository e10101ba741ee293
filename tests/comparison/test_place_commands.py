"""What a command that leads to a place says and does not say: orders, refusals, silence, answers that come too late."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_bert
import tiny_llama
from waiting import HANG, until

from riyaz.comparison import at_place, places
from riyaz.comparison.at_place import Embedder, Order, own_version
from riyaz.comparison.folder import ComparisonFolder
from riyaz.comparison.places import Command, Here, Piece, PlaceLost, check_places, open_places, stopping
from riyaz.errors import RiyazError
from riyaz.events import Event, Note
from riyaz.json_files import to_document
from riyaz.sources import open_source

# A place without riyaz, which is quick: it reads the order and does what its first argument says
SAID = """
import json, sys
act, order = sys.argv[1], json.loads(sys.stdin.readline())
def say(**event):
    print(json.dumps({"version": 1, **event}), flush=True)
print("Welcome to this machine!")
exec(act)
"""
Saying = Callable[[str], Command]
DONE = 'say(event="ended", status="done")'


class Told:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.others: list[Event] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)
        else:
            self.others.append(event)


@pytest.fixture
def folder(tmp_path: Path) -> ComparisonFolder:
    return ComparisonFolder(tmp_path / "out")


@pytest.fixture
def saying(folder: ComparisonFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Saying]:
    """A place that does as it is told. Nothing ends because time has passed, unless a test shortens SILENCE."""
    monkeypatch.setattr(places, "SILENCE", HANG)
    monkeypatch.setattr(places, "ENDING", HANG)
    monkeypatch.setattr(places, "appears", Path.exists)
    made: list[Command] = []
    (tmp_path / "said.py").write_text(SAID)

    def place(act: str) -> Command:
        words = [sys.executable, "-S", str(tmp_path / "said.py"), act]
        made.append(Command("ssh a", words, folder, {"/models/x": "0" * 64}))
        return made[-1]

    with stopping(made):
        yield place


def piece(folder: ComparisonFolder, limit: float | None = None) -> Piece:
    return Piece(("fit", "lora", "kept", "/made/in"), folder.part("lora", "kept") / "log.txt", limit=limit)


def test_an_order_says_all_and_events_come_back(saying: Saying, folder: ComparisonFolder) -> None:
    told = Told()
    act = 'say(event="phase", phase="train"); say(event="note", text=json.dumps(order)); ' + DONE
    assert saying(act).run(piece(folder, limit=60.0), told) == ""
    order = json.loads(told.notes[0])
    assert order["arguments"] == ["fit", str(folder.path), "lora", "kept", "/made/in"] and order["limit"] == 60.0
    assert order["version"] == own_version() and order["models"] == {"/models/x": "0" * 64}
    assert not any("KEY" in name for name in order["settings"]), "no key of a teacher leaves this machine"
    assert [event.phase for event in told.others] == ["train"]  # type: ignore[union-attr]


def test_a_greeting_in_another_encoding_is_passed_over(saying: Saying, folder: ComparisonFolder) -> None:
    greeting = 'sys.stdout.buffer.write(b"Willkommen in M\\xfcnchen!\\n"); '
    assert saying(greeting + DONE).run(piece(folder), Told()) == ""


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ('say(event="failed", reason="out of memory"); say(event="ended", status="failed")', "out of memory"),
        ('say(event="ended", status="failed", reason="the disk is full")', "the disk is full"),
    ],
)
def test_a_failure_is_its_reason(saying: Saying, folder: ComparisonFolder, act: str, reason: str) -> None:
    assert saying(act).run(piece(folder), Told()) == reason


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ("sys.exit(7)", "its command ended with exit code 7"),
        ('print("Connection to a closed.", file=sys.stderr); sys.exit(255)', "Connection to a closed."),
        ('say(event="progress", phase="train", done=1, total=2)', "its command ended with exit code 0"),
    ],
)
def test_a_place_that_ends_without_a_word_is_lost(saying: Saying, folder: ComparisonFolder, act: str, why: str) -> None:
    with pytest.raises(PlaceLost) as lost:
        saying(act).run(piece(folder), Told())
    assert str(lost.value) == why


def test_a_silent_place_is_lost_and_its_late_answer_is_ignored_and_said(
    saying: Saying, folder: ComparisonFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()

    def listen(event: Event) -> None:
        told(event)
        monkeypatch.setattr(places, "SILENCE", 0.01)  # it says no more until its stdin ends

    place = saying("say(event='note', text='begun'); sys.stdin.read(); " + DONE)
    with pytest.raises(PlaceLost, match="it has said nothing for 0 s"):
        place.run(piece(folder), listen)
    until(lambda: len(told.notes) == 2, "what it answers too late")
    assert told.notes == ["begun", "ssh a has answered too late (fit lora kept): its answer is ignored"]


def test_a_place_that_is_silent_when_it_is_asked_again_ends_no_thread(
    saying: Saying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says later is no answer to any work."""
    place = saying("sys.stdin.read(); " + DONE)
    monkeypatch.setattr(places, "SILENCE", 0.01)
    failed = list[object]()
    monkeypatch.setattr(threading, "excepthook", failed.append)
    others = {*threading.enumerate()}  # of pytest, and of tests before this one
    with pytest.raises(RiyazError, match="ssh a: cannot be used: it has said nothing for 0 s"):
        place.check()
    until(lambda: place._running[0].poll() is not None, "the end of its command")
    until(lambda: not {*threading.enumerate()} - others, "the end of the thread that hears it")
    assert not failed


def test_a_command_that_is_not_there_is_one_line(folder: ComparisonFolder) -> None:
    with pytest.raises(RiyazError) as refused:
        Command("no-such-command host", ["no-such-command", "host"], folder, {}).check()
    assert str(refused.value) == (
        "no-such-command host: cannot be used: no-such-command: No such file or directory; " + places.HINT
    )


def test_a_place_that_writes_elsewhere_is_refused(saying: Saying) -> None:
    with pytest.raises(RiyazError, match=r"ssh a: the folder is not the same there: what it writes to .* is not"):
        saying(DONE).check()


def test_a_place_that_computes_otherwise_is_said(saying: Saying) -> None:
    about = {"cpu": "other", "threads": 64, "trainer": "C++ 5 (amx)", "versions": {"torch": "9.9"}}
    told = Told()
    check_places([saying(f"open(order['about'], 'w').write(json.dumps({about!r})); " + DONE)], told)
    assert len(told.notes) == 1 and told.notes[0].startswith("ssh a trains with C++ 5 (amx) and torch 9.9, this ")


def test_places_are_named_and_counted(folder: ComparisonFolder) -> None:
    opened = open_places(("ssh a", "here", "ssh a", "srun -N1 -n1"), folder, {})
    assert [place.name for place in opened] == ["ssh a", "here", "ssh a (2)", "srun -N1 -n1"]
    assert isinstance(opened[1], Here) and len({place.key for place in opened}) == 4
    for names, what in ((("here", "here"), "names this machine twice"), (("ssh 'a",), "a comma ends a place")):
        with pytest.raises(RiyazError, match=what):
            open_places(names, folder, {})


# the process at the place


@pytest.fixture
def order(tmp_path: Path) -> Order:
    (tmp_path / "mark").write_text("abc\n")
    return Order(version=own_version(), working=str(tmp_path), folder=str(tmp_path), mark="mark", nonce="abc",
                 about=str(tmp_path / "about.json"), models={})  # fmt: skip


def refusal(order: Order, **changes: object) -> str:
    with pytest.raises(RiyazError) as refused:
        at_place.obey(to_document(replace(order, **changes)))  # type: ignore[arg-type]
    return str(refused.value)


def test_a_place_says_what_it_is(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(order.folder)
    assert at_place.obey(to_document(order)) == ""
    about = json.loads(Path(order.about).read_text())
    assert about["versions"]["riyaz"] == own_version() and about["cpu"] and about["trainer"]


def test_what_a_place_refuses_is_one_line_with_both_values(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_place, "PATIENCE", 0.2)
    monkeypatch.chdir(tmp_path)
    assert refusal(order, version="9.9") == f"riyaz is {own_version()} there and 9.9 here; install the same version"
    line = refusal(order, nonce="def")
    assert line.startswith(
        f"{tmp_path}: the folder is not the same there: it holds the mark 'abc' there and 'def' here"
    )
    assert "it holds no mark there" in refusal(order, mark="none")
    model = tiny_llama.write_hf_folder(tmp_path / "tiny", seed=1)
    right = open_source(str(model)).sha256()
    assert at_place.obey(to_document(replace(order, models={str(model): right}))) == ""
    line = refusal(order, models={str(model): "f" * 64})
    assert line.startswith(f"{model}: the model is {right[:12]} there and {'f' * 12} here")
    assert refusal(order, models={"/no/model": right}).startswith("/no/model: the model is here and not there")


def test_the_embedder_that_a_method_uses_is_the_same_or_on_neither(
    order: Order, own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nowhere, other = Embedder("minilm", "", "nearest"), Embedder("minilm", "e" * 64, "nearest")
    assert at_place.obey(to_document(replace(order, embedder=nowhere))) == ""
    assert refusal(order, embedder=other) == (
        "minilm, which nearest uses, is here and not there; run `riyaz pull minilm` there"
    )
    tiny_bert.keep(own_store)
    own = at_place.embedder_hash("minilm")
    assert at_place.obey(to_document(replace(order, embedder=replace(other, sha256=own)))) == ""
    assert refusal(order, embedder=other) == (
        f"minilm, which nearest uses, is {own[:12]} there and {'e' * 12} here; pull the same minilm there"
    )
    assert refusal(order, embedder=nowhere) == (
        "minilm, which nearest uses, is there and not here; run `riyaz pull minilm` here"
    )


def test_a_place_ends_when_its_stdin_does(tmp_path: Path) -> None:
    """Its parent, which sshd is on another machine, lives on."""
    order = {"version": own_version(), "working": str(tmp_path), "folder": str(tmp_path), "mark": "none", "nonce": "x",
             "about": "", "models": {}}  # fmt: skip
    command = [sys.executable, "-c", "from riyaz.comparison import at_place as a; a.PATIENCE = 1e9; a.main()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ)
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(json.dumps(order).encode() + b"\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"\n", "it lives"
    child.stdin.close()
    assert child.wait(HANG) == 1 and child.stdout.read() == b""
