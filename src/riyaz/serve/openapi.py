"""GET /openapi.json: the server's interface as an OpenAPI 3.1 document, made from the tables of fields."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz import __version__
from riyaz.serve.decision_fields import ANSWER_MEMBERS
from riyaz.serve.fields import MESSAGE_MEMBERS, TABLES, Table
from riyaz.serve.problems import KINDS
from riyaz.serve.schema import allows
from riyaz.serve.state import state_of

ERROR = {"$ref": "#/components/schemas/Error"}
JSON = "application/json"
MESSAGE = {"$ref": "#/components/schemas/Message"}
DECISION = {"$ref": "#/components/schemas/DecisionAnswer"}
ANSWERS: dict[str, dict[str, Any]] = {  # where a whole answer holds its messages
    "/v1/chat/completions": {
        "properties": {"choices": {"type": "array", "items": {"properties": {"message": MESSAGE}}}}
    },
    "/v1/responses": {"properties": {"output": {"type": "array", "items": MESSAGE}}},
    "/v1/messages": MESSAGE,
    "/v1/decisions": {"properties": {"answers": {"type": "array", "items": DECISION}}},
    "/v1/systemone": {"properties": {"answers": {"type": "object", "additionalProperties": DECISION}}},
}
SUMMARIES = {
    "/v1/chat/completions": "Answer a conversation", "/v1/completions": "Continue texts or tokens",
    "/v1/embeddings": "Turn texts into vectors", "/v1/responses": "Answer an input, without keeping it",
    "/v1/chat/completions/input_tokens": "Count the tokens of a conversation's prompt",
    "/v1/messages": "Answer a conversation in Anthropic's form",
    "/v1/messages/count_tokens": "Count the tokens of its prompt",
    "/v1/rerank": "Order documents by how near they are to a query", "/rerank": "The same as in llama.cpp and vLLM",
    "/v1/decisions": "Answer typed questions about an input with probabilities",
    "/v1/systemone": "The same as in TypeSafe, llama.cpp and Ollama",
    "/tokenize": "The tokens of a text", "/detokenize": "The text of tokens",
    "/v1/adapters": "Serve an adapter or artifact of the server's folder",
    "/v1/load_lora_adapter": "The same as in vLLM",
    "/v1/unload_lora_adapter": "Serve an adapter no longer, as in vLLM",
}  # fmt: skip
EMBEDDING = ("/v1/embeddings", "/v1/rerank", "/rerank")  # the routes that the embedder answers
READ = {
    "/health": "Whether the process lives", "/ready": "Whether a request would be taken", "/version": "The version",
    "/metrics": "Counters for Prometheus", "/v1/models": "What is served", "/v1/models/{name}": "One model",
    "/v1/adapters": "What clients have loaded", "/tokenizer_info": "Special tokens and chat template",
    "/openapi.json": "This document",
}  # fmt: skip


async def openapi(request: Request) -> Response:
    """The document, which names what is served now."""
    state = state_of(request)
    return JSONResponse(document([served.name for served in state.shelf], state.config.embedder))


def document(names: list[str], embedder: str) -> dict[str, Any]:
    """The OpenAPI document of every route, for these models."""
    paths: dict[str, dict[str, Any]] = {path: {"get": _operation(text, path)} for path, text in READ.items()}
    for path, table in TABLES.items():
        served = [embedder] if path in EMBEDDING else names
        body = {"required": True, "content": {JSON: {"schema": body_schema(table, served)}}}
        paths.setdefault(path, {})["post"] = {**_operation(SUMMARIES[path], path), "requestBody": body}
    for path, schema in ANSWERS.items():
        paths[path]["post"]["responses"]["200"]["content"] = {JSON: {"schema": schema}}
    paths["/v1/adapters/{name}"] = {"delete": _operation("Serve it no longer", "/v1/adapters/{name}")}
    members = {"message": {"type": "string"}, "type": {"type": "string"}, "param": {"type": ["string", "null"]}}
    error = {"type": "object", "required": [*members, "code"], "properties": {**members, "code": {"type": "string"}}}
    schema = {"type": "object", "required": ["error"], "properties": {"error": error}}
    return {
        "openapi": "3.1.0", "info": {"title": "riyaz serve", "version": __version__}, "paths": paths,
        "components": {
            "schemas": {
                "Error": schema, "Message": {"type": "object", "properties": MESSAGE_MEMBERS},
                "DecisionAnswer": {"type": "object", "properties": ANSWER_MEMBERS},
            },
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
        "security": [{}, {"key": []}, {"header": []}],
    }  # fmt: skip


def body_schema(table: Table, names: list[str]) -> dict[str, Any]:
    """The schema of a request's body; a field that may be left out may be null, and a refused one may have the values
    that ask for nothing."""
    properties: dict[str, Any] = {}
    for name, field in table.items():
        schema = {"type": "string", "enum": names} if name == "model" else field.schema
        if field.use == "refused":
            schema = {"enum": [None, *field.harmless]}
        elif not field.required and not allows("null", schema):
            schema = {"anyOf": [schema, {"type": "null"}]}
        properties[name] = schema
    return {
        "type": "object", "properties": properties,
        "required": [name for name, field in table.items() if field.required],
    }  # fmt: skip


def _operation(summary: str, path: str) -> dict[str, Any]:
    said: dict[str, Any] = {"200": {"description": "The answer"}, "201": {"description": "Served from now on"}}
    errors = {
        str(status): {"description": kind, "content": {JSON: {"schema": ERROR}}} for status, (kind, _) in KINDS.items()
    }
    operation: dict[str, Any] = {"summary": summary, "responses": {**said, **errors}}
    if "{name}" in path:
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [name]
    return operation
