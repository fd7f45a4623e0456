"""What can go wrong, as one tree, and the one JSON shape it takes on the wire.

    FirstwordError
    ├── BadRequest               400  invalid_request_error
    │   ├── InvalidBody               the body is not the JSON that was expected
    │   ├── UnknownParameter          a field that is not supported, refused by name
    │   ├── InvalidParameter          a supported field with a value out of its bounds
    │   ├── ContextTooLong            the prompt does not fit the model's context
    │   ├── QuotaExceeded             the tenant has as many files, bytes or vector stores as it may
    │   ├── MalformedRequest          what came is not HTTP
    │   └── MethodNotAllowed     405
    ├── Unauthorized             401  authentication_error
    ├── Forbidden                403  permission_error
    ├── NotFound                 404  not_found_error
    ├── RequestTimeout           408  invalid_request_error     retryable
    ├── TooLarge                 413  invalid_request_error
    ├── HeadersTooLarge          431  invalid_request_error
    ├── Busy                     429  rate_limit_error          retryable
    ├── Internal                 500  server_error
    ├── Unavailable              503  server_error              retryable
    │   ├── NotReady                  the engine is still starting
    │   ├── EngineDied                the engine went away during the turn
    │   ├── TooManyConnections
    │   └── ShuttingDown
    ├── StorageFull              507  server_error              the disk has no room
    └── SetupError                    before the server runs: the command line prints it and exits
        ├── ConfigError                   exit code 2
        ├── ModelMissing                  exit code 3
        └── PortInUse                     exit code 4

Every message says what was wrong, names the field or thing, and what was expected. `next_step` is
for the person at the command line.
"""

from __future__ import annotations

from typing import Any, ClassVar


class FirstwordError(Exception):
    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class BadRequest(FirstwordError):
    status = 400
    type = "invalid_request_error"


class InvalidBody(BadRequest):
    code = "invalid_body"


class UnknownParameter(BadRequest):
    code = "unsupported_parameter"


class InvalidParameter(BadRequest):
    code = "invalid_value"


class ContextTooLong(BadRequest):
    code = "context_length_exceeded"


class QuotaExceeded(BadRequest):
    code = "quota_exceeded"


class MalformedRequest(BadRequest):
    code = "malformed_request"


class Unauthorized(FirstwordError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(FirstwordError):
    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(FirstwordError):
    status = 404
    type = "not_found_error"
    code = "not_found"


class MethodNotAllowed(BadRequest):
    status = 405
    code = "method_not_allowed"


class RequestTimeout(FirstwordError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"
    retryable = True


class TooLarge(FirstwordError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class HeadersTooLarge(FirstwordError):
    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"


class Busy(FirstwordError):
    status = 429
    type = "rate_limit_error"
    code = "busy"
    retryable = True


class Internal(FirstwordError):
    code = "internal_error"


class Unavailable(FirstwordError):
    status = 503
    code = "unavailable"
    retryable = True


class NotReady(Unavailable):
    code = "not_ready"


class EngineDied(Unavailable):
    code = "engine_died"


class TooManyConnections(Unavailable):
    code = "too_many_connections"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class StorageFull(FirstwordError):
    status = 507
    code = "storage_full"


class SetupError(FirstwordError):
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


class ConfigError(SetupError):
    exit_code = 2


class ModelMissing(SetupError):
    exit_code = 3


class PortInUse(SetupError):
    exit_code = 4


def envelope(error: FirstwordError) -> dict[str, Any]:
    """OpenAI's error object: the one shape of every error, as a response body or as an event."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }
