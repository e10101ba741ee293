"""Distillation: a LoRA that learns what a teacher answers, and never the accepted answers (Hinton et al. 2015, arXiv
1503.02531; of texts: Kim & Rush 2016, arXiv 1606.07947).

The student's prompts hold the instruction alone. A teacher whose prompts hold examples or passages so gives an answer
that costs less (context distillation: Snell et al. 2022, arXiv 2209.15189).
"""

from dataclasses import replace

from riyaz.methods import lora
from riyaz.methods.fitting.base import Context, Fitted
from riyaz.methods.fitting.taught import taught
from riyaz.results import About


def fit(context: Context) -> Fitted:
    """Train the LoRA on the teacher's answers; the artifact's weights are a PEFT folder."""
    context = taught(context)
    fitted = lora.fit(context)
    fitted.chosen |= {"taught_rows": len(context.train), "soft_targets": bool(context.soft)}
    return fitted


ABOUT = About(
    what="A LoRA that is trained on what a teacher answers, and never sees the accepted answers.",
    suits="a teacher that is right but slow, and many prompts, with answers or without",
    colour=15, mark=".", weights="lora",
)  # fmt: skip
METHOD = replace(
    lora.METHOD, name="distil", about=ABOUT, fit=fit, with_prompt=taught, needs_teacher=True,
    answers_questions=False, left_out=4, goes_on=False,
)  # fmt: skip
