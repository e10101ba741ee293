"""A house rule: on the training side no code hangs state on the object of another, such as a sum on a module."""

import ast
import re
from pathlib import Path

from house_rules import TRAINING, dotted, modules, top, tree_of

# In `layers`, `models` and the training loop: whose attributes a function may set, which attributes of other objects
# (fields that these declare), and which ones it may ask for by name. Anything else is state hung on another's object.
OWN = {"self", "ctx", "state", "_current"}
FIELDS = {"weight", "bias", "lora_A", "lora_B", "_parameters", "data", "grad", "config", "enabled", "share", "p",
          "number", "gradient_sums"}  # fmt: skip
ASKED = {"config", "in_features", "logit_cap", "tie_word_embeddings", "sha256", "mallopt", "malloc_trim"}
MAKES = {"GradientSums": ".masters", "setattr": ".swap"}  # what only one module calls
OTHERS = r"(vars\((?!self\b)[^)]*\)|(?!self\.)\S+\.__dict__)"  # the attributes of another's object as a dictionary
HANGS = re.compile(rf"{OTHERS}(\[.*|\.(update|setdefault|pop))$|(?!self\.).+\.(__setattr__|register_buffer)$")


def hung_state(src: Path) -> list[str]:
    """State of the training side that hangs on another's object: attributes set from outside or asked for by a name
    that no class declares, and calls that only the owner may make."""
    problems = []
    for name, path in modules(src).items():
        for node in ast.walk(tree_of(path)) if top(name) in TRAINING else ():
            what = ""
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                what = "" if dotted(node.value) in OWN or node.attr in FIELDS else f"sets {ast.unparse(node)}"
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                what = f"sets {ast.unparse(node)}" if HANGS.match(ast.unparse(node)) else ""
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                asked = {arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)}
                if called in {"getattr", "hasattr"} and asked - ASKED:
                    what = f"asks for {asked.pop()!r}"
                elif HANGS.match(called) or not name.endswith(MAKES.get(called, "")):
                    what = f"calls {called}"
            if what:
                problems.append(f"{name}:{node.lineno} {what}")  # type: ignore[attr-defined]
    return problems
