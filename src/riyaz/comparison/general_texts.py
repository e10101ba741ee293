"""The texts beside the rows: that on which forgetting is measured, and that of the user which training rehearses."""

from collections.abc import Sequence

from riyaz.config import SELF, CompareConfig
from riyaz.data.general_text import general_text, prose_text
from riyaz.data.repeats import share_repeated
from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.files import new_sha256
from riyaz.rehearsal import cut_texts, user_text
from riyaz.sources import Source

MAX_SHARED = 0.05  # of either text, in runs that both hold
MOST_COMPARED = 2**23  # characters of a text on which forgetting is measured


def checked_texts(config: CompareConfig, bases: Sequence[Source]) -> dict[str, str]:
    """The hashes of the texts that the user names, by what settings.json calls them: a folder is not continued with
    others. Raises RiyazError for a text that cannot be read or is too short, and for one to rehearse on which
    forgetting is measured."""
    general = general_text(str(config.general) if config.general else None)
    hashes = {"general_text": _hash(general)} if config.general else {}
    path = config.replay_from
    if path is None or str(path) == SELF or not config.replay:
        return hashes
    rehearsed = user_text(path)
    for source in bases:
        cut_texts(rehearsed, source.tokenizer(), describe(source).config.context, path)
    for measured, name, hint in (
        (general, str(config.general or "Python's help topics"), "or name other text with --general"),
        (prose_text(), "the prose that riyaz brings along", f"or the word {SELF}"),
    ):
        compared = measured[:MOST_COMPARED]
        shares = [share_repeated(*pair) for pair in ((compared, rehearsed), (rehearsed, compared))]
        if max(shares) > MAX_SHARED:
            what = f"repeats {name}, on which forgetting is measured: what is rehearsed there would not count as lost"
            raise RiyazError(what, str(path), f"give another text, {hint}")
    return hashes | {"replayed_text": _hash(rehearsed)}


def _hash(text: str) -> str:
    return new_sha256(text.encode()).hexdigest()
