"""README.md and prompt.json of an exported folder: what it is, the prompt of the artifact, and how to use both."""

import json
from pathlib import Path

from riyaz import __version__
from riyaz.adapters import CONFIG
from riyaz.adapters.folder import kind_of
from riyaz.artifact import LABELS, SCHEMA, Artifact
from riyaz.config import TOOLS
from riyaz.export.base import NamedBase
from riyaz.export.modelfile import MODELFILE
from riyaz.export.prompt import Prompt
from riyaz.export.targets import Target
from riyaz.files import write_text
from riyaz.json_files import write_json
from riyaz.sources import called

NAME, PROMPT = "README.md", "prompt.json"
HEAD = f"""The weights were trained to score labels, not to write them. `{LABELS}` holds one row of numbers for each
label of `{PROMPT}`, in the same order: the products of these rows with the hidden state of the prompt's last token,
behind the final norm, are the labels' logits. What the model itself would write after the prompt is not its answer."""
KEPT = f"""Riyaz lets an answer go on with tokens that keep to the JSON schema of `{SCHEMA}` only, and so it was
measured. Another tool must be given the schema: llama.cpp with `--json-schema-file {SCHEMA}`, llama-cpp-python as
`response_format={{"type": "json_object", "schema": …}}`, Ollama as `format` of a request, vLLM and other servers as
`response_format`. The code above does not. An answer of more than `max_new_tokens` tokens is cut, and no JSON."""
KINDS = {
    "hf": "A whole model for transformers",
    "gguf": "A whole model for llama.cpp and Ollama",
    "peft": "An adapter for PEFT",
    "gguf-lora": "An adapter for llama.cpp and Ollama",
    "mlx": "An adapter for mlx-lm",
}


def write(
    target: Target, prompt: Prompt, work: Path, out: Path, format: str, base: NamedBase | None, lacks: list[str],
    card: str | None = None,
) -> None:  # fmt: skip
    """Write README.md and, for an artifact, prompt.json and the schema of its answers into `work`, which becomes the
    folder `out`. `lacks` are sentences on what the folder does not hold; README.md begins with `card` where there is
    one."""
    document = target.document
    if document is not None:
        record = {"messages": list(prompt.messages), "opening": prompt.opening, "max_new_tokens": prompt.max_new_tokens}
        write_json(work / PROMPT, record | ({"labels": list(document.task.labels)} if document.task else {}))
    parts = [card.rstrip(), "## This folder"] if card else [f"# {out.resolve().name}"]
    parts.append(_what(target, format, base))
    soft = target.adapter is not None and kind_of(target.adapter / CONFIG) == "prompt"
    use = _use(out, format, base, document is not None, soft)
    if target.label_head is not None:
        parts += ["## Labels", HEAD]
        assert document is not None
        use = _scoring(out, base, document.temperature)
    parts += ["## Use", use]
    if document is not None:
        parts += ["## The prompt", *_prompt(document, prompt)]
    if document is not None and document.task is not None and document.task.schema not in ("", TOOLS):
        schema = json.dumps(json.loads(document.task.schema), indent=2)
        write_text(work / SCHEMA, schema + "\n")
        parts += ["## The schema", KEPT, _block("json", [schema])]
    if lacks:
        parts += ["## What this folder does not hold", "\n".join(f"- {line}" for line in lacks)]
    write_text(work / NAME, "\n\n".join(parts) + "\n")


def _what(target: Target, format: str, base: NamedBase | None) -> str:
    """What the folder is, and which model it belongs to."""
    document, source = target.document, target.source
    lines = [f"{KINDS[format]}, written by riyaz {__version__}."]
    if document is not None:
        lines.append(f"- Method: {document.method}")
        if document.task is not None:
            lines.append(f"- Task: {document.task.kind}, measured by {document.task.metric}")
    if base is not None:
        lines.append(f"- Base model: {base.name}")
        lines.append(f"- Trained on: {called(source)}, SHA-256 of the weights {source.sha256()}")
        if base.note:
            lines.append(f"- Note: {base.note}")
    return "\n".join([lines[0], "", *lines[1:]]).strip()


def _use(out: Path, format: str, base: NamedBase | None, has_prompt: bool, soft: bool) -> str:
    """Commands that answer a question greedily, as riyaz does, with the folder named as it was written. After a soft
    prompt PEFT continues from its cache at the wrong positions, so it is told to use none."""
    folder = out.as_posix()
    limit = 'prompt["max_new_tokens"]' if has_prompt else "256"
    write = {"gguf": _llama_cpp, "gguf-lora": _llama_cpp, "mlx": _mlx_lm}.get(format, _transformers)
    imports, lines = write(folder, base, limit)
    if soft:
        lines = [line.replace("do_sample=False,", "do_sample=False, use_cache=False,") for line in lines]
    code = [*(["import json", ""] if has_prompt else []), *imports, "", *_messages(folder, has_prompt), *lines]
    parts = [_block("python", code)]
    if format in ("gguf", "gguf-lora"):
        name = Path(folder).name.lower()
        ollama = [f"ollama create {name} -f {folder}/{MODELFILE}", f'ollama run {name} "your text"']
        parts = ["With Ollama:", _block("bash", ollama), "With llama-cpp-python:", *parts]
    if base is not None and base.along and format in ("peft", "mlx"):
        parts.append(f"`{CONFIG}` names the base model as `{base.name}`: change it there if the folder is moved.")
    return "\n\n".join(parts)


