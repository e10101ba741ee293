"""What the user chose in place of the methods' own values: which methods it changes, and how that is said."""

from collections.abc import Sequence

from riyaz.errors import RiyazError, number
from riyaz.methods import METHODS
from riyaz.methods.recipe import ByHand


def by_hand_notes(hand: ByHand, methods: Sequence[str]) -> list[str]:
    """One line for every method that is changed. Raises RiyazError for an option that none of the methods takes."""
    given = hand.given()
    for name in given:
        takers = [method.name for method in METHODS.values() if name in method.options]
        if not set(takers) & set(methods):
            flag = "--" + name.replace("_", "-")
            raise RiyazError(
                f"{', '.join(methods)} cannot take it", flag, f"leave it out, or run {' or '.join(takers)}"
            )
    notes = []
    for method in methods:
        values = [f"{name.replace('_', ' ')} {number(given[name])}" for name in given if name in METHODS[method].options]
        trained = METHODS[method].recipe is not None
        unsearched = "; no learning rate is searched" if trained and hand.learning_rate is not None else ""
        notes += [f"{method} by hand: {', '.join(values)}{unsearched}"] if values else []
    return notes
