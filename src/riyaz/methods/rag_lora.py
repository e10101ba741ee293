"""RAG and LoRA: an adapter trained on prompts that hold retrieved passages."""

from riyaz.methods import lora, rag
from riyaz.methods.fitting.base import combined
from riyaz.results import About

ABOUT = About(
    what="Retrieved passages in the prompt, and a LoRA trained to read them.",
    suits="facts from documents in a fixed form, also where some of the passages mislead",
    colour=7, mark="h", weights="lora",
)  # fmt: skip
METHOD = combined("rag_lora", ABOUT, rag.METHOD, lora.METHOD, left_out=4)
