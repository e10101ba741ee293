"""What the engine is asked for: a prompt whose first part may be shared, and the closed set of its answers; and how
its progress is counted.

`torch_backend.Backend` answers Requests; nothing else here imports torch.
"""

from collections.abc import Callable
from dataclasses import dataclass

from riyaz.engine.trie import Trie


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt, `prefix + tokens`. Equal prefixes are computed once; `tokens` is never empty.

    `adapter` names the weights part to run with, None runs the base alone. `constraint` holds the only
    allowed answers, end token included. `citations` says where the retrieved text in it comes from: {"doc_id",
    "title", "start", "end"} each; the engine does not read them.
    """

    tokens: tuple[int, ...]
    adapter: str | None = None
    prefix: tuple[int, ...] = ()
    constraint: Trie | None = None
    citations: tuple[dict, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the whole prompt."""
        return len(self.prefix) + len(self.tokens)


def counted(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    """A callback for "so many more" out of one for (done, total)."""
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    return tell
