"""The fields of requests with typed questions: those of OpenAI's `/v1/decisions`, and of System One's `/v1/systemone`,
which TypeSafe, llama.cpp and Ollama serve."""

from riyaz.data.questions import FEWEST_CHOICES, LONGEST, LONGEST_VALUE, MOST_CHOICES, MOST_QUESTIONS, TYPES
from riyaz.serve.field import MAX_MESSAGES, MODEL, TEXT_OR_NULL, Field, listed, refused, text
from riyaz.serve.schema import Schema

MAX_PARTS = 1000
ROLES = ("user", "developer", "system", "assistant")
PART_TYPES = ("input_text", "output_text", "refusal", "input_json", "input_image")
CALLS = {"function_call": "arguments", "custom_tool_call": "input"}  # the member that holds what the tool is given
OUTPUTS = {"function_call_output": "function_call", "custom_tool_call_output": "custom_tool_call"}
SYSTEMONE_TYPES = ("choice", "score", "noul")

JSON_DATA: Schema = {"type": ["object", "array"]}
BREAKPOINT: Schema = {
    "type": ["object", "null"], "required": ["mode"],
    "properties": {"mode": {"type": "string", "enum": ["explicit"]}},
}  # fmt: skip
PART: Schema = {
    "type": "object", "required": ["type"],
    "properties": {
        "type": {"type": "string", "enum": list(PART_TYPES)},
        "text": TEXT_OR_NULL, "refusal": TEXT_OR_NULL, "data": JSON_DATA | {"type": ["object", "array", "null"]},
        "image_url": {}, "detail": TEXT_OR_NULL, "prompt_cache_breakpoint": BREAKPOINT,
    },
}  # fmt: skip
CONTENT: Schema = {"anyOf": [text(), listed(PART, MAX_PARTS, 1), {"type": "null"}]}
ITEM: Schema = {
    "type": "object",
    "properties": {
        "type": {"type": ["string", "null"], "enum": ["message", *CALLS, *OUTPUTS, None]},
        "role": {"type": ["string", "null"], "enum": [*ROLES, None]}, "content": CONTENT,
        "call_id": TEXT_OR_NULL, "name": TEXT_OR_NULL, "namespace": TEXT_OR_NULL, "arguments": TEXT_OR_NULL,
        "input": TEXT_OR_NULL, "output": CONTENT,
        "id": TEXT_OR_NULL, "status": TEXT_OR_NULL, "phase": TEXT_OR_NULL,
    },
}  # fmt: skip
CHOICE: Schema = {
    "type": "object", "required": ["value"],
    "properties": {"value": {"type": ["string", "boolean"]}, "description": TEXT_OR_NULL},
}  # fmt: skip
LEVEL: Schema = {
    "type": "object", "required": ["label"],
    "properties": {"label": text(LONGEST_VALUE, 1), "description": TEXT_OR_NULL},
}  # fmt: skip
OR_NULL: Schema = {"type": "null"}
QUESTION: Schema = {
    "type": "object", "required": ["type", "instructions"],
    "properties": {
        "type": {"type": "string", "enum": list(TYPES)},
        "name": {"anyOf": [text(LONGEST_VALUE), OR_NULL]},
        "instructions": {"anyOf": [text(LONGEST, 1), listed(PART, MAX_PARTS, 1)]},
        "choices": {"anyOf": [listed(CHOICE, MOST_CHOICES, FEWEST_CHOICES), OR_NULL]},
        "levels": {"anyOf": [listed(LEVEL, MOST_CHOICES, FEWEST_CHOICES), OR_NULL]},
    },
}  # fmt: skip
CACHE_OPTIONS: Schema = {
    "type": ["object", "null"],
    "properties": {
        "mode": {"type": ["string", "null"], "enum": ["implicit", "explicit", None]},
        "ttl": {"type": ["string", "null"], "enum": ["30m", None]},
    },
}  # fmt: skip
DECISIONS = {
    "model": MODEL,
    "input": Field({"anyOf": [text(None, 1), listed(ITEM, MAX_MESSAGES, 1)]}, required=True),
    "questions": Field(listed(QUESTION, MOST_QUESTIONS, 1), required=True),
    "prompt_cache_key": Field(TEXT_OR_NULL, "neutral"), "prompt_cache_options": Field(CACHE_OPTIONS, "neutral"),
    "safety_identifier": Field(TEXT_OR_NULL, "neutral"),
}  # fmt: skip

TEXT_OR_JSON: Schema = {"anyOf": [text(None, 1), JSON_DATA]}
SYSTEMONE_QUESTION: Schema = {
    "type": "object", "required": ["type", "instructions"],
    "properties": {
        "type": {"type": "string", "enum": list(SYSTEMONE_TYPES)},
        "instructions": TEXT_OR_JSON,
        "criteria": {"type": ["object", "array", "null"]},
    },
}  # fmt: skip
SYSTEMONE = {
    "model": Field(text(96, 1)),
    "state": Field(TEXT_OR_JSON, required=True),
    "questions": Field(
        {"type": "object", "additionalProperties": SYSTEMONE_QUESTION, "maxProperties": MOST_QUESTIONS}, required=True
    ),
    "images": refused([]), "files": refused([]), "videos": refused([]), "stream": refused(False),
    "keep_alive": Field({"type": ["string", "number", "null"]}, "neutral"),
}  # fmt: skip
# Riyaz's own member of an answer
ANSWER_MEMBERS: dict[str, Schema] = {
    "answered_by": {
        "type": "string", "enum": ["artifact", "base"],
        "description": "Who answered: the artifact that was trained on this question, or the base without training",
    },
}  # fmt: skip
