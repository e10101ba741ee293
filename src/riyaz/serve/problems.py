"""What a client did wrong, or the server cannot do now: a status and OpenAI's error body."""

import logging
from pathlib import Path
from traceback import extract_tb
from typing import Any

from riyaz.engine.grammar import Unfollowable
from riyaz.engine.runner import CacheFull
from riyaz.errors import RiyazError
from riyaz.files import DISK_FULL
from riyaz.predictor import TooLong

KINDS = {
    400: ("invalid_request_error", "invalid_value"), 401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"), 404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"), 408: ("invalid_request_error", "timeout"),
    409: ("invalid_request_error", "conflict"), 413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"), 429: ("server_overloaded", "server_overloaded"),
    500: ("server_error", "internal_error"), 503: ("unavailable_error", "unavailable"),
    507: ("server_error", "disk_full"),
}  # fmt: skip

MESSAGES = "/v1/messages"
NAMES = {  # of errors as Anthropic's clients know them
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 408: "timeout_error",
    409: "conflict_error", 413: "request_too_large", 429: "rate_limit_error", 500: "api_error",
    503: "overloaded_error", 507: "api_error",
}  # fmt: skip


class Problem(Exception):
    """Ends a request with this status; `param` names the field, `extra` holds further members of the error."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str = "", *,
        headers: dict[str, str] | None = None, extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.kind, usual = KINDS[status]
        self.code, self.headers, self.extra = code or usual, headers or {}, extra or {}

    def body(self, path: str) -> dict[str, Any]:
        """The error as the clients of a path read it: OpenAI's four members are always there, and on Anthropic's routes
        the type is one of Anthropic's."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code, **self.extra}
        if not in_messages(path):
            return {"error": error}
        return {"type": "error", "error": error | {"type": NAMES.get(self.status, "invalid_request_error")}}


def in_messages(path: str) -> bool:
    """Whether Anthropic's clients ask for a path."""
    return path == MESSAGES or path.startswith(f"{MESSAGES}/")


def problem_of(error: Exception, param: str | None = None) -> Problem:
    """An error of the library as a Problem: the client's where it is a RiyazError, else the server's."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, TooLong):
        sizes = {"prompt_tokens": error.prompt, "max_tokens": error.room, "max_model_len": error.context}
        return Problem(400, str(error), error.where or param, "context_length_exceeded", extra=sizes)
    if isinstance(error, Unfollowable):
        return Problem(400, str(error), error.where or param)
    if isinstance(error, CacheFull):
        return Problem(400, str(error), param, "context_length_exceeded")
    if isinstance(error, RiyazError):
        return Problem(507 if error.what == DISK_FULL else 400, str(error), param)
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
    said = "%s in a request, at %s"  # not the message, which may quote a prompt, or forge lines
    logging.getLogger("riyaz.serve").error(said, type(error).__name__, " < ".join(places[::-1]) or "an unknown place")
    return Problem(500, "the server could not answer; its log says why")
