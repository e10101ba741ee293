"""The Runner in C++: sequences, adapters and products are the extension's; here its arrays are filled and read."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from riyaz import native
from riyaz.adapters import Adapter
from riyaz.engine.native import plan
from riyaz.engine.runner import (
    TRACED,
    Best,
    CacheFull,
    Each,
    Every,
    Hidden,
    HiddenLens,
    LayerWant,
    Lens,
    Named,
    NamedLens,
    TokenRun,
    Top,
    Trace,
    Want,
    Whole,
    expect_loadable,
)
from riyaz.engine.sampling import likeliest
from riyaz.errors import RiyazError
from riyaz.families import FAMILIES, Family
from riyaz.sources.tensor_files import float32

HEAD = "lm_head"
PAGE = 32  # slots of a page, `SLOTS` in native/kernels/layout.h
BEST, NAMED, FULL, HIDDEN = range(4)  # `Want` in native/engine/model.h
END = -1  # after all layers
Row = tuple[int, int, int, int, int]  # run, token, kind, number of names, layers before it


class NativeRunner:
    """A C++ model as an `engine.runner.Runner`. `nbytes` is the size of its weights in memory, adapters aside;
    `ternary` how ternary weights are packed, where it has any."""

    def __init__(self, model: Any, family: Family, precision: str, nbytes: int, ternary: str) -> None:
        self.model, self.nbytes, self.ternary = model, nbytes, ternary
        self.context: int = family.config.context
        self.vocab_size: int = family.config.vocab_size
        self.width: int = family.config.hidden_size
        self.cache_limit: int = model.cache_limit
        self.page, self.forks_ahead, self.drafts_pay = PAGE, True, True
        self.family, self._precision = family, precision
        self._shapes = FAMILIES[family.model_type].layer_plan(family.config)
        self._places = plan.places(family.config)
        self._adapters: dict[str, int] = {}

    def bytes_of(self, tokens: int) -> int:
        """Most bytes of keys and values that a sequence takes for so many tokens of its own."""
        return int(self.model.bytes_of(tokens))

    def load(self, name: str, adapter: Adapter) -> None:
        """Load an adapter under this name. Raises RiyazError, and changes nothing, if it does not fit."""
        self.prepared(name, adapter)()

    def prepared(self, name: str, adapter: Adapter) -> Callable[[], None]:
        """What loads an adapter whose weights are packed here, also in another thread while the model runs. Raises
        RiyazError."""
        expect_loadable(name, self._adapters, self._misfits(adapter))
        native.extension().begin_chunk()  # so that the adapter's memory can be given back alone
        whole, config = [], self.family.config
        for path, array in adapter.whole.items():
            if array.ndim == 2:
                tensor = self._packed(array)
            else:
                tensor = plan.to_native_layout(config, path, np.array(array, np.float32))
            whole.append((*self._places[path], tensor))
        pairs = []
        for path, pair in adapter.pairs.items():
            b = np.float32(pair.scale) * pair.b
            if path == HEAD:  # its product with many rows is not worth a kernel of its own
                base = adapter.whole.get(f"{HEAD}.weight", self._head())
                whole.append((*self._places[f"{HEAD}.weight"], self._packed(base + b @ pair.a)))
            else:
                pairs.append((*self._places[f"{path}.weight"], self._pair(pair.a), self._pair(b)))
        vectors = None if adapter.soft_prompt is None else np.ascontiguousarray(adapter.soft_prompt, np.float32)

        def enter() -> None:
            self._adapters[name] = self.model.load(whole, pairs, vectors)

        return enter

    def unload(self, name: str) -> None:
        """Unload an adapter; no open sequence may use it."""
        self.model.unload(self._adapters.pop(name))

    def adapter_tokens(self, adapter: str | None) -> int:
        """Number of positions that the adapter's soft prompt takes. Raises RiyazError for a name that is not loaded."""
        return 0 if adapter is None else int(self.model.soft_tokens(self._number(adapter)))

    def open(self, adapter: str | None = None, prefix: int | None = None, room: int = 0) -> int:
        """A new sequence after the sequence `prefix`, which gets no more tokens, or after the adapter's soft prompt."""
        number = self._number(adapter)
        if prefix is None:
            return int(self.model.open(number))
        assert self.model.adapter_of(prefix) == number, "a sequence has the same adapter as its prefix"
        return self.behind(prefix, self.length(prefix))

    def fork(self, sequence: int, length: int) -> int:
        """A new sequence that shares the first `length` tokens of another."""
        return int(self.model.fork(sequence, length))

    def behind(self, sequence: int, length: int) -> int:
        """A fork whose own tokens begin on a new page."""
        return int(self.model.open_after(sequence, length))

    def close(self, sequence: int) -> None:
        """Close a sequence."""
        self.model.close(sequence)

    def length(self, sequence: int) -> int:
        """Number of tokens in the sequence, the soft prompt's positions included."""
        return int(self.model.length(sequence))

    def truncate(self, sequence: int, length: int) -> None:
        """Keep the first `length` tokens of a sequence, the soft prompt's positions included."""
        self.model.truncate(sequence, length)

    def forward(self, runs: Sequence[TokenRun]) -> list[Any]:
        """Run the model over all runs in one pass; returns each run's wanted result, None where none is wanted."""
        rows: list[Row] = []
        names: list[int] = []
        penalties: list[float] = []
        for place, run in enumerate(runs):
            if isinstance(run.want, LayerWant):
                for layer in (*range(self.family.config.n_layers), END):
                    _ask_behind(place, run, layer, rows, names)
                penalties.extend([1.0] * (len(rows) - len(penalties)))
            else:
                _ask(place, run, rows, names, penalties)
        tokens = [token for run in runs for token in run.tokens]
        try:
            best, values = self.model.forward(
                np.array([run.sequence for run in runs], np.int32),
                np.array([len(run.tokens) for run in runs], np.int32),
                np.array(tokens, np.int32),
                np.array(rows, np.int32).reshape(-1, 5),
                np.array(names, np.int32),
                np.array(penalties, np.float32),
                np.array([run.together for run in runs], bool),
            )
        except native.extension().CacheFull as error:
            raise CacheFull(str(error), self.family.source.name) from error
        except RuntimeError as error:  # the model computes NaN
            name = self.family.source.name
            hint = "the weights are damaged, or too large to compute with" if "not finite" in str(error) else ""
            raise RiyazError(str(error), name, hint) from error
        return self._answers(runs, rows, best, values)

    def traced(self, run: TokenRun) -> tuple[Any, Trace]:
        """As `forward` of one run, and what was computed inside."""
        from riyaz.sources.gguf_write import bfloat16

        assert self.length(run.sequence) + len(run.tokens) <= TRACED, "more than one pass"
        self.model.traces = True
        try:
            (result,) = self.forward([run])
        finally:  # what a pass that failed has written is given back too
            self.model.traces = False
            residual, turned = self.model.trace()
        heads = self.family.config.n_heads
        keys = turned[:, :, heads:]
        if self._precision != "fp32":  # as the cache has them, unless that is of 8 bits
            keys = float32("BF16", bfloat16(keys))
        return result, Trace(residual, turned[:, :, :heads], keys)

    def _answers(self, runs: Sequence[TokenRun], rows: list[Row], best: np.ndarray, values: np.ndarray) -> list[Any]:
        results: list[Any] = [None] * len(runs)
        sizes = {BEST: 0, FULL: self.vocab_size, HIDDEN: self.width}  # numbers of a row's result
        row = at = 0
        for place, run in enumerate(runs):
            first = row
            while row < len(rows) and rows[row][0] == place:
                row += 1
            size = sum(sizes.get(kind, count) for _, _, kind, count, _ in rows[first:row])
            own, at = values[at : at + size], at + size
            if isinstance(run.want, Best):
                results[place] = int(best[first])
            elif isinstance(run.want, Top):
                results[place] = likeliest(own, run.want.count)
            elif isinstance(run.want, Each):
                results[place] = self._each(run.want, best[first:row], own)
            elif isinstance(run.want, Named):
                if row > first + 1:  # else all after one token, as they were named
                    order = np.argsort(run.want.rows, kind="stable")
                    own = own[np.argsort(order)]
                results[place] = own.copy()  # else it would keep the values of all runs
            elif isinstance(run.want, Hidden):
                results[place] = own.copy()
            elif isinstance(run.want, Every):
                results[place] = own
            elif isinstance(run.want, LayerWant):
                results[place] = own.reshape(self.family.config.n_layers + 1, -1).copy()
            elif isinstance(run.want, Whole):
                own = own.reshape(-1, self.vocab_size)
                results[place] = own[np.searchsorted(np.unique(run.want.rows), run.want.rows)]
        return results

    def _each(self, want: Each, best: np.ndarray, values: np.ndarray) -> Iterator[Any]:
        """The results after each token of a run, made as they are asked for: sorting a vocabulary takes a while."""
        at = 0
        for one, token in zip(want.wants, best.tolist()):
            if isinstance(one, Best):
                yield token
                continue
            own, at = values[at : at + self.vocab_size], at + self.vocab_size
            yield likeliest(own, one.count) if isinstance(one, Top) else own

    def _number(self, adapter: str | None) -> int:
        if adapter is None:
            return -1
        if adapter not in self._adapters:
            loaded = ", ".join(self._adapters) or "none"
            raise RiyazError(f"adapter {adapter!r} is not loaded", hint=f"loaded: {loaded}")
        return self._adapters[adapter]

    def _misfits(self, adapter: Adapter) -> list[str]:
        """One error text per part of an adapter that does not fit the model."""
        problems = []
        for path, pair in adapter.pairs.items():
            shape = self._shape(f"{path}.weight")
            if shape is not None and self._places[f"{path}.weight"][1] in ("token_embd.weight", "position_embd.weight"):
                shape = None  # no linear
            if (pair.b.shape[0], pair.a.shape[1]) != shape or pair.b.shape[1] != pair.rank:
                problems.append(f"{path} has A {pair.a.shape} and B {pair.b.shape}")
        for path, array in adapter.whole.items():
            if array.shape != self._shape(path):
                problems.append(f"{path} has the shape {array.shape}")
        vectors, width = adapter.soft_prompt, self.family.config.hidden_size
        if vectors is not None and (vectors.shape[1:] != (width,) or not 0 < len(vectors) < self.context):
            problems.append(f"its soft prompt has the shape {vectors.shape}")
        return problems

    def _shape(self, path: str) -> tuple[int, ...] | None:
        """The shape of a tensor by its path; None if the model has none."""
        if path == f"{HEAD}.weight":  # a tied head is not in the plan
            return self.vocab_size, self.family.config.hidden_size
        return self._shapes.get(path)

    def _packed(self, values: np.ndarray, precision: str | None = None) -> Any:
        matrix = native.extension().Matrix(precision or self._precision, *values.shape)
        matrix.fill(0, np.ascontiguousarray(values, np.float32))
        return matrix

    def _pair(self, values: np.ndarray) -> Any:
        return self._packed(values, "fp32" if self._precision == "fp32" else "int8row")

    def _head(self) -> np.ndarray:
        """The base's head as floats (V, C)."""
        embedding = next(iter(self.family.stored_names))
        name = f"{HEAD}.weight" if f"{HEAD}.weight" in self.family.stored_names else embedding
        return float32(*self.family.array(name))


