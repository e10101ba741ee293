"""A Request to the engine: a prompt, how tokens of the answer are chosen, and where the answer ends."""

from collections.abc import Callable
from dataclasses import dataclass

from riyaz.engine.grammar import Grammar
from riyaz.engine.trie import Trie


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from its probabilities.

    `temperature` 0 chooses the likeliest token. Otherwise the log-probabilities are divided by the temperature, then
    `top_k` (0: all) keeps the k likeliest tokens, `top_p` (Holtzman et al. 2020, arXiv 1904.09751) the fewest whose
    sum reaches p, and `min_p` (Nguyen et al. 2024, arXiv 2407.01082) those with at least this share of the highest
    probability. Before all that, also at temperature 0, the logits of tokens that prompt or answer hold already are
    divided by `repetition_penalty` where they are positive and multiplied by it where they are negative (Keskar et al.
    2019, arXiv 1909.05858); tokens that end an answer keep theirs, since a prompt's turns end with them too.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0


GREEDY = Sampling()


@dataclass(frozen=True)
class Added:
    """What is added to log-probabilities before the temperature: `bias` holds (token, number); for a token that the
    answer holds already `frequency_penalty` is subtracted as often as it does, and `presence_penalty` once."""

    bias: tuple[tuple[int, float], ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


@dataclass(frozen=True)
class Scored:
    """A token of a prompt or an answer: its log-probability in nats, and the likeliest tokens in its place with theirs,
    likeliest first. They are the model's own: before temperature and what is Added, after the repetition penalty."""

    token: int
    log_probability: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt, `prefix + tokens`, and the limits of its answer. Equal prefixes are computed once; `tokens` is not
    empty.

    `id` identifies the request to its caller. With the seed and the position it determines the random numbers, so a
    sampled answer does not depend on other requests. `adapter` names the loaded adapter, None uses the base alone. The
    answer has at most `limit` tokens and ends before a token of `stop`. `constraint` holds the allowed answers of a
    closed set, each with its end token; `grammar` is what the answer must be otherwise. `top` asks that every token of
    the answer is Scored, with so many likeliest tokens; `echo` the same of every token of the prompt but the first,
    which then has no `prefix`. `likely` holds texts that parts of the answer may repeat, beside the prompt; they change
    how fast it comes and nothing else. `owner` is a number for who asks: what is kept of a prompt is used for later
    ones of the same owner alone.
    """

    id: int
    tokens: tuple[int, ...]
    prefix: tuple[int, ...] = ()
    adapter: str | None = None
    limit: int = 0
    sampling: Sampling = GREEDY
    stop: frozenset[int] = frozenset()
    constraint: Trie | None = None
    added: Added | None = None
    grammar: Grammar | None = None
    top: int | None = None
    echo: int | None = None
    likely: tuple[tuple[int, ...], ...] = ()
    owner: int = 0

    @property
    def length(self) -> int:
        """Number of tokens of the whole prompt."""
        return len(self.prefix) + len(self.tokens)


def counted(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    """A callback that takes increments, and calls `progress` with (done, total)."""
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    return tell
