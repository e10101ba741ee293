"""Which place takes which piece, and what happens to the piece of a place that is lost; nothing is trained here."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import HANG

from riyaz.comparison import dispatch
from riyaz.comparison.dispatch import ArmPiece, Dispatch, Rules, makespan, read_turns
from riyaz.comparison.folder import ComparisonFolder
from riyaz.comparison.placed import run_arms
from riyaz.comparison.places import Command, Here, Piece, PlaceLost
from riyaz.errors import RiyazError
from riyaz.events import Listen, Note
from riyaz.json_files import write_json
from riyaz.results import Turn

Act = Callable[[Piece], str]


def pieces(*arms: str, seconds: float = 1.0) -> list[ArmPiece]:
    """A fit and an evaluation of every arm; the later an arm the longer it takes."""
    made = []
    for number, arm in enumerate(arms, 1):
        made.append(ArmPiece("fit", arm, "kept", number * seconds))
        made.append(ArmPiece("evaluate", arm, "kept", 0.1, frozenset({("fit", arm, "kept")})))
    return made


class Away(Command):
    """A place that runs nothing: it writes a fit.json, or does what `acts` say, one after the other."""

    def __init__(self, name: str, folder: ComparisonFolder, *acts: Act) -> None:
        super().__init__(name, [name], folder, {})
        self.acts, self.ran = list(acts), list[tuple[str, ...]]()
        self.answers = True

    def run(self, piece: Piece, listen: Listen) -> str:
        self.ran.append(piece.words)
        return (self.acts.pop(0) if self.acts else made)(piece)

    def check(self) -> None:  # type: ignore[override]
        if not self.answers:
            raise RiyazError("cannot be used: no route to host", self.name)


class Home(Here):
    def __init__(self, folder: ComparisonFolder) -> None:
        super().__init__(folder)
        self.path, self.ran = folder.path, list[tuple[str, ...]]()

    def run(self, piece: Piece, listen: Listen) -> str:
        self.ran.append(piece.words)
        write_json(piece.log.with_name("fit.json" if piece.words[0] == "fit" else "result.json"), {})
        return ""


def made(piece: Piece) -> str:
    write_json(Path(piece.words[3]) / "fit.json", {"by": piece.words[1]})
    return ""


def lost(piece: Piece) -> str:
    raise PlaceLost("connection closed")


class Killed(BaseException):
    pass


def killed(piece: Piece) -> str:
    raise Killed


class Ran:
    """One dispatch and what it told."""

    def __init__(self, folder: ComparisonFolder, *places: Away | Home, rules: Rules | None = None) -> None:
        self.notes: list[str] = []
        self.ended: dict[tuple[str, str], str | None] = {}
        home = next((place for place in places if isinstance(place, Home)), Home(folder))
        rules = rules or Rules([place.name for place in places])
        self.dispatch = Dispatch(folder, places, rules, lambda: 0.0, self.listen)
        self.dispatch._places["here"] = home
        self.home = home

    def listen(self, event: object) -> None:
        self.notes += [event.text] if isinstance(event, Note) else []

    def run(self, given: list[ArmPiece], refused: tuple[str, ...] = ()) -> "Ran":
        self.dispatch.run(given, lambda piece: piece.arm not in refused, self.end, lambda piece: 9.0)
        return self

    def end(self, piece: ArmPiece, reason: str | None) -> None:
        self.ended[piece.work, piece.arm] = reason


@pytest.fixture
def folder(tmp_path: Path) -> ComparisonFolder:
    return ComparisonFolder(tmp_path)


def test_the_longest_goes_first_and_evaluations_stay_here(folder: ComparisonFolder) -> None:
    away = Away("ssh a", folder)
    ran = Ran(folder, away).run(pieces("short", "middle", "long"))
    assert [words[1] for words in away.ran] == ["long", "middle", "short"]
    assert {words[0] for words in away.ran} == {"fit"} and {words[0] for words in ran.home.ran} == {"evaluate"}
    assert set(ran.ended.values()) == {""} and len(ran.ended) == 6
    turns = read_turns(folder)
    assert len(turns) == 6 and {turn.outcome for turn in turns} == {"done"}
    assert (folder.part("long", "kept") / "fit.json").exists() and not list(folder.path.glob("places/unfinished/*"))


def test_openings_are_pieces_and_come_together_in_their_arms_folder(folder: ComparisonFolder) -> None:
    def opened(piece: Piece) -> str:
        run = Path(piece.words[-1])
        rate = float(piece.words[3])
        assert piece.words[0] == "search" and not any(run.iterdir()) and piece.log.name == f"opening-{rate:g}-log.txt"
        write_json(run / f"openings/{rate:g}/state.json", {})
        write_json(run / f"opening-{rate:g}.json", {})
        return ""

    def fitted(piece: Piece) -> str:
        assert {str(path.relative_to(piece.words[3])) for path in Path(piece.words[3]).rglob("*.json")} == {
            "openings/1e-05/state.json", "openings/0.001/state.json", "opening-1e-05.json", "opening-0.001.json",
        }  # fmt: skip
        return made(piece)

    rates = [ArmPiece("search", "long", "kept", 1.0, rate=rate, then=9.0) for rate in (1e-5, 1e-3)]
    fit = ArmPiece("fit", "long", "kept", 9.0, frozenset(piece.key for piece in rates))
    away = Away("ssh a", folder, opened, opened, fitted)
    ran = Ran(folder, away).run([*rates, fit, *pieces("short", seconds=5.0)[:1]])
    assert [words[:2] for words in away.ran] == [("search", "long")] * 2 + [("fit", "long"), ("fit", "short")]
    assert set(ran.ended.values()) == {""}
    turns = [turn for turn in read_turns(folder) if turn.work == "search"]
    assert [turn.rate for turn in turns] == [1e-5, 1e-3] and {turn.outcome for turn in turns} == {"done"}
    assert (folder.part("long", "kept") / "fit.json").exists()


def test_this_machine_evaluates_before_it_fits(folder: ComparisonFolder) -> None:
    home = Home(folder)
    Ran(folder, home).run(pieces("short", "long"))
    assert [words[:2] for words in home.ran] == [
        ("fit", "long"), ("evaluate", "long"), ("fit", "short"), ("evaluate", "short"),
    ]  # fmt: skip


def test_what_others_wait_for_goes_first_where_all_end_sooner_so(folder: ComparisonFolder) -> None:
    given = [ArmPiece("fit", arm, "kept", seconds) for arm, seconds in (("y", 4.0), ("z", 4.0), ("x", 3.0))]
    given.append(ArmPiece("fit", "x", "seed-1", 5.0, frozenset({("fit", "x", "kept")})))
    rules = Rules(["a", "b"])
    assert makespan(given, rules) == 12.0, "the longest first: x begins after 4 s, and its seed after 7"
    rest = [piece for piece in given if piece.key != ("fit", "x", "kept")]
    assert makespan(rest, rules, {"a": (3.0, given[2])}) == 8.0
    places = Away("a", folder), Away("b", folder)
    Ran(folder, *places, rules=rules).run(given)
    assert places[0].ran[0][1:3] == ("x", "kept")


def test_a_place_is_as_fast_as_its_last_fit_of_the_arm(folder: ComparisonFolder) -> None:
    """Of two alike places one had measured itself as faster, and got all that is long."""
    rules = Rules(["a", "here"], slowness={"a": {"full": 0.8}})
    kept, seed, other = ArmPiece("fit", "full", "kept", 100), ArmPiece("fit", "full", "seed-1", 90), pieces("lora")[0]
    runs = {"a": (80.0, kept)}
    assert makespan([seed, replace(seed, part="seed-2")], rules, runs) == pytest.approx(80 + 72)
    rules.learn("a", kept, 120.0)
    assert (rules.seconds("a", seed), rules.seconds("here", seed)) == (pytest.approx(108), 90)
    rules.learn("a", seed, 0.5)  # too short to tell
    rules.learn("a", other, 3.0)
    assert rules.seconds("a", kept) == pytest.approx(120) and rules.seconds("a", other) == pytest.approx(3)
    assert rules.seconds("a", ArmPiece("evaluate", "full", "kept", 100)) == 80


def test_a_dispatch_learns_the_pace_of_its_places(folder: ComparisonFolder) -> None:
    clock = iter(range(0, 1000, 10))
    rules = Rules(["a"])
    dispatch = Dispatch(folder, [Away("a", folder)], rules, lambda: float(next(clock)), lambda event: None)
    dispatch.run(pieces("lora")[:1], lambda piece: True, lambda piece, reason: None, lambda piece: 60.0)
    assert rules.pace.keys() == {("a", "lora")} and rules.pace["a", "lora"] >= 10


def test_two_places_work_at_once(folder: ComparisonFolder) -> None:
    both = threading.Barrier(2, timeout=HANG)

    def together(piece: Piece) -> str:
        both.wait()
        return made(piece)

    places = Away("a", folder, together), Away("b", folder, together)
    ran = Ran(folder, *places).run(pieces("one", "two"))
    assert set(ran.ended.values()) == {""} and [len(place.ran) for place in places] == [1, 1]


def test_a_lost_places_arm_begins_anew_elsewhere(folder: ComparisonFolder) -> None:
    a, b = Away("a", folder, lost), Away("b", folder, lambda piece: lost(piece))
    b.acts = []
    hold = threading.Event()

    def late(piece: Piece) -> str:  # b is not free before a is lost
        hold.wait(HANG)
        return made(piece)

    a.acts = [lambda piece: (hold.set(), lost(piece))[1]]
    b.acts = [late]
    ran = Ran(folder, a, b).run(pieces("small", "large"))
    assert set(ran.ended.values()) == {""}
    tried = [(turn.place, turn.outcome) for turn in read_turns(folder) if turn.arm == "large" and turn.work == "fit"]
    assert tried == [("a", "lost"), ("b", "done")] and "it begins anew elsewhere" in ran.notes[0]
    assert "a was lost while it fitted large (connection closed)" in ran.notes[0]


def test_an_arm_that_is_lost_twice_fails_and_the_others_go_on(folder: ComparisonFolder) -> None:
    def deadly(piece: Piece) -> str:
        return lost(piece) if piece.words[1] == "large" else made(piece)

    places = [Away(name, folder, *[deadly] * 9) for name in "ab"]
    ran = Ran(folder, *places).run(pieces("small", "large"), refused=())
    reason = ran.ended["fit", "large"]
    assert reason is not None and reason.startswith("the place that fitted it was lost twice: ")
    assert ran.ended["evaluate", "small"] == "" and (folder.part("small", "kept") / "fit.json").exists()


def test_a_place_that_does_not_answer_again_is_used_no_more(folder: ComparisonFolder) -> None:
    a = Away("a", folder, lost)
    a.answers = False
    ran = Ran(folder, a).run(pieces("one", "two"))
    assert len(a.ran) == 1 and ran.notes[1] == "a is used no more: a: cannot be used: no route to host"
    assert {ran.ended["fit", arm] for arm in ("one", "two")} == {"no place is left that can run it"}


def test_a_refused_piece_is_over(folder: ComparisonFolder) -> None:
    a = Away("a", folder)
    ran = Ran(folder, a).run(pieces("one", "two"), refused=("two",))
    assert ran.ended["fit", "two"] is None and [words[1] for words in a.ran] == ["one"]


def test_a_failure_at_a_place_is_a_reason_and_its_log_comes_home(folder: ComparisonFolder) -> None:
    def fails(piece: Piece) -> str:
        piece.log.write_text("what it said")
        return "out of memory"

    ran = Ran(folder, Away("a", folder, fails)).run(pieces("one"))
    assert ran.ended["fit", "one"] == "out of memory"
    assert (folder.part("one", "kept") / "log.txt").read_text() == "what it said"


def test_a_full_disk_moves_an_arm_and_twice_fails_it(folder: ComparisonFolder) -> None:
    def full(piece: Piece) -> str:
        return "/store/x: the disk is full; nothing was kept"

    ran = Ran(folder, Away("a", folder, full), Away("b", folder)).run(pieces("one"))
    assert set(ran.ended.values()) == {""}
    tried = [(turn.place, turn.outcome) for turn in read_turns(folder) if turn.work == "fit"]
    assert tried == [("a", "failed"), ("b", "done")]
    assert ran.notes == ["a could not fit one (/store/x: the disk is full; nothing was kept): it begins anew elsewhere"]
    ran = Ran(folder, Away("a", folder, full), Away("b", folder, full)).run(pieces("two"))
    assert ran.ended["fit", "two"] == "b: /store/x: the disk is full; nothing was kept"


def test_an_error_of_ours_is_not_swallowed(folder: ComparisonFolder) -> None:
    def wrong(piece: Piece) -> str:
        raise RiyazError("damaged", "settings.json")

    with pytest.raises(RiyazError, match="damaged"):
        Ran(folder, Away("a", folder, wrong)).run(pieces("one"))


def left_behind(folder: ComparisonFolder, place: str) -> Path:
    """What a killed command has left: a turn without an end, and the folder that it wrote into."""
    turn = Turn(place, "fit", "one", "kept", 1.0, made_in="0123abcd")
    folder.write("places.json", {"turns": [turn]})
    made_in = folder.path / "places/unfinished/0123abcd"
    made_in.mkdir(parents=True)
    (made_in / "checkpoint").write_text("half")
    return made_in


def test_a_command_that_goes_on_goes_on_where_the_place_was(folder: ComparisonFolder) -> None:
    left_behind(folder, "a")
    a = Away("a", folder)
    Ran(folder, a).run(pieces("one"))
    assert Path(a.ran[0][3]).name == "0123abcd"
    assert (folder.part("one", "kept") / "checkpoint").read_text() == "half"
    assert [turn.outcome for turn in read_turns(folder)] == ["lost", "done", "done"]


def test_what_is_gone_on_with_tells_no_pace(folder: ComparisonFolder) -> None:
    """It takes only what was left of its training."""
    left_behind(folder, "a")
    clock, rules = iter(range(0, 1000, 10)), Rules(["a"])
    dispatch = Dispatch(folder, [Away("a", folder)], rules, lambda: float(next(clock)), lambda event: None)
    dispatch.run(pieces("one")[:1], lambda piece: True, lambda piece, reason: None, lambda piece: 60.0)
    assert dispatch.turns[-1].outcome == "done" and not rules.pace


def test_another_place_begins_anew(folder: ComparisonFolder) -> None:
    left_behind(folder, "b")
    a = Away("a", folder)
    Ran(folder, a).run(pieces("one"))
    assert Path(a.ran[0][3]).name != "0123abcd" and not (folder.part("one", "kept") / "checkpoint").exists()


def test_each_place_goes_on_with_its_own(folder: ComparisonFolder) -> None:
    """Whichever is asked first: the longest is not what it has begun."""
    turns = [Turn(place, "fit", arm, "kept", 1.0, made_in=f"by{place}") for place, arm in (("a", "one"), ("b", "two"))]
    folder.write("places.json", {"turns": turns})
    a, b = Away("a", folder), Away("b", folder)
    with pytest.raises(Killed):
        Ran(folder, Away("a", folder, killed)).run(pieces("one", "two", "three"))  # while b is left out
    Ran(folder, a, b).run(pieces("one", "two", "three"))
    assert [Path(place.ran[0][3]).name for place in (a, b)] == ["bya", "byb"]


def test_what_is_begun_where_no_place_is_now_begins_anew_at_once(folder: ComparisonFolder) -> None:
    folder.write("places.json", {"turns": [Turn("gone", "fit", "one", "kept", 1.0, made_in="0123abcd")]})
    a = Away("a", folder)
    assert Ran(folder, a, rules=Rules(["a"])).run(pieces("one")).ended["fit", "one"] == "" and len(a.ran) == 1


def stopping_at(moves: int, move: Callable[[Path, Path], object], counted: Callable[[Path], bool]) -> Any:
    """`move`, which kills the command after so many moves of the files that are `counted`."""
    left = iter(range(moves))

    def stop(path: Path, target: Path) -> object:
        if counted(path) and next(left, None) is None:
            raise Killed
        return move(path, target)

    return stop


@pytest.mark.parametrize("moves", range(5))
def test_a_command_killed_while_it_takes_what_a_place_has_made_takes_it_again(
    moves: int, folder: ComparisonFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def artifact(piece: Piece) -> str:
        for name in ("artifact", "opening", "search.json"):
            (Path(piece.words[3]) / name).write_text(name)
        return made(piece)

    def removing(path: Path) -> None:
        if path.parent.name == "unfinished":
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(dispatch, "_replace", stopping_at(moves, dispatch._replace, lambda path: True))
        patched.setattr(dispatch, "remove", removing)
        Ran(folder, Away("a", folder, artifact)).run(pieces("one")[:1])
    run = folder.part("one", "kept")
    assert (run / "fit.json").exists() == (moves == 4)
    a = Away("a", folder)
    ran = Ran(folder, a).run(pieces("one")[: int(moves < 4)])
    assert a.ran == [] and [turn.outcome for turn in ran.dispatch.turns] == ["done"]
    assert {path.name for path in run.iterdir()} == {"artifact", "fit.json", "opening", "search.json"}


@pytest.mark.parametrize("moves", range(4))
def test_a_command_killed_while_it_moves_what_was_begun_loses_nothing(
    moves: int, folder: ComparisonFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, run, there = {"checkpoint", "openings", "search.json"}, folder.part("one", "kept"), set[str]()
    run.mkdir(parents=True)
    for name in begun:
        (run / name).write_text(name)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Path, "replace", stopping_at(moves, Path.replace, lambda path: path.name in begun))
        Ran(folder, Away("a", folder, killed)).run(pieces("one")[:1])

    def look(piece: Piece) -> str:
        there.update(path.name for path in Path(piece.words[3]).iterdir())
        return made(piece)

    Ran(folder, Away("a", folder, look)).run(pieces("one")[:1])
    assert there == begun


def test_what_was_whole_is_taken_as_it_is(folder: ComparisonFolder) -> None:
    write_json(left_behind(folder, "b") / "fit.json", {})
    a = Away("a", folder)
    ran = Ran(folder, a).run(pieces("one"))
    assert a.ran == [] and ran.ended["fit", "one"] == "" and (folder.part("one", "kept") / "fit.json").exists()


def test_a_command_that_goes_on_without_places_has_what_they_had_begun(folder: ComparisonFolder) -> None:
    left_behind(folder, "a")
    there = list[str]()
    alone = SimpleNamespace(folder=folder, run=lambda: there.extend(os.listdir(folder.part("one", "kept"))))
    assert run_arms(alone, [], [None]) == []  # type: ignore[arg-type]
    assert there == ["checkpoint"] and not (folder.path / "places/unfinished").exists()


@pytest.mark.parametrize("name", ["../else", "/etc", "a/b", ".."])
def test_a_strangers_places_json_names_no_folder_elsewhere(folder: ComparisonFolder, name: str) -> None:
    for key in ("arm", "part", "made_in"):
        turn = {"place": "a", "work": "fit", "arm": "x", "part": "kept", "began": 0.0, "made_in": "m"} | {key: name}
        folder.write("places.json", {"turns": [turn]})
        with pytest.raises(RiyazError, match="is not the name of a folder"):
            read_turns(folder)


def test_the_makespan_is_that_of_the_last_place(folder: ComparisonFolder) -> None:
    given = pieces("one", "two", "three", seconds=10.0)  # 10, 20 and 30 s to fit, .1 s to evaluate
    assert makespan(given, Rules(["here"])) == pytest.approx(60.3)
    assert makespan(given, Rules(["a", "b"])) == pytest.approx(30.2)
    slow = Rules(["a", "b"], slowness={"a": {"three": 2.0}})
    assert makespan(given, slow) == pytest.approx(60.1)
    unable = Rules(["a", "b"], unable={"a": {"three": "full"}, "b": {"one": "full", "two": "full"}})
    assert makespan(given, unable) == pytest.approx(30.1, abs=0.11)


def test_of_many_pieces_few_are_looked_at_for_a_free_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place waits meanwhile, and the makespan is played once for each piece that it may take."""
    given = [
        piece for fold in range(6) for number in range(20)
        for piece in (
            ArmPiece("search", f"arm-{number}", f"{fold}", 9.0 + number, rate=1e-3, then=9.0),
            ArmPiece("fit", f"arm-{number}", f"{fold}", 9.0, frozenset({("search 0.001", f"arm-{number}", f"{fold}")})),
            ArmPiece("evaluate", f"arm-{number}", f"{fold}", 3.0, frozenset({("fit", f"arm-{number}", f"{fold}")})),
        )
    ]  # fmt: skip
    looked = list[ArmPiece]()
    take = Rules.take
    monkeypatch.setattr(Rules, "take", lambda rules, place, piece: looked.append(piece) or take(rules, place, piece))
    assert makespan(given, Rules([f"place {number}" for number in range(16)])) > 360
    assert len(looked) < len(given) ** 2, "the first that it may take is enough"
