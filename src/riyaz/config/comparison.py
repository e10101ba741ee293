"""Options of `riyaz compare` and `riyaz adapt`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from riyaz.config.checking import Seconds, check_fields
from riyaz.config.data import MIN_ROWS
from riyaz.config.option import LARGEST_SEED, Lookup, Precision, option, thread_count
from riyaz.errors import RiyazError

DEFAULT_MODEL = "smollm2-135m"


SELF = "self"  # in place of a file of general text: texts that the base writes


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Options of a comparison: model, data, methods, budget, and limits on the pick."""

    model: tuple[str, ...] = option(
        (DEFAULT_MODEL,),
        "base model: a name `riyaz models` lists, a folder or a GGUF file",
        common=True,
        paths=True,
    )
    test: Path | None = option(None, "test rows; if not given, a part of DATA is held out", common=True)
    documents: Path | None = option(
        None,
        "documents to retrieve from: a folder of .txt, .md, .html, .pdf and .docx files, or a file of rows",
        common=True,
    )
    methods: tuple[str, ...] = option((), "methods to run, separated by commas; all if not given", common=True)
    budget: Seconds = option(
        Seconds("20m"), "wall time of the whole command, such as 90s, 20m or 1h30m", common=True, minimum=1
    )
    more: Seconds | None = option(
        None,
        "wall time to add to a finished comparison in --out: arms that were cut short or skipped continue",
        minimum=1,
    )
    threads: int | None = thread_count()
    precision: Precision = option(
        "auto",
        "how weights are held when the model answers; auto: as the file stores them, float32 as bf16, a model trained "
        "whole in the smallest that answers as well",
    )
    lookup: Lookup | None = option(
        None,
        "make several tokens of an answer in one pass where they repeat the prompt, its passages or the answer so far; "
        "the text is the same; auto, also where neither this nor RIYAZ_LOOKUP is given: where that is measured to be "
        "faster",
    )
    margin: float = option(
        0.02, "pick the cheapest method whose score is at most this far below the best", minimum=0, maximum=1
    )
    max_ms: float | None = option(None, "longest time per answer that the pick may need, in milliseconds", minimum=0)
    max_rss_mb: float | None = option(None, "most memory that the pick may need, in megabytes", minimum=0)
    max_forgetting: float | None = option(
        None, "largest increase of the loss on general text that the pick may have, in nats per token"
    )
    limit_train: int | None = option(
        None, "use at most this many training rows, validation rows included", common=True, minimum=MIN_ROWS
    )
    limit_test: int | None = option(None, "use at most this many test rows", common=True, minimum=1)
    general: Path | None = option(None, "general text to measure forgetting on; Python's help topics if not given")
    allow_leakage: bool = option(
        False, "continue when over 5 % of the test rows are also training rows (which training then leaves out)"
    )
    allow_answer_in_prompt: bool = option(
        False, "continue when prompts tell their labels or answers of questions, by the label itself or by another sign"
    )
    replay: float = option(
        0.1,
        "share of general text among the tokens that lora and full learn from: there they keep what the base predicts, "
        "against forgetting; 0: none",
        minimum=0,
        maximum=0.5,
    )
    replay_from: Path | None = option(
        None, "general text to keep what the base predicts on; the word self, or not given: texts that the base writes"
    )
    data_curve: bool = option(
        False, "also train lora on a quarter and on half of the rows, to show whether more rows would help"
    )
    seeds: int | None = option(
        None,
        "train and score every trained method with so many seeds; if not given, two close ones with two more, where "
        "time is left",
        minimum=1,
        maximum=100,
    )
    places: tuple[str, ...] = option(
        (),
        "where methods are trained, separated by commas: commands that start a process, such as 'ssh HOST' or "
        "'srun -N1 -n1', and `here`; all see the folder --out; this machine alone if not given",
        by_hand=True,
    )
    ray: str | None = option(
        None,
        "train methods on the nodes of the Ray cluster at this HOST:PORT, of which this machine is one; they need the "
        "models, and no shared folder",
        by_hand=True,
    )
    limits: bool = option(False, "also measure what the arms cannot do (riyaz limits), in a fifth of the budget")
    seed: int = option(0, "seed of the split and of training", minimum=0, maximum=LARGEST_SEED)
    out: Path | None = option(None, "folder for the results", common=True)
    rank: int | None = option(None, "rank of LoRA's matrices; 16 if not given", minimum=1, maximum=1024)
    alpha: int | None = option(
        None, "LoRA adds its product times alpha / rank; twice the rank if not given", minimum=1, maximum=4096
    )
    beta: float | None = option(
        None,
        "how near dpo and kto keep the answers' probabilities to the base's; 0.1 if not given",
        above=0,
        maximum=100,
    )
    length_normalised: bool = option(
        False, "dpo compares the means over the answers' tokens in place of the sums, so that no answer wins by length"
    )
    epochs: int | None = option(
        None, "passes over the training rows of every trained method", common=True, minimum=1, maximum=1000
    )
    steps: int | None = option(
        None, "training steps of every trained method, in place of --epochs", minimum=1, maximum=10**6
    )
    # a float or a dict of them by method, once it is checked
    learning_rate: float | str | Mapping[str, float] | None = option(
        None,
        "highest learning rate, in place of a search: of every trained method, such as 1e-3, or by method, such as "
        "lora=1e-3,full=5e-5",
        common=True,
        above=0,
        below=1,
        by_method=True,
    )
    batch_size: int | None = option(None, "training rows per step of every trained method", minimum=1, maximum=4096)
    teacher: str | None = option(
        None,
        "what the method distil learns from: an artifact, a model, or the address of an endpoint in OpenAI's form, "
        "such as http://localhost:8000/v1, whose key is in the environment variable RIYAZ_TEACHER_KEY",
        by_hand=True,
    )
    teacher_model: str | None = option(
        None, "the model that the endpoint runs; the only one it lists if not given", by_hand=True
    )
    unlabelled: Path | None = option(
        None, "a file of further prompts, which the teacher answers for distil", by_hand=True
    )
    instructions: Path | None = option(
        None, "file with an instruction in each line, which the method instruct tries beside its own wordings"
    )

    def __post_init__(self) -> None:
        """Checks every value; parses durations and comma-separated lists. Raises RiyazError naming the flag."""
        check_fields(self)
        if not self.model:
            raise RiyazError("names no model", "--model", "name one that `riyaz models` lists, or give a path")
        if self.epochs is not None and self.steps is not None:
            raise RiyazError("both say how long to train", "--epochs and --steps", "give one of them")
        if self.places and self.ray is not None:
            raise RiyazError("both say where to train", "--places and --ray", "give one of them")
