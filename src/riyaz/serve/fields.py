"""Every field of a request, each in one of three uses: supported, neutral, or refused. OpenAI's are here, others in
the tables beside this one.

A supported field is checked by its schema and used. A neutral one is checked and changes nothing. A refused one gives
400 with its name, unless it has a value that asks for nothing. A field that is in no table is left out, and its name
goes back in the header x-riyaz-ignored. The OpenAPI document and `capabilities` of a model are made from these tables.
"""

import re
from typing import Any

from riyaz.errors import brief
from riyaz.serve.decision_fields import DECISIONS, SYSTEMONE
from riyaz.serve.field import (
    FLAG,
    MAX_BIAS,
    MAX_INPUTS,
    MAX_MESSAGES,
    MAX_N,
    MAX_PROMPTS,
    MAX_STOP,
    MAX_TOKENS,
    MAX_TOOLS,
    MAX_TOP,
    MODEL,
    OBJECT,
    TEXT_OR_NULL,
    TOKEN,
    WHOLE,
    Field,
    listed,
    number,
    refused,
    text,
    texts_or_tokens,
    whole,
)
from riyaz.serve.message_fields import COUNT, MESSAGES, RERANK
from riyaz.serve.problems import Problem
from riyaz.serve.schema import Schema, allows, check, unknown

MAX_NAMED = 20
PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


STOP: Schema = {"anyOf": [text(256, 1), listed(text(256, 1), MAX_STOP), {"type": "null"}]}
BIAS: Schema = {
    "type": ["object", "null"], "maxProperties": MAX_BIAS,
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}  # fmt: skip
STREAM_OPTIONS: Schema = {
    "type": ["object", "null"],
    "properties": {"include_usage": FLAG, "include_obfuscation": FLAG},
}
CONTENT: Schema = {"anyOf": [{"type": "string"}, listed(OBJECT | {"type": "object"}, 1000), {"type": "null"}]}
MESSAGE: Schema = {
    "type": "object", "required": ["role"],
    "properties": {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": CONTENT, "name": TEXT_OR_NULL, "refusal": TEXT_OR_NULL, "tool_call_id": TEXT_OR_NULL,
        "tool_calls": {"type": ["array", "null"], "items": {"type": "object"}, "maxItems": MAX_TOOLS},
    },
}  # fmt: skip
TOOL: Schema = {
    "type": "object", "required": ["type", "function"],
    "properties": {
        "type": {"type": "string", "enum": ["function"]},
        "function": {
            "type": "object", "required": ["name"],
            "properties": {"name": text(64, 1), "description": TEXT_OR_NULL, "parameters": OBJECT, "strict": FLAG},
        },
    },
}  # fmt: skip
NAMED_TOOL: Schema = {
    "type": "object", "required": ["function"],
    "properties": {
        "type": {"type": "string", "enum": ["function"]},
        "function": {"type": "object", "required": ["name"], "properties": {"name": text(64, 1)}},
    },
}  # fmt: skip
TOOL_CHOICE: Schema = {
    "anyOf": [
        {"type": ["string", "null"], "enum": ["auto", "none", "required", None]},
        {
            "type": "object", "required": ["type"],
            "properties": {
                "type": {"type": "string", "enum": ["function", "allowed_tools"]},
                "function": NAMED_TOOL["properties"]["function"],
                "allowed_tools": {
                    "type": "object", "required": ["mode", "tools"],
                    "properties": {
                        "mode": {"type": "string", "enum": ["auto", "required"]},
                        "tools": listed(NAMED_TOOL, MAX_TOOLS, 1),
                    },
                },
            },
        },
    ],
}  # fmt: skip
RESPONSE_FORMAT: Schema = {
    "type": ["object", "null"], "required": ["type"],
    "properties": {
        "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
        "json_schema": {
            "type": "object", "required": ["name", "schema"],
            "properties": {
                "name": text(64, 1), "description": TEXT_OR_NULL, "schema": {"type": "object"}, "strict": FLAG,
            },
        },
    },
}  # fmt: skip

