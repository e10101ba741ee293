"""What the user chose in place of the methods' own values: which methods it changes, and how that is said."""

from collections.abc import Mapping, Sequence

from riyaz.errors import RiyazError, number
from riyaz.methods import METHODS
from riyaz.methods.recipe import ByHand


def by_hand_notes(
    hand: ByHand, methods: Sequence[str], in_file: Mapping[str, object] | None = None, file: str = ""
) -> list[str]:
    """One line for every method that is changed, and for a value of the data folder's `file` that no method takes.
    Raises RiyazError for any other option that none of the methods takes."""
    given, notes = hand.given(), []
    for name, value in given.items():
        takers = [method.name for method in METHODS.values() if name in method.options]
        if set(takers) & set(methods):
            continue
        cannot = f"{', '.join(methods)} cannot take it"
        if not in_file or in_file.get(name) != value:
            flag = "--" + name.replace("_", "-")
            raise RiyazError(cannot, flag, f"leave it out, or run {' or '.join(takers)}")
        notes.append(f"{file}: {name} = {number(value)} has no effect, as {cannot}")
    for method in methods:
        own = [name for name in given if name in METHODS[method].options]
        values = [f"{name.replace('_', ' ')} {number(given[name])}" for name in own]
        trained = METHODS[method].recipe is not None
        unsearched = "; no learning rate is searched" if trained and hand.learning_rate is not None else ""
        notes += [f"{method} by hand: {', '.join(values)}{unsearched}"] if values else []
    return notes
