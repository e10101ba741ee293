"""Options of `riyaz serve`."""

from dataclasses import dataclass
from pathlib import Path

from riyaz.config.checking import Seconds, check_fields
from riyaz.config.option import option


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where a server listens, who may ask, and its limits."""

    host: str = option("127.0.0.1", "address to listen on; any but this machine's needs a key", common=True)
    port: int = option(8000, "port; 0 takes a free one", common=True, minimum=0, maximum=65535)
    api_key_file: Path | None = option(None, "file with the keys of clients, one on a line", common=True)
    allow_host: tuple[str, ...] = option((), "further names by which clients reach the server", common=True)
    allow_origin: tuple[str, ...] = option(
        (), "web pages of other origins that may ask, such as https://example.org", common=True
    )
    adapters: Path | None = option(None, "folder of adapters and artifacts that clients may load by name", common=True)
    models: int = option(2, "most models in memory, where artifacts need more than one", minimum=1)
    embedder: str = option("minilm", "the model behind /v1/embeddings")
    max_queue: int = option(64, "most requests that wait; further ones get 429", minimum=0, maximum=10**6)
    queue_timeout: Seconds = option(Seconds(60), "longest that a request waits for its start", above=0)
    request_timeout: Seconds = option(Seconds(600), "longest that an answer is made; it is cut then", above=0)
    max_tokens: int | None = option(
        None, "most tokens of an answer; what the context holds if not given", common=True, minimum=1
    )
    max_body_mb: float = option(2.0, "largest request", above=0, maximum=1024)
    no_page: bool = option(False, "serve no page at /", common=True)
    max_upload_mb: float = option(256.0, "largest file that the page takes", above=0, maximum=10**5)
    piece: int = option(256, "tokens of prompts read between two tokens of running answers", minimum=64)
    keep_mb: float = option(
        256.0, "keys and values of prompts that are kept for the next turn of a conversation", minimum=0
    )
    drain: Seconds = option(Seconds(10), "how long answers go on when the server is told to end", minimum=0)

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        check_fields(self)
