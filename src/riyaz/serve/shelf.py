"""The models that a server answers as: a name each, over one or a few bases in memory."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riyaz.adapters import CONFIG
from riyaz.artifact import NAME
from riyaz.errors import RiyazError, shown
from riyaz.folders import expect_inside
from riyaz.predictor import Base, Predictor
from riyaz.serve.problems import Problem

PATTERN = re.compile(r"[A-Za-z0-9._@/-]{1,96}")


@dataclass(frozen=True, eq=False)
class Served:
    """A name under which the server answers; `base` is None where no language model
    answers, `parent` its name."""

    name: str
    predictor: Predictor
    base: Base | None
    root: str
    parent: str | None = None
    removable: bool = False  # a client loaded it
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def open(self) -> Base:
        """The model behind it. Raises Problem where there is none."""
        if self.base is None:
            raise Problem(400, f"{self.name} has no language model", "model")
        return self.base

    def entry(self) -> dict[str, Any]:
        """Its entry in the list of models."""
        meta: dict[str, Any] = {"answers": self.predictor.answers_are}
        if self.base is not None:
            meta |= {"served_as": self.base.lm.served, "architecture": self.base.source.architecture}
            meta |= {"lookup": self.base.lm.drafts.mode}
            meta |= {
                "n_params": self.base.parameters,
                "n_ctx_train": self.base.lm.context,
                "vocab_size": self.base.lm.runner.vocab_size,
            }
        return {
            "id": self.name, "object": "model", "created": self.created, "owned_by": "riyaz", "root": self.root,
            "parent": self.parent, "max_model_len": self.predictor.context, "meta": meta,
        }  # fmt: skip


class Shelf:
    """The served models by name; the first is meant where a request to /tokenize names none."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}

    def __iter__(self) -> Iterator[Served]:
        return iter(list(self._served.values()))  # it may change meanwhile

    def put(self, served: Served) -> None:
        """Add a model. Raises RiyazError for a name that is taken, or that is none."""
        expect_name(served.name)
        if served.name in self._served:
            raise RiyazError(f"there is a model {shown(served.name)} already", hint="choose another name")
        self._served[served.name] = served

    def take(self, name: str) -> None:
        """Remove a model."""
        del self._served[name]

    def find(self, name: str | None, param: str | None = "model") -> Served:
        """The model of this name; the first without one. Raises Problem 404, and never another model."""
        if name is None and self._served:
            return next(iter(self._served.values()))
        if name is None:
            raise Problem(404, "there is no model yet", param, "model_not_found")
        if name not in self._served:
            raise Problem(404, f"there is no model {shown(name)}", param, "model_not_found")
        return self._served[name]


def expect_name(name: str) -> None:
    """Raises RiyazError for a name of other characters than letters, digits and `._@/-`, or with `..` in it."""
    if not PATTERN.fullmatch(name) or any(part in ("", ".", "..") for part in name.split("/")):
        hint = "letters, digits and ._@/- only, at most 96, no part empty or of dots alone"
        raise RiyazError(f"{shown(name)} cannot be a model's name", hint=hint)


def inside(folder: Path, name: str) -> Path:
    """The folder of this name in the folder of adapters. Raises RiyazError for one outside it or not there, and for one
    with a link to a file elsewhere, of which an error might tell the first bytes."""
    expect_name(name)
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not ((path / NAME).is_file() or (path / CONFIG).is_file()):
        raise RiyazError(f"there is no adapter or artifact {shown(name)} in the server's folder of adapters")
    expect_inside(path, path.rglob("*"))
    return path
