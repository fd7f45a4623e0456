from __future__ import annotations

import pytest
from pydantic import SecretStr

from server.errors import Unauthorized
from server.guard.auth import ANONYMOUS, Authenticator
from server.sections.auth import AuthSettings

KEYS = AuthSettings(
    api_keys={"acme": SecretStr("key-a"), "beta": SecretStr("key-b")}, cache_secret=SecretStr("s")
)


def test_a_key_names_its_tenant() -> None:
    guard = Authenticator(KEYS)
    assert guard.tenant("Bearer key-a") == "acme"
    assert guard.tenant("bearer  key-b ") == "beta"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic key-a", "Bearer key-c", "key-a"])
def test_anything_else_is_refused(header: str | None) -> None:
    with pytest.raises(Unauthorized) as raised:
        Authenticator(KEYS).tenant(header)
    assert "key-c" not in raised.value.message


def test_without_keys_everyone_is_the_anonymous_tenant() -> None:
    assert Authenticator(AuthSettings()).tenant(None) == ANONYMOUS


def test_salts_differ_by_tenant_and_by_secret_and_hold_for_one_deployment() -> None:
    guard, other = Authenticator(KEYS), Authenticator(AuthSettings(cache_secret=SecretStr("t")))
    assert guard.cache_salt("acme") == Authenticator(KEYS).cache_salt("acme")
    assert len({guard.cache_salt("acme"), guard.cache_salt("beta"), other.cache_salt("acme")}) == 3
    assert "acme" not in guard.cache_salt("acme")


def test_without_a_secret_the_salt_is_new_at_every_start() -> None:
    assert Authenticator(AuthSettings()).cache_salt("a") != Authenticator(AuthSettings()).cache_salt("a")
