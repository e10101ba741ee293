"""Gives the pieces of a comparison's arms to places: to a free place the one with which all are planned to end first.

An arm is fitted at any place. Its evaluation, whose times are compared with others', runs on this machine alone.
`makespan` plays on without running anything, by a simpler rule: an evaluation first, then the longest.
"""

import heapq
import queue
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from riyaz.comparison.arms import BEFORE
from riyaz.comparison.folder import DAMAGED, FINAL, PLACES, ComparisonFolder
from riyaz.comparison.places import HERE, Command, Here, Piece, Place, PlaceLost, appears
from riyaz.errors import RiyazError, joined, shown
from riyaz.events import Listen, Note, Phase, about
from riyaz.files import DISK_FULL, is_bare, remove
from riyaz.json_files import from_json, read_json
from riyaz.methods.fitting.learning_rate import OPENINGS, trial_name
from riyaz.results import FIT, RESULT, Turn

TURNS = "places.json"
UNFINISHED = "unfinished"  # folder in PLACES of what other places than home are making
LOG = "log.txt"
SEEN = 60.0  # seconds until what a place has made must be seen here
TELLING = 1.0  # seconds of work from which on it tells a place's pace
LOSSES = 2  # of places, after which an arm fails
Key = tuple[str, str, str]  # work, arm, part
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class ArmPiece:
    """One process of an arm, the seconds that it is planned to take on this machine, and the pieces that end before it
    begins. A search trains the opening at one learning `rate`; the fit that waits for it takes `then` seconds."""

    work: Literal["search", "fit", "evaluate"]
    arm: str
    part: str
    seconds: float
    needs: frozenset[Key] = frozenset()
    rate: float | None = None
    then: float = 0.0

    @property
    def key(self) -> Key:
        """What it is called among the pieces of a comparison."""
        return _key(self.work, self.arm, self.part, self.rate)

    @property
    def product(self) -> str:
        """The file that it writes last."""
        return trial_name(self.rate) if self.rate is not None else RESULT if self.work == "evaluate" else FIT


@dataclass
class Rules:
    """Which piece a place may take: by default every fit everywhere, and every evaluation on this machine."""

    fitting: list[str]  # places that fit, by name
    unable: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # place -> arm that it cannot fit -> why
    slowness: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # place -> arm -> its time / time here
    lost: dict[Key, list[str]] = field(default_factory=dict)  # places that were lost with a piece
    at_home: Collection[str] = ()  # arms that this machine alone fits
    pace: dict[tuple[str, str], float] = field(default_factory=dict)  # (place, arm) -> time of its last fit / planned

    def take(self, place: str, piece: ArmPiece) -> bool:
        """Whether a place may take a piece: one that was lost with it only where no other can."""
        if piece.work == "evaluate" or piece.arm in self.at_home:
            return place == HERE
        if place not in self.fitting:
            return False
        able = [name for name in self.fitting if piece.arm not in self.unable.get(name, ())]
        others = [name for name in able if name not in self.lost.get(piece.key, ())]
        return place in (others or able)

    def ready_for(self, place: str, waiting: Iterable[ArmPiece], over: Set[Key]) -> list[ArmPiece]:
        """The pieces that a free place may take: evaluations, then the longest."""
        ready = [piece for piece in waiting if piece.needs <= over and self.take(place, piece)]
        return sorted(ready, key=_turn_of)

    def seconds(self, place: str, piece: ArmPiece) -> float:
        """Seconds that a piece is planned to take at a place."""
        pace = 1.0 if piece.work == "evaluate" else self.pace.get((place, piece.arm), 1.0)
        return piece.seconds * self.slowness.get(place, {}).get(piece.arm, 1.0) * pace

    def learn(self, place: str, piece: ArmPiece, took: float) -> None:
        """Take what a fit took for the pace of the arm's further ones: two places that measure themselves for seconds
        differ by a fifth where they are alike."""
        if piece.work != "evaluate" and took >= TELLING and piece.seconds > 0:
            known = self.pace.get((place, piece.arm), 1.0)
            self.pace[place, piece.arm] = known * took / self.seconds(place, piece)


def makespan(pieces: Iterable[ArmPiece], rules: Rules, runs: Mapping[str, tuple[float, ArmPiece]] = NOTHING) -> float:
    """Seconds until the last piece ends, if all take what is planned; `runs` has what runs now, by place, with the
    seconds that it takes still."""
    waiting, now = sorted(pieces, key=_turn_of), 0.0
    over: set[Key] = set()
    free = [place for place in dict.fromkeys([*rules.fitting, HERE]) if place not in runs]
    running = [(left, -1 - count, place, piece) for count, (place, (left, piece)) in enumerate(runs.items())]
    heapq.heapify(running)
    known = {piece.key for piece in (*waiting, *(piece for _, piece in runs.values()))}
    waiting = [replace(piece, needs=piece.needs & known) for piece in waiting]
    for count in range(2 * len(known) + 2):
        for place in list(free):
            ready = (at for at, piece in enumerate(waiting) if piece.needs <= over and rules.take(place, piece))
            for at in islice(ready, 1):
                piece = waiting.pop(at)
                free.remove(place)
                heapq.heappush(running, (now + rules.seconds(place, piece), count, place, piece))
        if not running:
            break
        now, _, place, piece = heapq.heappop(running)
        free.append(place)
        over.add(piece.key)
    return now


