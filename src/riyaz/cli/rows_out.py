"""What `riyaz run` and `riyaz decide` share: which file may be written, and who answers."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from riyaz.errors import RiyazError
from riyaz.files import check_plain
from riyaz.json_files import json_line, json_or

NO_JSON = object()


def writable(out: Path, file: Path, force: bool) -> Path:
    """The file that is written, behind links; raises RiyazError before any row is answered."""
    from riyaz.data.many_files import matching_files

    real = Path(os.path.realpath(out))
    if not real.parent.is_dir():
        raise RiyazError("the folder does not exist", str(out.parent), "create it or choose another --out")
    if real.is_dir():
        raise RiyazError("is a folder", str(out), "choose another --out")
    check_plain(real)
    if real in {Path(os.path.realpath(each)) for each in matching_files(file)}:
        raise RiyazError("is the file that is read", str(out), "choose another --out")
    if real.exists() and not force:
        raise RiyazError("exists already", str(out), "pass --force to replace it, or choose another --out")
    return real


def answerer_of(target: str, precision: str = "auto", schema: str = "") -> str:
    """What answers, as a hash: other weights, another text part, chat template, precision, schema, engine or version of
    riyaz have another one. Raises RiyazError, also for a target that does not exist."""
    import riyaz
    from riyaz import adapters, artifact
    from riyaz.engine.opening import engine_name
    from riyaz.sources import open_source, store

    path = artifact.resolve(target)
    described, config = path / artifact.NAME, path / adapters.CONFIG
    if described.is_file():  # it holds the template, and the hashes of the base and of the artifact's files
        parts = [hashlib.sha256(described.read_bytes()).hexdigest()]
    else:
        of_adapter = [config, *sorted(path.glob("*.safetensors"))] if config.is_file() else []
        source = adapters.base_for(config, None)[0] if of_adapter else open_source(target)
        parts = [source.sha256(), source.tokenizer().template, store.file_hash(of_adapter)]
    parts += [schema] if schema else []
    return hashlib.sha256(json_line([riyaz.__version__, engine_name(), precision, *parts])).hexdigest()


def cut_notes(texts: Iterable[object]) -> list[str]:
    """A note on the answers under a schema that their limit ended before their JSON was complete, if there are any."""
    answers = [text for text in texts if isinstance(text, str)]
    cut = sum(json_or(text, NO_JSON) is NO_JSON for text in answers)
    if not cut:
        return []
    share = f"{cut:,} of {len(answers):,} answers"
    return [f"{share} were cut before their JSON was complete; --max-new-tokens allows more"]


def formulas_note(formulas: int) -> str:
    """A warning about fields that a spreadsheet may run."""
    many = f"{formulas:,} fields begin", "those columns", "they"
    begin, which, they = many if formulas > 1 else ("1 field begins", "its column", "it")
    text = f"note: {begin} with =, +, - or @: import {which} into a spreadsheet as text, or {they} may run as "
    return text + ("formulas" if formulas > 1 else "a formula")
