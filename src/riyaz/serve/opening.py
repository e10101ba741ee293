"""Fills a Shelf: the model of the command line, adapters, and the arms of a comparison."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from riyaz import adapters
from riyaz import artifact as artifacts
from riyaz.adapters import Adapter
from riyaz.config import Kv, Lookup, Precision
from riyaz.engine.parts import Steps, finished
from riyaz.errors import RiyazError, joined
from riyaz.hardware import MB
from riyaz.predictor import Base, Predictor, open_base, open_on, source_for
from riyaz.results import COMPARE, Comparison
from riyaz.serve.shelf import Served, Shelf, expect_name
from riyaz.sources import Source, open_source, store

MAX_RANK = 512  # of an adapter that a client loads
LARGEST = 2**29  # bytes of its files that are allowed beside a small model too
FALLBACK = "model"  # the name of a folder of whose name nothing is left


@dataclass(eq=False)
class Opener:
    """Opens models, at most `most`, and what is served on them; each model is opened once."""

    precision: Precision = "auto"
    kv: Kv = "auto"
    most: int = 2
    shelf: Shelf = field(default_factory=Shelf)
    bases: list[Base] = field(default_factory=list)
    piece: int = 0  # tokens of prompts that a step reads at most; 0 before requests run
    keep_bytes: int = 0
    lookup: Lookup | None = None  # None: as the environment says

    def serve(self, target: str) -> list[str]:
        """Serve a model by name or path, an artifact, an adapter or a comparison; lines about what is left out. Raises
        RiyazError."""
        if (Path(target) / COMPARE).is_file():
            return self.serve_comparison(Path(target))
        folder = artifacts.resolve(target)
        if (folder / artifacts.NAME).is_file() or (folder / adapters.CONFIG).is_file():
            self.put(plain_name(target), folder)
            return []
        base = self._open(target)
        self.bases.append(base)
        self._put_base(base, target)
        return []

    def serve_comparison(self, folder: Path) -> list[str]:
        """Serve the pick of a comparison under the folder's name and every other arm as NAME/ARM; a line for each that
        cannot be served. Raises RiyazError where nothing was picked."""
        if not (folder / COMPARE).is_file():
            raise RiyazError("is not a comparison", str(folder), "give a folder that riyaz compare made")
        comparison, name, notes = Comparison.read(folder / COMPARE), plain_name(str(folder)), []
        self.put(name, artifacts.resolve(folder))
        for arm in comparison.arms:
            if (folder / "arms" / arm.name / "kept/artifact" / artifacts.NAME).is_file():
                try:
                    self.put(f"{name}/{arm.name}", artifacts.resolve(folder / arm.name))
                except RiyazError as error:
                    notes.append(f"{name}/{arm.name} is not served: {error}")
        return notes

    def put(self, name: str, folder: Path) -> None:
        """Serve an artifact or an adapter folder under a name, before any request runs. Raises RiyazError."""
        served, enter = self.opened(name, folder)
        finished(load(served, enter))
        self.shelf.put(served)

    def further(self, name: str, path: Path) -> Served:
        """A whole model, opened while requests run. Raises RiyazError for a name that is taken, and where it is a model
        more than there may be."""
        self._expect_free(name)
        base = self._base(open_source(path), False)
        return Served(name, base.plain, base, str(path), removable=True)

    def opened(
        self, name: str, folder: Path, removable: bool = False, further: bool = False
    ) -> tuple[Served, Callable[[], None] | None]:
        """An artifact or adapter folder on the model that it needs, and what loads its adapter there. Where it is
        `removable`, a client asked for it while requests run: its adapter has limits, and only `further` lets it open
        a model. Raises RiyazError for a name that is taken, and where it needs a model more than there may be."""
        self._expect_free(name)
        source = source_for(folder, [base.source for base in self.bases])
        base = None if source is None else self._base(source, removable and not further)
        whole = source is not None and source.path.resolve() == folder.resolve()
        if removable and base is not None and not whole:
            expect_size(folder, base.parameters)
        predictor, adapter = open_on(base, folder, name)
        if removable and adapter is not None:
            expect_rank(adapter)
        enter = None if adapter is None or base is None else base.lm.runner.prepared(name, adapter)
        parent = None if base is None or whole else self._name(base, name)
        return Served(name, predictor, base, str(folder), parent, removable), enter

    def _base(self, source: Source, running: bool) -> Base:
        """The open model with the weights of a source. Raises RiyazError where none may be opened."""
        for base in self.bases:
            if base.source.sha256() == source.sha256():
                return base
        if running or len(self.bases) >= self.most:
            known = joined([base.source.name for base in self.bases])
            raise RiyazError(f"it needs the model {source.name}, beside {known}", hint="start with a larger --models")
        base = self._open(source)
        if self.piece:
            base.lm.read_in_pieces(self.piece, self.keep_bytes)
        self.bases.append(base)
        return base

    def _open(self, model: str | Source) -> Base:
        return open_base(model, self.precision, self.kv, self.lookup)

    def serving(self, piece: int, keep_bytes: int) -> None:
        """From now on requests run: models read prompts in pieces, those that are opened later too."""
        self.piece, self.keep_bytes = piece, keep_bytes
        for base in self.bases:
            base.lm.read_in_pieces(piece, keep_bytes)

    def _expect_free(self, name: str) -> None:
        expect_name(name)
        if any(served.name == name for served in self.shelf):
            raise RiyazError(f"there is a model {name} already", hint="choose another name")

    def _name(self, base: Base, other: str) -> str:
        """The name of a base, which is served too from its first artifact on; `other` is the artifact's."""
        for served in self.shelf:
            if served.base is base and served.parent is None:
                return served.name
        return self._put_base(base, str(base.source.path), other)

    def _put_base(self, base: Base, root: str, other: str = "") -> str:
        """Serve a base under its own name, and under that of its file where this is another; `other` is the name of
        what will be served on it. The first of the two that is free. Raises RiyazError where neither is."""
        names = dict.fromkeys((plain_name(own_name(base.source)), plain_name(base.source.name)))
        taken = {other, *(served.name for served in self.shelf)}
        free = [name for name in names if name not in taken] or list(names)
        for name in free:
            self.shelf.put(Served(name, base.plain, base, root))
        return free[0]