class Dispatch:
    """Runs pieces at places, one at each place at a time. What is decided is decided in the thread that calls `run`;
    each piece has a thread that waits for its process."""

    def __init__(
        self, folder: ComparisonFolder, places: Sequence[Place], rules: Rules, since: Callable[[], float],
        listen: Listen,
    ) -> None:  # fmt: skip
        self._folder, self._rules, self._since, self._listen = folder, rules, since, listen
        here = next((place for place in places if place.name == HERE), None)
        self._places = {place.name: place for place in [*places, *([] if here else [Here(folder)])]}
        self._heard: queue.Queue[Callable[[], None]] = queue.Queue()
        self._busy: set[str] = set()
        self._runs: dict[str, tuple[float, ArmPiece]] = {}  # by place: since when, and which piece
        self._waiting: list[ArmPiece] = []
        self.over: set[Key] = set()
        self.turns = read_turns(folder)
        self._resumed = {_turn_key(turn) for turn in self.turns if turn.ended is None}  # whose seconds tell no pace
        self._left = dict[Key, int]()  # fits that a killed command had begun, until a place takes them up: their turns
        for number, turn in enumerate(self.turns):
            if turn.ended is None:
                self.turns[number] = self._over(turn)
                if turn.work == "fit" and turn.made_in and self.turns[number].outcome == "lost":
                    self._left[_turn_key(turn)] = number

    @property
    def places(self) -> list[Place]:
        """All places, this machine among them, since it evaluates in any case."""
        return list(self._places.values())

    def has_begun(self, arm: str, part: str) -> bool:
        """Whether a killed command has begun to fit a part of an arm, and no place has taken it up again."""
        return _key("fit", arm, part, None) in self._left

    @property
    def rules(self) -> Rules:
        """Which piece a place may take."""
        return self._rules

    def run(
        self, pieces: Iterable[ArmPiece], begin: Callable[[ArmPiece], bool],
        end: Callable[[ArmPiece, str | None], None], limit: Callable[[ArmPiece], float],
    ) -> None:  # fmt: skip
        """Run the pieces. `begin` is asked before each and may refuse it; `end` gets the reason why it failed, "" if it
        did not, and None for one that was refused; `limit` gives the seconds after which it is stopped."""
        self._waiting = list(pieces)
        known = {piece.key for piece in self._waiting} | self.over
        self._waiting = [replace(piece, needs=piece.needs & known) for piece in self._waiting]
        self._end = end
        while True:
            for place in self.places:
                while place.name not in self._busy and self._give(place, begin, limit):
                    pass
            if not self._busy:
                break
            self._heard.get()()
        for piece in self._waiting:  # which no place can take
            self._close(piece, "no place is left that can run it")
        self._waiting = []

    def _give(self, place: Place, begin: Callable[[ArmPiece], bool], limit: Callable[[ArmPiece], float]) -> bool:
        """Give the next piece to a free place; False where there is none for it."""
        piece = self._next_for(place.name)
        if piece is None:
            return False
        self._waiting.remove(piece)
        if not begin(piece):
            self._close(piece, None)
            return True
        number = self._left.pop(piece.key, None)
        left = None if number is None else self.turns[number]
        if number is not None and left and (self._made_in(left) / FIT).exists():  # its command was killed just then
            self._collect(piece, self._made_in(left))
            self.turns[number] = replace(left, outcome="done")
            self._save()
            self._close(piece, "")
            return True
        again = left.made_in if left is not None and left.place == place.name else None
        turn = Turn(place.name, piece.work, piece.arm, piece.part, self._since(), rate=piece.rate, made_in=again)
        if isinstance(place, Command) and again is None:
            turn = replace(turn, made_in=secrets.token_hex(6))
        self.turns.append(turn)
        self._save()
        if turn.made_in:  # now that it is known where what is moved will be
            self._move_in(piece, self._made_in(turn))
        self._start(place, piece, turn, max(1.0, limit(piece)))
        return True

    def _next_for(self, place: str) -> ArmPiece | None:
        """The piece that a free place takes: what it has begun itself, and not what another one goes on with; of equal
        ones the first of `Rules.ready_for`."""
        ready = self._rules.ready_for(place, self._waiting, self.over)
        own = [piece for piece in ready if self._begun_at(piece) == place]
        ready = own or [piece for piece in ready if not self._begun_at(piece)]
        alike = {(piece.work, piece.arm, piece.seconds): piece for piece in reversed(ready)}
        if len(alike) < 2:
            return ready[0] if ready else None
        now = self._since()
        runs = {name: (max(0.0, began + self._rules.seconds(name, piece) - now), piece)
                for name, (began, piece) in self._runs.items()}  # fmt: skip

        def end(piece: ArmPiece) -> float:
            mine = {place: (self._rules.seconds(place, piece), piece)}
            others = [other for other in self._waiting if other is not piece]
            return round(makespan(others, self._rules, runs | mine), 3)

        return min(reversed(alike.values()), key=end)

    def _begun_at(self, piece: ArmPiece) -> str:
        """The place that has begun a fit when its command was killed, and can go on with it; "" for none."""
        number = self._left.get(piece.key)
        place = "" if number is None else self.turns[number].place
        return place if place in self._places and self._rules.take(place, piece) else ""

    def _start(self, place: Place, piece: ArmPiece, turn: Turn, limit: float) -> None:
        run = self._made_in(turn) if turn.made_in else self._folder.part(piece.arm, piece.part)
        rate = [] if piece.rate is None else [str(piece.rate)]
        words = (piece.work, piece.arm, piece.part, *rate, *([str(run.absolute())] if turn.made_in else []))
        log = run / (f"opening-{piece.rate:g}-{LOG}" if piece.rate is not None else LOG)
        where = [piece.part if piece.part != FINAL else "", "" if piece.rate is None else f"rate {piece.rate:g}",
                 "" if place.name == HERE else f"at {place.name}"]  # fmt: skip
        self._listen(Phase(piece.work, ", ".join(filter(None, where)), piece.arm))
        self._busy.add(place.name)
        self._runs[place.name] = turn.began, piece

        def listen(event: Any) -> None:
            self._heard.put(lambda: self._listen(event))

        def work() -> None:
            try:
                reason = place.run(Piece(words, log, limit=limit), about(piece.arm, listen))
            except PlaceLost as lost:
                why = str(lost)
                self._heard.put(lambda: self._lose(place, piece, turn, why))
            except BaseException as error:
                failure = error  # Python forgets `error` at the end of this block
                self._heard.put(lambda: _raise(failure))
            else:
                self._heard.put(lambda: self._finish(place, piece, turn, reason))

        threading.Thread(target=work, daemon=True).start()

    def _finish(self, place: Place, piece: ArmPiece, turn: Turn, reason: str) -> None:
        made_in = self._made_in(turn) if turn.made_in else None
        if made_in is not None and not reason and not appears(made_in / piece.product, SEEN):
            self._lose(place, piece, turn, f"what it has made is not seen in {made_in}")
            return
        if made_in is not None and DISK_FULL in reason:
            self._lose(place, piece, turn, reason, full=True)
            return
        self._busy.discard(place.name)
        if not reason and piece.key not in self._resumed:
            self._rules.learn(place.name, piece, self._since() - turn.began)
        if made_in is not None:
            self._collect(piece, made_in)
        self._note_end(turn, "failed" if reason else "done")
        self._close(piece, reason)

    def _lose(self, place: Place, piece: ArmPiece, turn: Turn, why: str, full: bool = False) -> None:
        """A place was lost, or its disk is full: its piece begins anew elsewhere, or fails where that has happened
        before."""
        self._note_end(turn, "failed" if full else "lost")
        lost = self._rules.lost.setdefault(piece.key, [])
        lost.append(place.name)
        what = piece.arm if piece.part == FINAL else f"{piece.arm} {piece.part}"
        again = len(lost) < LOSSES
        follows = "it begins anew elsewhere" if again else "it has been lost before, and fails"
        ended = "could not fit" if full else "was lost while it fitted"
        self._listen(Note(f"{place.name} {ended} {what} ({why}): {follows}"))
        if again:
            self._waiting.append(piece)
        else:
            twice = f"the place that fitted it was lost twice: {joined(lost)}"
            self._close(piece, f"{place.name}: {why}" if full else twice)
        self._check_again(place)

    def _check_again(self, place: Place) -> None:
        """Use a place that was lost again if it answers; it stays busy until then."""

        def check() -> None:
            reason = ""
            try:
                if isinstance(place, Command):
                    place.check()
            except RiyazError as error:
                reason = str(error)
            except BaseException as error:
                failure = error
                self._heard.put(lambda: _raise(failure))
                return
            self._heard.put(lambda: self._checked(place, reason))

        threading.Thread(target=check, daemon=True).start()

    def _checked(self, place: Place, reason: str) -> None:
        if not reason:
            self._busy.discard(place.name)
            return
        self._listen(Note(f"{place.name} is used no more: {reason}"))
        self._busy.discard(place.name)
        self._places.pop(place.name)
        self._rules.fitting.remove(place.name)

    def _close(self, piece: ArmPiece, reason: str | None) -> None:
        self.over.add(piece.key)
        self._end(piece, reason)

    def _made_in(self, turn: Turn) -> Path:
        assert turn.made_in
        return self._folder.path / PLACES / UNFINISHED / turn.made_in

    def _move_in(self, piece: ArmPiece, made_in: Path) -> None:
        """Move what an arm has begun into the folder in which a place goes on with it, or what a killed command has
        left of that; an opening begins anew."""
        made_in.mkdir(parents=True, exist_ok=True)
        run = self._folder.part(piece.arm, piece.part)
        for child in run.iterdir() if run.exists() and piece.work == "fit" else ():
            if child.name != BEFORE and not (made_in / child.name).exists():
                child.replace(made_in / child.name)

    def _collect(self, piece: ArmPiece, made_in: Path) -> None:
        """Move what a place has made into the arm's folder, the product last: it says that the rest is there. Other
        openings of the arm may be there already."""
        run = self._folder.part(piece.arm, piece.part)
        (run / OPENINGS if piece.work == "search" else run).mkdir(parents=True, exist_ok=True)
        for child in sorted(made_in.iterdir(), key=lambda child: child.name == piece.product):
            if piece.work == "search" and child.name == OPENINGS:
                for opening in child.iterdir():
                    _replace(opening, run / OPENINGS / opening.name)
            elif not child.name.startswith("."):  # nothing temporary
                _replace(child, run / child.name)
        remove(made_in)

    def _note_end(self, turn: Turn, outcome: Literal["done", "failed", "lost"]) -> None:
        self._runs.pop(turn.place, None)
        place = max(place for place, other in enumerate(self.turns) if other is turn)
        self.turns[place] = replace(turn, ended=self._since(), outcome=outcome)
        self._save()

    def _over(self, turn: Turn) -> Turn:
        """A turn at whose time the command was killed: it is done where its product is there."""
        product = {"fit": FIT, "evaluate": RESULT}.get(turn.work)
        whole = product is not None and (self._folder.part(turn.arm, turn.part) / product).exists()
        return replace(turn, ended=self._since(), outcome="done" if whole else "lost")

    def _save(self) -> None:
        """Write the turns; those of a killed command stay open until a place has taken them up."""
        begun = set(self._left.values())
        turns = [
            replace(turn, ended=None, outcome="") if number in begun else turn for number, turn in enumerate(self.turns)
        ]
        self._folder.write(TURNS, {"turns": turns})


