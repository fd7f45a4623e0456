from __future__ import annotations

import pytest

import server.errors as errors
from server.errors import FirstwordError, SetupError, envelope


def tree(root: type[FirstwordError]) -> list[type[FirstwordError]]:
    return [root, *(below for child in root.__subclasses__() for below in tree(child))]


WIRE = [cls for cls in tree(FirstwordError) if not issubclass(cls, SetupError)]


@pytest.mark.parametrize("cls", WIRE)
def test_every_error_has_the_one_shape(cls: type[FirstwordError]) -> None:
    body = envelope(cls("what was wrong", param="field"))
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] == "what was wrong"


@pytest.mark.parametrize("cls", tree(FirstwordError))
def test_the_drawn_tree_is_complete(cls: type[FirstwordError]) -> None:
    assert cls.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("cls", WIRE)
def test_what_the_client_did_wrong_is_not_retryable_and_what_passes_is(cls: type[FirstwordError]) -> None:
    assert cls.retryable == (cls.status in (408, 429, 503))


def test_no_two_errors_share_a_code() -> None:
    codes = [cls.code for cls in WIRE if "code" in vars(cls) and cls.code is not None]
    assert len(codes) == len(set(codes))
    assert len(codes) > 10


def test_exit_codes_are_unique_and_not_zero() -> None:
    codes = [cls.exit_code for cls in tree(SetupError)]
    assert len(codes) == len(set(codes))
    assert 0 not in codes