def load(served: Served, enter: Callable[[], None] | None) -> Steps[None]:
    """Load the adapter of a model into its engine, and compute what its answers are weighed with, in parts."""
    if enter is not None:
        enter()
    if served.predictor.has_model and served.predictor.has_labels:
        yield from served.predictor.calibrating()


def expect_size(folder: Path, parameters: int) -> None:
    """Raises RiyazError for an adapter of more bytes than its model has parameters, and than LARGEST."""
    size, most = sum(file.stat().st_size for file in folder.glob("*.safetensors")), max(LARGEST, parameters)
    if size > most:
        what = f"the adapter has {size / MB:,.0f} MB; clients may load {most / MB:,.0f}"
        raise RiyazError(what, hint="give it to riyaz serve when it starts")


def expect_rank(adapter: Adapter) -> None:
    """Raises RiyazError for a LoRA of a larger rank than clients may load: each token of its answers is so much more
    work for all."""
    path, pair = max(adapter.pairs.items(), key=lambda entry: entry[1].rank, default=("", None))
    if pair is not None and pair.rank > MAX_RANK:
        what = f"the rank of {path} is {pair.rank:,}; clients may load adapters of at most {MAX_RANK:,}"
        raise RiyazError(what, hint="give it to riyaz serve when it starts")


def unload(served: Served) -> None:
    """Unload the adapter of a model. Raises RiyazError while a request uses it."""
    predictor: Predictor = served.predictor
    if predictor.has_model and predictor.adapter is not None:
        predictor.lm.unload(predictor.adapter)


def own_name(source: Source) -> str:
    """The name under which a model was pulled, also where it was opened by the path of its file, `…/model.gguf`; else
    that of its file or folder."""
    path = source.path.resolve()
    folder = path if path.is_dir() else path.parent
    return folder.name if folder.parent == (store.home() / "models").resolve() else source.name


def plain_name(target: str) -> str:
    """A name made of a path's last part, or of a model's name, in characters that a model's name may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(target).name or Path(target).resolve().name).strip(".-")
    return name[:96] or FALLBACK