def _scoring(out: Path, base: NamedBase | None, temperature: float | None) -> str:
    """Code for transformers, with PEFT for an adapter, that scores the labels of a question as riyaz does."""
    scores, remark = "scores", "no temperature was fitted, so they are not calibrated"
    if temperature is not None:
        scores, remark = f"scores / {temperature!r}", "at the temperature fitted on validation rows"
    folder = out.as_posix()
    imports, loading = _loading(folder, base)
    lines = [
        "import json", "", "import torch", *imports[:-1], "from safetensors.torch import load_file", imports[-1], "",
        *_messages(folder, has_prompt=True), *loading,
        f"head = load_file({_text(f'{folder}/{LABELS}')})",
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
        ")",
        "with torch.inference_mode():",
        "    states = model(**inputs, output_hidden_states=True).hidden_states[-1]",
        'scores = head["weight"] @ states[0, -1].float()',
        f"probabilities = torch.softmax({scores}, 0)  # {remark}",
        'answer = prompt["labels"][int(probabilities.argmax())]',
        "print(answer, float(probabilities.max()))",
    ]  # fmt: skip
    return _block("python", lines)


def _transformers(folder: str, base: NamedBase | None, limit: str) -> tuple[list[str], list[str]]:
    """Imports and lines of Python for transformers, with PEFT for an adapter."""
    imports, loading = _loading(folder, base)
    return imports, [
        *loading,
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
        ")",
        f"tokens = model.generate(**inputs, do_sample=False, repetition_penalty=1.0, max_new_tokens={limit})",
        'answer = tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()',
        "print(answer)",
    ]


def _loading(folder: str, base: NamedBase | None) -> tuple[list[str], list[str]]:
    """Imports and lines of Python that load model and tokenizer with transformers, with PEFT for an adapter."""
    imports, model = ["from transformers import AutoModelForCausalLM, AutoTokenizer"], "AutoModelForCausalLM"
    if base is not None:
        imports, model = ["from transformers import AutoTokenizer"], "AutoPeftModelForCausalLM"
        imports.insert(0, f"from peft import {model}")
    return imports, [
        f"model = {model}.from_pretrained({_text(folder)})",
        f"tokenizer = AutoTokenizer.from_pretrained({_text(folder)})",
    ]


def _mlx_lm(folder: str, base: NamedBase | None, limit: str) -> tuple[list[str], list[str]]:
    """Imports and lines of Python for mlx-lm."""
    assert base is not None
    return ["from mlx_lm import generate, load"], [
        f"model, tokenizer = load({_text(base.name)}, adapter_path={_text(folder)})",
        "text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)",
        f"answer = generate(model, tokenizer, prompt=text, max_tokens={limit}).strip()",
        "print(answer)",
    ]


def _llama_cpp(folder: str, base: NamedBase | None, limit: str) -> tuple[list[str], list[str]]:
    """Imports and lines of Python for llama-cpp-python."""
    files = _text(f"{folder}/model.gguf")
    if base is not None:
        files = f"{_text(base.name)}, lora_path={_text(f'{folder}/adapter.gguf')}"
    return ["from llama_cpp import Llama"], [
        f"model = Llama({files}, n_ctx=0, verbose=False)",
        "reply = model.create_chat_completion(",
        f"    messages, temperature=0.0, repeat_penalty=1.0, max_tokens={limit}",
        ")",
        'answer = reply["choices"][0]["message"]["content"].strip()',
        "print(answer)",
    ]


def _messages(folder: str, has_prompt: bool) -> list[str]:
    """Lines of Python that make the messages of a question."""
    if not has_prompt:
        return ['messages = [{"role": "user", "content": "your text"}]']
    return [
        f'with open({_text(f"{folder}/{PROMPT}")}, encoding="utf-8") as file:',
        "    prompt = json.load(file)",
        'messages = [*prompt["messages"], {"role": "user", "content": prompt["opening"] + "your text"}]',
    ]


def _prompt(document: Artifact, prompt: Prompt) -> list[str]:
    """The instruction, the labels and the examples, readable; `prompt.json` holds the same for programs."""
    parts = [f"`{PROMPT}` holds it for programs: the turns before the question, as riyaz writes them."]
    if document.text.instruction:
        parts += ["Instruction:", _block("text", [document.text.instruction])]
    labels = document.task.labels if document.task else ()
    if labels:
        parts.append("Labels:" + "".join(f"\n- {_inline(label)}" for label in labels))
    if prompt.examples:
        parts.append("Examples, before the question:")
        parts.append(_block("text", [f"{turn['role']}: {turn['content']}" for turn in prompt.examples]))
    if not (document.text.instruction or labels or prompt.examples):
        parts.append("There is no instruction and there are no examples.")
    return parts


def _block(language: str, lines: list[str]) -> str:
    """Lines as a fenced block, whose fence no line closes."""
    body = "\n".join(lines)
    fence = "```"
    while fence in body:
        fence += "`"
    return f"{fence}{language}\n{body}\n{fence}"


def _inline(text: str) -> str:
    """A text of one line as inline code."""
    fence = "`"
    while fence in text:
        fence += "`"
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
