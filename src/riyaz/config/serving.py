"""Options of `riyaz serve`."""

from dataclasses import dataclass
from pathlib import Path

from riyaz.config.checking import Seconds, check_fields
from riyaz.config.option import option


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where a server listens, who may ask, and its limits."""

    host: str = option(
        "127.0.0.1", "address to listen on; an address that other machines reach needs --api-key-file", common=True
    )
    port: int = option(8000, "port; 0 takes a free one", common=True, minimum=0, maximum=65535)
    api_key_file: Path | None = option(None, "file with the clients' keys, one a line", common=True)
    allow_host: tuple[str, ...] = option((), "further names by which clients reach the server", common=True)
    allow_origin: tuple[str, ...] = option(
        (), "web pages of other origins that may ask, such as https://example.org", common=True
    )
    adapters: Path | None = option(None, "folder of adapters and artifacts that clients may load by name", common=True)
    models: int = option(2, "most models in memory; artifacts may need several", minimum=1)
    embedder: str = option("minilm", "the model behind /v1/embeddings")
    max_queue: int = option(64, "longest queue of requests; further ones get 429", minimum=0, maximum=10**6)
    queue_timeout: Seconds = option(Seconds(60), "longest time a request waits in the queue", above=0)
    request_timeout: Seconds = option(Seconds(600), "longest time for an answer, which is then cut", above=0)
    max_tokens: int | None = option(
        None, "most tokens of an answer; as many as the context holds if not given", common=True, minimum=1
    )
    max_body_mb: float = option(2.0, "largest body of a request, in megabytes", above=0, maximum=1024)
    no_page: bool = option(False, "serve no page at /", common=True)
    max_upload_mb: float = option(256.0, "largest upload to the page, in megabytes", above=0, maximum=10**5)
    piece: int = option(256, "tokens of a prompt that are read between two tokens of the running answers", minimum=64)
    keep_mb: float = option(
        256.0, "memory for keys and values of earlier prompts, which a next turn reuses, in megabytes", minimum=0
    )
    drain: Seconds = option(Seconds(10), "how long running answers may take when the server is stopped", minimum=0)

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        check_fields(self)
