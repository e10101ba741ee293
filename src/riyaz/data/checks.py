"""What the answer to a row is checked by beside its accepted answers: tests, a database, a schema, texts that occur."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from riyaz.files import new_sha256


@dataclass(frozen=True)
class Check:
    """Python text that runs behind the answer, the path of an SQLite file, JSON Schema text, and texts that must occur
    in the answer; each may be empty."""

    tests: str = ""
    database: str = ""  # absolute
    schema: str = ""
    slots: tuple[str, ...] = ()

    def to_record(self) -> dict[str, object]:
        """The check as a JSON object without its empty parts, which `from_record` reads."""
        parts = {"tests": self.tests, "database": self.database, "schema": self.schema, "slots": list(self.slots)}
        return {name: value for name, value in parts.items() if value}

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> "Check":
        """The check of a JSON object that `to_record` wrote. Raises ValueError for parts of other types."""
        slots = record.get("slots", [])
        tests, database, schema = (record.get(name, "") for name in ("tests", "database", "schema"))
        if not isinstance(slots, list) or not all(isinstance(each, str) for each in (tests, database, schema, *slots)):
            raise ValueError("is not a check")
        return cls(str(tests), str(database), str(schema), tuple(slots))


def databases_hash(checks: Iterable[Check | None]) -> str | None:
    """Hash of the contents of every database that the checks name; None where none does. Raises OSError."""
    paths = sorted({check.database for check in checks if check is not None and check.database})
    if not paths:
        return None
    whole = new_sha256()
    for digest in sorted(_hash(path) for path in paths):
        whole.update(digest.encode())
    return whole.hexdigest()


def _hash(path: str) -> str:
    digest = new_sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
