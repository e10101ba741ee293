"""The methods of adapting a model, in the order of the comparison's table: one file with one `METHOD` each.

A combination of two methods is one line of this table: `combined` trains the weights of the second method with the
prompts of the first.
"""

from riyaz.methods import few_shot, full, lora, nearest, prompt_tuning, rag, zero_shot
from riyaz.methods.fitting.base import Method, combined

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        nearest.METHOD,
        zero_shot.METHOD,
        few_shot.METHOD,
        rag.METHOD,
        prompt_tuning.METHOD,
        lora.METHOD,
        full.METHOD,
        combined("rag_lora", rag.METHOD, lora.METHOD),
    )
}
CURVE = lora.METHOD.name  # the method of the learning curve, which shows whether more examples would help
