"""Valid requests to every route, of which fuzz_routes.py sends changed ones. Runs are never begun: what a request that
starts one names is not there."""

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the card"}]
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
QUESTIONS = [
    {"name": "team", "type": "choice", "instructions": "Which team?", "choices": [{"value": "a"}, {"value": "b"}]},
    {"name": "urgent", "type": "predicate", "instructions": "Is it urgent?"},
]
SAMPLING = {"temperature": 0.7, "top_p": 0.9, "seed": 3, "logit_bias": {"5": 2}, "stop": ["x"], "frequency_penalty": 1}
MODEL = {"model": "tiny"}

# `METHOD path` -> bodies
ROUTES: dict[str, list[dict]] = {
    "POST /v1/chat/completions": [
        MODEL | {"messages": CHAT, "max_tokens": 4, "logprobs": True, "top_logprobs": 3} | SAMPLING,
        MODEL | {"messages": CHAT, "max_tokens": 8, "stream": True, "n": 2, "stream_options": {"include_usage": True}},
        MODEL | {"messages": CHAT, "max_tokens": 6, "tools": [TOOL], "tool_choice": "auto"},
        MODEL | {"messages": CHAT, "max_tokens": 6, "response_format": {
            "type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
    ],
    "POST /v1/chat/completions/input_tokens": [MODEL | {"messages": CHAT}],
    "POST /v1/completions": [
        MODEL | {"prompt": ["the card", "a fox"], "max_tokens": 4, "logprobs": 2, "echo": True} | SAMPLING,
        MODEL | {"prompt": [5, 6, 7], "max_tokens": 8, "stream": True, "n": 2},
    ],
    "POST /v1/responses": [
        MODEL | {"input": "the card", "max_output_tokens": 16},
        MODEL | {"input": CHAT, "max_output_tokens": 16, "stream": True, "instructions": "Be brief."},
    ],
    "POST /v1/messages": [
        MODEL | {"messages": CHAT[1:], "max_tokens": 4, "system": "Be brief.", "stop_sequences": ["x"]},
        MODEL | {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "max_tokens": 8,
                 "stream": True, "tools": [{"name": "look", "input_schema": SCHEMA}]},
    ],
    "POST /v1/messages/count_tokens": [MODEL | {"messages": CHAT[1:], "system": "Be brief."}],
    "POST /v1/embeddings": [{"model": "bert", "input": ["a", "b"], "encoding_format": "float"}],
    "POST /v1/rerank": [{"model": "bert", "query": "cat", "documents": ["the cat", "a dog"], "top_n": 1}],
    "POST /v1/decisions": [MODEL | {"input": "the card", "questions": QUESTIONS}],
    "POST /v1/systemone": [MODEL | {"state": "the card", "questions": {
        "urgent": {"type": "noul", "instructions": "Is it urgent?"},
        "team": {"type": "choice", "instructions": "Which team?", "criteria": {"a": "money", "b": None}}}}],
    "POST /tokenize": [MODEL | {"prompt": "the card"}, MODEL | {"messages": CHAT}],
    "POST /detokenize": [MODEL | {"tokens": [5, 6, 7]}],
    "POST /v1/adapters": [{"name": "a", "path": "lora"}],
    "POST /v1/load_lora_adapter": [{"lora_name": "a", "lora_path": "lora"}],
    "POST /v1/unload_lora_adapter": [{"lora_name": "a"}],
    "DELETE /v1/adapters/{name}": [],
    "GET /v1/models/{name}": [],
    "GET /v1/models": [],
    "GET /tokenizer_info": [],
    "GET /metrics": [],
    "GET /openapi.json": [],
    "GET /assets/{name}": [],
    "GET /page/info": [],
    "POST /page/next": [{"model": "tiny", "text": "the card", "top": 5}],
    "POST /page/inside": [{"model": "tiny", "text": "the card", "part": "layers", "layer": 1, "head": 0}],
    "GET /page/files": [],
    "POST /page/files": [{"any": "content"}],
    "GET /page/runs": [],
    "GET /page/run": [],
    "GET /page/rows": [],
    "GET /page/difference": [],
    "GET /page/learned": [],
    "GET /page/events": [],
    "POST /page/plan": [{"verb": "compare", "data": "none.jsonl", "model": "tiny", "budget": "1m"}],
    "POST /page/start": [{"verb": "compare", "data": "none.jsonl", "model": "tiny", "budget": "1m"}],
    "POST /page/stop": [{"path": "runs/none"}],
    "POST /page/adapters": [{"path": "none", "name": "a"}],
    "GET /page/limits": [],
    "GET /page/collections": [],
    "POST /page/collections": [{"collection": "kept.sqlite", "documents": "none.md", "lexical": True}],
    "POST /page/search": [{"collection": "kept.sqlite", "query": "the shop", "k": 3}],
    "GET /page/document": [],
    "GET /page/questions": [],
    "POST /page/questions": [{"questions": QUESTIONS}],
    "POST /page/label-next": [{"texts": ["a", "b", "c"], "unsure": [0.1, 0.2, 0.3], "count": 2}],
    "GET /page/samples": [],
    "GET /page/samples/text": [],
    "GET /page/votes": [],
    "POST /page/votes": [{"prompt": "a", "choice": "a", "a": {"model": "tiny", "text": "b"},
                           "b": {"model": "other", "text": "c"}}],
    "POST /page/votes/train": [{"model": "none", "method": "lora"}],
}  # fmt: skip

# The words of a route's query, and values that mean something
QUERIES: dict = {
    "/page/files": ("under", "name", "replace"),
    "/page/run": ("path",),
    "/page/rows": ("path", "arms", "only", "offset"),
    "/page/difference": ("a", "b"),
    "/page/learned": ("path", "arm", "after"),
    "/page/events": ("path", "after"),
    "/page/limits": ("path",),
    "/page/document": ("collection", "model", "id", "start", "end"),
    "/page/questions": ("model",),
    "/page/samples/text": ("name",),
    "values": {
        "path": ("sample:quickstart", "sample:animals", "sample:smollm2-limits", "tiny", "rows.jsonl"),
        "a": ("sample:animals",), "b": ("sample:animals-ternary",), "name": ("kept.jsonl", "animals"),
        "replace": ("true",), "only": ("disagreements",), "under": (".", "tiny"), "model": ("tiny",),
        "offset": ("0", "10"), "arms": ("lora,rag",), "arm": ("lora",), "collection": ("kept.sqlite",),
        "id": ("notes.md",), "start": ("0", "4"), "end": ("9",), "after": ("-1", "3", "x:1"),
    },
}  # fmt: skip
