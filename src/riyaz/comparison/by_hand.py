"""Values that the user sets in place of the methods' own: which methods they change, and the lines that say so."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from riyaz.errors import RiyazError, brief, number
from riyaz.files import refuse_device
from riyaz.methods import METHODS
from riyaz.methods.fitting.recipe import ByHand

MOST_OWN = 16  # instructions of the user's; the rest of those that are tried are wordings of ours


def by_hand(method: str, options: Any, methods: Sequence[str]) -> ByHand:
    """What the user chose for a method in a comparison of `methods`. `options` has the fields of ByHand; a learning
    rate may be one for some methods, of which a method that takes another's takes that one's."""
    other = METHODS[method].rate_of
    return ByHand.of(options, method, *([other] if other in methods else []))


def by_hand_notes(
    options: Any, methods: Sequence[str], in_file: Mapping[str, object] | None = None, file: str = ""
) -> list[str]:
    """One line for every method that is changed, and for a value of the data folder's `file` that no method takes.
    Raises RiyazError for any other option that none of the methods takes."""
    notes = _rate_notes(options.learning_rate, methods, in_file or {}, file)
    for name, value in ByHand.of(options).explicit().items():
        takers = [method.name for method in METHODS.values() if name in method.options]
        if set(takers) & set(methods):
            continue
        cannot = f"{', '.join(methods)} cannot take it"
        if not in_file or in_file.get(name) != value:
            flag = "--" + name.replace("_", "-")
            raise RiyazError(cannot, flag, f"leave it out, or run {' or '.join(takers)}")
        notes.append(f"{file}: {name} = {'true' if value is True else number(value)} has no effect, as {cannot}")
    for method in methods:
        explicit = by_hand(method, options, methods).explicit()
        own = {name: value for name, value in explicit.items() if name in METHODS[method].options}
        words = {name: name.replace("_", " ") for name in own}
        values = [words[name] if value is True else f"{words[name]} {number(value)}" for name, value in own.items()]
        unsearched = "; no learning rate is searched" if "learning_rate" in own else ""
        notes += [f"{method} by hand: {', '.join(values)}{unsearched}"] if values else []
    return notes


def own_instructions(
    path: Path | None, methods: Sequence[str], in_file: Mapping[str, object], file: str
) -> tuple[tuple[str, ...] | None, list[str]]:
    """The lines of a file of instructions, None without one, and a note where the data folder's `file` names it and no
    method tries them. Raises RiyazError for a file that holds none or too many, and where the user named it in vain."""
    if path is None:
        return None, []
    takers = [name for name in METHODS if "instructions" in METHODS[name].takes]
    if not set(takers) & set(methods):
        cannot = f"{', '.join(methods)} cannot take it"
        if in_file.get("instructions") == path:
            return None, [f"{file}: instructions has no effect, as {cannot}"]
        raise RiyazError(cannot, "--instructions", f"leave it out, or run {' or '.join(takers)}")
    refuse_device(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RiyazError(f"cannot be read as text ({error})", str(path), "give a UTF-8 text file") from None
    texts = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not 0 < len(texts) <= MOST_OWN:
        what = f"holds {len(texts) or 'no'} instruction{'s' if len(texts) != 1 else ''}"
        raise RiyazError(what, str(path), f"write one in each line, at most {MOST_OWN}")
    return texts, []


def _rate_notes(rates: object, methods: Sequence[str], in_file: Mapping[str, object], file: str) -> list[str]:
    """One line for every method with a learning rate in the data folder's `file` that does not run. Raises RiyazError
    for a method that does not train, and for one that does not run where the user named it in the command."""
    if not isinstance(rates, Mapping):
        return []
    notes, from_file = [], in_file.get("learning_rate") == rates
    where = f"{file}: learning_rate" if from_file else "--learning-rate"
    trained = [method.name for method in METHODS.values() if method.recipe is not None]
    for name in rates:
        if name not in METHODS:
            raise RiyazError(f"unknown method {brief(name)}", where, f"choose from {', '.join(trained)}")
        if name not in trained:
            raise RiyazError(f"{name} trains nothing", where, f"leave it out, or choose from {', '.join(trained)}")
        absent = f"{name} is not among the methods that run: {', '.join(methods)}"
        if name not in methods and not from_file:
            raise RiyazError(absent, where, f"leave it out, or run {name} too")
        notes += [f"{where} of {name} has no effect, as {absent}"] if name not in methods else []
    return notes
