"""Query parameters of lists, in OpenAI's form: `limit`, `order`, `after`, `before`."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request

from retrieval.file_types import Page
from server.errors import InvalidParameter, UnknownParameter

_LONGEST_NAME_SHOWN = 64
_LONGEST_ID = 256


def page_of(
    request: Request, *, most: int = 100, default: int = 20, before: bool = True, also: Collection[str] = ()
) -> Page:
    """`before`: whether lists can be read backwards here; `also` names the endpoint's other parameters. Raises `UnknownParameter` or `InvalidParameter`."""
    asked = request.query_params
    known = {"limit", "order", "after", *(("before",) if before else ()), *also}
    for name, _ in asked.multi_items():
        if name not in known:
            shown = name[:_LONGEST_NAME_SHOWN]
            raise UnknownParameter(f"{shown!r} is not supported here", param=shown)
        if len(asked.getlist(name)) > 1:
            raise InvalidParameter(f"{name} is given more than once", param=name)
    limit = asked.get("limit", str(default))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 5 and 1 <= int(limit) <= most):
        raise InvalidParameter(f"limit must be a whole number from 1 to {most}", param="limit")
    order = one_of(request, "order", ("asc", "desc")) or "desc"
    return Page(int(limit), order == "desc", _cursor(request, "after"), _cursor(request, "before"))


def cursors(page: Page) -> dict[str, str]:
    """For `blame`: id to parameter."""
    return {page.after: "after", page.before: "before"}


def one_of(request: Request, name: str, values: Collection[str]) -> str:
    """Empty when it is absent. Raises `InvalidParameter`."""
    asked = request.query_params.get(name, "")
    if name in request.query_params and asked not in values:
        raise InvalidParameter(f"{name} must be one of {', '.join(values)}", param=name)
    return asked


def _cursor(request: Request, name: str) -> str:
    asked = request.query_params.get(name, "")
    if len(asked) > _LONGEST_ID:
        raise InvalidParameter(f"{name}: an id has at most {_LONGEST_ID} characters", param=name)
    return asked