def _turn_of(piece: ArmPiece) -> tuple[bool, float]:
    """What orders pieces: evaluations, then the longest."""
    return piece.work != "evaluate", -piece.seconds - piece.then


def read_turns(folder: ComparisonFolder) -> list[Turn]:
    """The turns in a comparison's places.json; [] where it has none. Raises RiyazError for a damaged file."""
    path = folder.path / TURNS
    document = read_json(path, DAMAGED) if path.exists() else {"turns": []}
    turns = document.get("turns") if isinstance(document, dict) else None
    if not isinstance(turns, list):
        raise RiyazError("turns is not a list", str(path), DAMAGED)
    read = [from_json(Turn, turn, str(path), DAMAGED) for turn in turns]
    for turn in read:
        for name in (turn.arm, turn.part, turn.made_in or "none"):  # which name folders
            if not is_bare(name):
                raise RiyazError(f"{shown(name)} is not the name of a folder", str(path), DAMAGED)
    return read


def take_back(folder: ComparisonFolder) -> None:
    """Move what places had begun when their command was killed into the folders of its arms, where this machine alone
    goes on with it; what says that the rest is there comes last. Raises RiyazError for a damaged places.json."""
    for turn in read_turns(folder):
        made_in = folder.path / PLACES / UNFINISHED / (turn.made_in or "")
        if turn.ended is None and turn.work == "fit" and turn.made_in and made_in.exists():
            run = folder.part(turn.arm, turn.part)
            run.mkdir(parents=True, exist_ok=True)
            for child in sorted(made_in.iterdir(), key=lambda child: child.name == FIT):
                if not child.name.startswith(".") and not (run / child.name).exists():
                    child.replace(run / child.name)
    remove(folder.path / PLACES / UNFINISHED)


def _key(work: str, arm: str, part: str, rate: float | None) -> Key:
    return work if rate is None else f"{work} {rate:g}", arm, part


def _turn_key(turn: Turn) -> Key:
    return _key(turn.work, turn.arm, turn.part, turn.rate)


def _replace(path: Path, target: Path) -> None:
    remove(target)
    path.replace(target)


def _raise(error: BaseException) -> None:
    raise error
