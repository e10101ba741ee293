"""What `riyaz run`, `decide`, `evaluate` and `join` share: which file may be written, and who answers."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from riyaz.errors import RiyazError
from riyaz.files import check_plain, file_sha256
from riyaz.json_files import json_line


def writable(out: Path, read: Iterable[Path], force: bool) -> Path:
    """The file that is written, where those in `read` are read; raises RiyazError before any row is answered, also for
    a link, which may lead to any file."""
    check_plain(out)
    real = Path(os.path.realpath(out))  # behind links in its folder's path
    if not real.parent.is_dir():
        raise RiyazError("the folder does not exist", str(out.parent), "create it or choose another --out")
    if real.is_dir():
        raise RiyazError("is a folder", str(out), "choose another --out")
    if real in {Path(os.path.realpath(each)) for each in read}:
        raise RiyazError("is the file that is read", str(out), "choose another --out")
    if real.exists() and not force:
        raise RiyazError("exists already", str(out), "pass --force to replace it, or choose another --out")
    return real


def answerer_of(target: str, precision: str = "auto", schema: str = "") -> str:
    """What answers, as a hash: other weights, another text part, chat template, precision, schema, engine or version of
    riyaz have another one. Raises RiyazError, also for a target that does not exist."""
    import riyaz
    from riyaz.engine.opening import engine_name

    parts = _target_parts(target) + ([schema] if schema else [])
    return hashlib.sha256(json_line([riyaz.__version__, engine_name(), precision, *parts])).hexdigest()


def target_hash(target: str) -> str:
    """A hash of what a target holds: the same on every machine. Raises RiyazError."""
    return hashlib.sha256(json_line(_target_parts(target))).hexdigest()


def _target_parts(target: str) -> list[str]:
    """The hashes and texts that make up a target."""
    from riyaz import adapters, artifact
    from riyaz.sources import open_source, store

    path = artifact.resolve(target)
    described, config = path / artifact.NAME, path / adapters.CONFIG
    if described.is_file():  # it holds the template, and the hashes of the base and of the artifact's files
        return [file_sha256(described)]
    of_adapter = [config, *sorted(path.glob("*.safetensors"))] if config.is_file() else []
    source = adapters.base_for(config, None)[0] if of_adapter else open_source(target)
    return [source.sha256(), source.tokenizer().template, store.file_hash(of_adapter)]


def computed_by() -> str:
    """What computes on this machine, in words: answers of two machines with other words may differ in last digits.
    Raises RiyazError where there is no engine."""
    from importlib.metadata import version

    import riyaz
    from riyaz import native
    from riyaz.engine.opening import engine_name

    engine = f"the C++ engine ({native.isa()})" if engine_name() == "native" else f"torch {version('torch')}"
    return f"riyaz {riyaz.__version__} with {engine}"


def cut_note(cut: int, answers: int) -> str:
    """A note on the answers under a schema that their limit ended before their JSON was complete."""
    share = f"{cut:,} of {answers:,} answers"
    return f"{share} were cut before their JSON was complete; --max-new-tokens allows more"


def formulas_note(formulas: int) -> str:
    """A warning about fields that a spreadsheet may run."""
    many = f"{formulas:,} fields begin", "those columns", "they"
    begin, which, they = many if formulas > 1 else ("1 field begins", "its column", "it")
    text = f"note: {begin} with =, +, - or @: import {which} into a spreadsheet as text, or {they} may run as "
    return text + ("formulas" if formulas > 1 else "a formula")