DRAWING = {
    "temperature": Field(number(0, 2)), "top_p": Field(number(0, 1)), "seed": Field(whole(-WHOLE)),
    "frequency_penalty": Field(number(-2, 2)), "presence_penalty": Field(number(-2, 2)), "logit_bias": Field(BIAS),
    "stop": Field(STOP), "n": Field(whole(1, MAX_N)), "max_tokens": Field(whole(0)), "stream": Field(FLAG),
    "stream_options": Field(STREAM_OPTIONS), "user": Field(TEXT_OR_NULL, "neutral"),
    # not OpenAI's; as vLLM and llama.cpp name them
    "top_k": Field(whole(0)), "min_p": Field(number(0, 1)), "repetition_penalty": Field(number(0.01, 10)),
    "ignore_eos": Field(FLAG),
}  # fmt: skip
STORED = {
    "store": refused(False), "metadata": Field(OBJECT, "neutral"), "service_tier": refused("auto", "default"),
    "safety_identifier": Field(TEXT_OR_NULL, "neutral"), "prompt_cache_key": Field(TEXT_OR_NULL, "neutral"),
    "prompt_cache_retention": Field(TEXT_OR_NULL, "neutral"),
}  # fmt: skip
TOOLS = {
    "tools": Field(listed(TOOL, MAX_TOOLS)),
    "parallel_tool_calls": Field(FLAG),
    "tool_choice": Field(TOOL_CHOICE),
}

CHAT = {
    "model": MODEL, "messages": Field(listed(MESSAGE, MAX_MESSAGES, 1), required=True),
    **DRAWING, **STORED, **TOOLS,
    "max_tokens": Field(whole(1)), "max_completion_tokens": Field(whole(1)), "logprobs": Field(FLAG),
    "top_logprobs": Field(whole(0, MAX_TOP)),
    "response_format": Field(RESPONSE_FORMAT), "audio": refused(), "modalities": refused(["text"]),
    "prediction": refused(), "functions": refused([]), "function_call": refused("none", "auto"),
    "reasoning_effort": refused("none"), "verbosity": refused("medium"), "web_search_options": refused(),
    "moderation": refused(),
}  # fmt: skip
COMPLETIONS = {
    "model": MODEL, "prompt": Field(texts_or_tokens(MAX_PROMPTS), required=True), **DRAWING, "echo": Field(FLAG),
    "logprobs": Field(whole(0, MAX_TOP)), "best_of": refused(1), "suffix": refused(""),
}  # fmt: skip
EMBEDDINGS = {
    "model": MODEL, "input": Field(texts_or_tokens(MAX_INPUTS), required=True), "user": Field(TEXT_OR_NULL, "neutral"),
    "encoding_format": Field({"type": ["string", "null"], "enum": ["float", "base64", None]}),
    "dimensions": Field(whole(1)),
}  # fmt: skip
ITEMS: Schema = {"anyOf": [text(None, 1), listed({"type": "object"}, MAX_MESSAGES, 1)]}
TEXT_FORMAT: Schema = {
    "type": ["object", "null"],
    "properties": {
        "format": {
            "type": "object",
            "properties": {"type": {}, "name": {}, "schema": {}, "strict": {}, "description": {}},
        },
        "verbosity": {},
    },
}  # fmt: skip
RESPONSES = {
    "model": MODEL, "input": Field(ITEMS, required=True),
    "instructions": Field(TEXT_OR_NULL), "max_output_tokens": Field(whole(1)),
    "temperature": DRAWING["temperature"], "top_p": DRAWING["top_p"], "stream": Field(FLAG),
    "top_logprobs": refused(0), "text": Field(TEXT_FORMAT),
    **STORED, "store": Field(FLAG, "neutral"), "user": Field(TEXT_OR_NULL, "neutral"), "include": refused([]),
    "tools": refused([]), "tool_choice": refused("auto", "none"), "parallel_tool_calls": Field(FLAG, "neutral"),
    "max_tool_calls": refused(), "previous_response_id": refused(), "conversation": refused(),
    "background": refused(False),
    "reasoning": refused({}), "truncation": refused("disabled"), "prompt": refused(), "stream_options": refused({}),
    "context_management": refused([]), "moderation": refused(),
}  # fmt: skip
NAMED = Field(text(96, 1))
TOKENIZE = {
    "model": NAMED, "prompt": Field(text()), "messages": Field(listed(MESSAGE, MAX_MESSAGES, 1)),
    "add_special_tokens": Field(FLAG), "add_generation_prompt": Field(FLAG), "return_token_strs": Field(FLAG),
}  # fmt: skip
DETOKENIZE = {"model": NAMED, "tokens": Field(listed(TOKEN, MAX_TOKENS), required=True)}
ADAPTERS = {"name": Field(text(96, 1), required=True), "path": Field(text(1024, 1))}
LOAD = {"lora_name": Field(text(96, 1), required=True), "lora_path": Field(text(1024, 1), required=True)}
UNLOAD = {"lora_name": Field(text(96, 1), required=True)}
TABLES = {
    "/v1/chat/completions": CHAT, "/v1/completions": COMPLETIONS, "/v1/embeddings": EMBEDDINGS,
    "/v1/responses": RESPONSES, "/tokenize": TOKENIZE, "/detokenize": DETOKENIZE,
    "/v1/adapters": ADAPTERS, "/v1/load_lora_adapter": LOAD,
    "/v1/unload_lora_adapter": UNLOAD, "/v1/chat/completions/input_tokens": CHAT,
    "/v1/messages": MESSAGES, "/v1/messages/count_tokens": COUNT, "/v1/rerank": RERANK, "/rerank": RERANK,
    "/v1/decisions": DECISIONS, "/v1/systemone": SYSTEMONE,
}  # fmt: skip
# Riyaz's own members of an answer's message, each where it is known
MESSAGE_MEMBERS: dict[str, Schema] = {
    "citations": {"type": "array", "items": {"type": "object"}, "description": "The passages in the prompt"},
    "confidence": {
        "type": "number", "minimum": 0, "maximum": 1,
        "description": "Of a label of a closed set: the calibrated probability that it is right",
    },
    "runner_up": {"type": "string", "description": "Of a label of a closed set: the label that comes next"},
}  # fmt: skip

