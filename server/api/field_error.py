"""What msgspec says of a body that has not the expected shape, in the one error shape."""

from __future__ import annotations

import msgspec

from server.errors import InvalidParameter, UnknownParameter

LONGEST_NAME_SHOWN = 64


def field_error(error: msgspec.ValidationError) -> InvalidParameter | UnknownParameter:
    """msgspec says "Expected `int` >= 1 - at `$.max_num_results`"; the field goes into `param`."""
    reason, _, path = str(error).partition(" - at ")
    of_key = path.startswith("`key`")
    path = path.removeprefix("`key` in ").strip("`")
    param = path.removeprefix("$").removeprefix(".").replace("[...]", "") or None
    name = reason.rpartition("field ")[2].strip("`")[:LONGEST_NAME_SHOWN]
    if reason.startswith("Object contains unknown field"):
        full = f"{param}.{name}" if param else name
        return UnknownParameter(f"{full!r} is not supported", param=full)
    if reason.startswith("Object missing required field"):
        full = f"{param}.{name}" if param else name
        return InvalidParameter(f"{full!r} is required", param=full)
    about = f"{param}: a key: " if of_key else f"{param}: "
    return InvalidParameter(about + reason[0].lower() + reason[1:], param=param)