def _ask(place: int, run: TokenRun, rows: list[Row], names: list[int], penalties: list[float]) -> None:
    """Append what a run wants: its rows in the order of its tokens, and the named tokens."""
    wants = run.want.wants if isinstance(run.want, Each) else (run.want,)
    for token, want in enumerate(wants, len(run.tokens) - len(wants)):
        _ask_after(place, token, want, rows, names)
        penalty = want.penalty if isinstance(want, Top | Every) else 1.0
        penalties.extend([penalty] * (len(rows) - len(penalties)))


def _ask_behind(place: int, run: TokenRun, layer: int, rows: list[Row], names: list[int]) -> None:
    """Append what a lens wants, if the model ended before this layer."""
    if isinstance(run.want, Lens):
        rows.append((place, run.want.row, FULL, 0, layer))
    elif isinstance(run.want, HiddenLens):
        rows.append((place, len(run.tokens) - 1, HIDDEN, 0, layer))
    elif isinstance(run.want, NamedLens):
        rows.extend((place, row, NAMED, 1, layer) for row in run.want.rows.tolist())
        names.extend(run.want.tokens.tolist())


def _ask_after(place: int, last: int, want: Want | None, rows: list[Row], names: list[int]) -> None:
    """The same of what is wanted after the run's token number `last`, its last one where the want names tokens."""
    if isinstance(want, Best):
        rows.append((place, last, BEST, 0, END))
    elif isinstance(want, Hidden):
        rows.append((place, last, HIDDEN, 0, END))
    elif isinstance(want, Top | Every):
        seen = want.seen if want.penalty != 1 else ()
        rows.append((place, last, FULL, len(seen), END))
        names.extend(seen)
    elif isinstance(want, Named):
        after = want.rows.tolist()
        if after and after.count(after[0]) == len(after):  # as in every search
            rows.append((place, after[0], NAMED, len(after), END))
            names.extend(want.tokens.tolist())
        else:
            rows.extend((place, row, NAMED, count, END) for row, count in sorted(Counter(after).items()))
            names.extend(want.tokens[np.argsort(want.rows, kind="stable")].tolist())
    elif isinstance(want, Whole):
        rows.extend((place, row, FULL, 0, END) for row in np.unique(want.rows).tolist())
