"""Ways of adapting a model: one file and one `METHOD` each, in the order of the comparison's table.

A combination is a line of the table, not code: `combined` puts the text of the first method around every row, and the
second method learns weights under it.
"""

from riyaz.methods import few_shot, full, lora, nearest, prompt_tuning, rag, zero_shot
from riyaz.methods.base import Method, combined

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
CURVE = lora.METHOD.name  # the method that says whether more examples would help