Table = dict[str, Field]


def sort_out(body: dict[str, Any], table: Table) -> tuple[dict[str, Any], list[str]]:
    """(the supported fields that have a value, names of fields and of their members that are in no table). Raises
    Problem 400."""
    for name, each in table.items():
        if each.required and body.get(name) is None:
            raise Problem(400, f"{name}: is missing", name, "missing_required_parameter")
    used: dict[str, Any] = {}
    ignored = [name for name in body if name not in table]
    for name, value in body.items():
        known = table.get(name)
        if known is None or value is None:
            continue
        if known.use == "refused":
            if not any(value == harmless and type(value) is type(harmless) for harmless in known.harmless):
                raise Problem(400, f"{name}: {brief(value)} is not supported", name, "unsupported_parameter")
            continue
        check(value, known.schema, name)
        if known.use == "supported":
            whole_number = isinstance(value, float) and allows("integer", known.schema)
            used[name] = int(value) if whole_number else value  # to JSON Schema 3.0 is a whole number too
            ignored += dict.fromkeys(unknown(value, known.schema, name))
    return used, ignored


def ignored_header(names: list[str]) -> dict[str, str]:
    """The header that names fields which were left out; a name that no header can hold is counted."""
    different = dict.fromkeys(names)
    plain = [name for name in different if PLAIN_NAME.fullmatch(name)][:MAX_NAMED]
    rest = len(different) - len(plain)
    said = ",".join([*plain, *([f"and-{rest}-more"] if rest else [])])
    return {"x-riyaz-ignored": said} if said else {}
