"""The fields of Anthropic's messages and of rerank, in the three uses that `fields.py` describes."""

from dataclasses import replace

from riyaz.serve.field import (
    FLAG,
    MAX_MESSAGES,
    MAX_STOP,
    MAX_TOOLS,
    MODEL,
    OBJECT,
    TEXT_OR_NULL,
    WHOLE,
    Field,
    listed,
    number,
    refused,
    text,
    whole,
)
from riyaz.serve.schema import Schema

MAX_BLOCKS, MAX_DOCUMENTS = 1000, 1000
ANY: Schema = {}
# What is not listed here is named in x-riyaz-ignored, such as `citations` and `caller` of a block that is sent back
BLOCK: Schema = {
    "type": "object", "required": ["type"],
    "properties": {
        "type": {"type": "string"}, "text": TEXT_OR_NULL, "id": TEXT_OR_NULL, "name": TEXT_OR_NULL, "input": ANY,
        "tool_use_id": TEXT_OR_NULL, "content": ANY, "is_error": FLAG, "cache_control": ANY,
    },
}  # fmt: skip
CONTENT: Schema = {"anyOf": [{"type": "string"}, listed(BLOCK, MAX_BLOCKS, 1)]}
SYSTEM: Schema = {"anyOf": [{"type": "string"}, listed(BLOCK, MAX_BLOCKS)]}
MESSAGE: Schema = {
    "type": "object", "required": ["role", "content"],
    "properties": {"role": {"type": "string", "enum": ["user", "assistant", "system"]}, "content": CONTENT},
}  # fmt: skip
TOOL: Schema = {
    "type": "object", "required": ["name"],
    "properties": {
        "name": text(128, 1), "description": TEXT_OR_NULL, "input_schema": OBJECT, "strict": FLAG,
        "type": {"type": ["string", "null"], "enum": ["custom", None]}, "cache_control": ANY,
    },
}  # fmt: skip
TOOL_CHOICE: Schema = {
    "type": ["object", "null"], "required": ["type"],
    "properties": {
        "type": {"type": "string", "enum": ["auto", "any", "tool", "none"]}, "name": text(128, 1),
        "disable_parallel_tool_use": FLAG,
    },
}  # fmt: skip
OUTPUT_CONFIG: Schema = {
    "type": ["object", "null"],
    "properties": {
        "effort": {"type": ["string", "null"], "enum": ["high", None]},  # Anthropic's default, which asks for nothing
        "format": {
            "type": ["object", "null"], "required": ["type", "schema"],
            "properties": {"type": {"type": "string", "enum": ["json_schema"]}, "schema": {"type": "object"}},
        },
    },
}  # fmt: skip
MESSAGES = {
    "model": MODEL, "messages": Field(listed(MESSAGE, MAX_MESSAGES, 1), required=True), "system": Field(SYSTEM),
    "max_tokens": Field({"type": "integer", "minimum": 1, "maximum": WHOLE}, required=True),
    "temperature": Field(number(0, 1)), "top_p": Field(number(0, 1)), "top_k": Field(whole(0)),
    "stop_sequences": Field(listed(text(256, 1), MAX_STOP)), "stream": Field(FLAG),
    "tools": Field(listed(TOOL, MAX_TOOLS)), "tool_choice": Field(TOOL_CHOICE), "output_config": Field(OUTPUT_CONFIG),
    "metadata": Field(OBJECT, "neutral"), "cache_control": Field(OBJECT, "neutral"),
    "user_profile_id": Field(TEXT_OR_NULL, "neutral"), "workspace_id": Field(TEXT_OR_NULL, "neutral"),
    "thinking": refused({"type": "disabled"}), "service_tier": refused("auto", "standard_only"),
    "speed": refused("standard"), "container": refused(), "inference_geo": refused(), "diagnostics": refused(),
    # of the client's beta messages
    "output_format": refused(), "context_management": refused(), "compaction": refused(), "mcp_servers": refused([]),
    "fallbacks": refused([]), "fallback_credit_token": refused(), "thread": refused(), "billing_policy": refused(),
}  # fmt: skip
UNCOUNTED = ("max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "stream", "output_config")
COUNT = MESSAGES | {name: replace(MESSAGES[name], use="neutral", required=False) for name in UNCOUNTED}

DOCUMENT: Schema = {
    "anyOf": [text(None, 1), {"type": "object", "required": ["text"], "properties": {"text": text(None, 1)}}]
}
RERANK = {
    "model": Field(text(96, 1)), "query": Field(text(None, 1), required=True),
    "documents": Field(listed(DOCUMENT, MAX_DOCUMENTS, 1), required=True),
    "top_n": Field(whole(0)), "return_documents": Field(FLAG), "max_tokens_per_doc": Field(whole(1)),
    "user": Field(TEXT_OR_NULL, "neutral"), "priority": Field(whole(-WHOLE), "neutral"),
    # Cohere's first version, vLLM's own, and those of text-embeddings-inference, which llama.cpp's server reads too
    "max_chunks_per_doc": refused(), "rank_fields": refused(["text"]), "truncate_prompt_tokens": refused(),
    "instruction": refused(""), "use_activation": refused(True), "activation": refused(True),
    "texts": refused(), "return_text": refused(False), "raw_scores": refused(False), "truncate": refused(False),
}  # fmt: skip
