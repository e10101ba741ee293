"""A chat template that writes tools as Qwen's does, shortened, on the tiny llama's tokenizer."""

import json
from pathlib import Path

import tiny_llama

TOOLS = [{"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}]
QWEN = """
{%- if tools %}{{ '<|im_start|>system\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}
{{- '<tools>' }}{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}{{ '\n</tools><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}
{%- for m in messages %}{% if m.role == 'tool' %}
{{- '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}
{%- elif m.role != 'system' %}{{ '<|im_start|>' + m.role + '\n' + m.content }}
{%- for c in m.tool_calls or [] %}{{ '\n' if m.content or not loop.first }}
{{- '<tool_call>\n{"name": "' + c.function.name + '", "arguments": ' }}
{{- (c.function.arguments | tojson) + '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


MISTRAL = QWEN.replace(
    """{%- for c in m.tool_calls or [] %}{{ '\n' if m.content or not loop.first }}
{{- '<tool_call>\n{"name": "' + c.function.name + '", "arguments": ' }}
{{- (c.function.arguments | tojson) + '}\n</tool_call>' }}{% endfor %}""",
    """{%- for c in m.tool_calls or [] %}{{ '[TOOL_CALLS] [' if loop.first else ', ' }}
{{- '{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) + '}' }}
{{- ']' if loop.last }}{% endfor %}""",
)  # calls in a list behind a control token, as in Mistral's


def write_model(folder: Path, template: str = QWEN, **sizes: int) -> Path:
    """The tiny llama with another chat template and `sizes`; `[TOOL_CALLS]` is a control token of MISTRAL's."""
    path = tiny_llama.write_hf_folder(folder, **sizes)
    (path / "chat_template.jinja").write_text(template)
    if template == MISTRAL:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (path / name).write_text((path / name).read_text().replace("<|endoftext|>", "[TOOL_CALLS]"))
    return path


def write_marked(folder: Path) -> tuple[Path, int]:
    """(the model of QWEN's template in whose vocabulary the marks of a call are tokens of text, as in Qwen's, the token
    that opens one)."""
    path = write_model(folder)
    tiny_llama.write_tokenizer(path, 510)
    (path / "chat_template.jinja").write_text(QWEN)
    definition = json.loads((path / "tokenizer.json").read_text())
    flags = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)
    marks = enumerate(("<tool_call>", "</tool_call>"), 510)
    definition["added_tokens"] += [{"id": number, "content": mark, **flags} for number, mark in marks]
    (path / "tokenizer.json").write_text(json.dumps(definition))
    return path, 510
