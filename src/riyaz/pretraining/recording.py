"""What a pretraining run records of itself at its validations, in `learned.jsonl` of its folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.data.blocks import Windows
from riyaz.pretraining.plan import PretrainingPlan
from riyaz.pretraining.samples import FOX, token_ids
from riyaz.results import LEARNED
from riyaz.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from riyaz.engine.torch.recorder import Recorder


def recorder_of(
    folder: Path, model: Any, tokenizer: Tokenizer, valid: Windows, plan: PretrainingPlan, prompt: str | None
) -> "Recorder":
    """The recorder of a run in `folder`: the text is the beginning of the first held-out window, the sentence the
    user's `prompt` or one about a fox. Of several processes the first one writes."""
    from riyaz.engine.torch.recorder import Recorder, Watched

    settings, row = plan.settings(), valid[0]
    text, sentence = [*row.prompt, *row.answer], token_ids(tokenizer, prompt or FOX)
    return Recorder(
        folder / LEARNED, model, tokenizer, Watched.beginning(text, sentence, model.config.context),
        settings.validate_every, settings.steps // settings.validate_every,
    )  # fmt: skip
