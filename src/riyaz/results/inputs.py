"""What a comparison was made with: its rows, documents and models."""

from dataclasses import dataclass, field

from riyaz.json_files import OPTIONAL


@dataclass(frozen=True)
class FileFacts:
    """A file of rows: its path, its hash, its format and the columns that were read."""

    path: str
    sha256: str
    format: str


@dataclass(frozen=True)
class Leakage:
    """Test rows whose prompt is also in the training rows, their share, and the training rows dropped for it."""

    test_rows: float | None = None
    share: float | None = None
    dropped: float | None = None


@dataclass(frozen=True)
class AnswerInPrompt:
    """Prompts of a closed set that hold an accepted answer: rows of those looked at, and their share; rows that tell
    their label by a sign, their share, the sign in words ("" where there is none), and the place of such a row."""

    rows: int
    looked_at: int
    share: float
    telling: int = 0
    telling_share: float = 0.0
    sign: str = ""
    first: str = ""


@dataclass(frozen=True)
class Documents:
    """The documents that passages were retrieved from; `embedder` is the hash of the embedding model."""

    path: str
    documents: int
    sha256: str
    notes: list[str] = field(default_factory=list)
    embedder: str | None = None


@dataclass(frozen=True)
class Data:
    """The rows of a comparison: files, task, counts, and the first rows as rendered for training."""

    files: dict[str, FileFacts] = field(default_factory=dict)
    task: str | None = None
    metric: str | None = None
    why: str | None = None
    instruction: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    duplicates: int | None = None
    conflicts: int | None = None
    leakage: Leakage | None = None
    answer_words: dict[str, float] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    unseen_labels: list[str] = field(default_factory=list)
    slices: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rendered: list[list[tuple[str, bool]]] = field(default_factory=list)  # (text, whether the loss counts it)
    documents: Documents | None = field(default=None, metadata=OPTIONAL)
    groups: dict[str, int] | None = field(default=None, metadata=OPTIONAL)  # of rows, in each part
    answer_in_prompt: AnswerInPrompt | None = field(default=None, metadata=OPTIONAL)  # of a closed set


@dataclass(frozen=True)
class Model:
    """The base model of a comparison."""

    name: str
    format: str | None = None
    family: str | None = None
    parameters: int | None = None
    sha256: str | None = None
    mb: float | None = None
