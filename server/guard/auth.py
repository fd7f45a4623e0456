"""API key → tenant."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from functools import lru_cache

from server.errors import Unauthorized
from server.sections.auth import AuthSettings

ANONYMOUS = "anonymous"


class Authenticator:
    """Without configured keys every caller is the one anonymous tenant (settings allow that on loopback only)."""

    def __init__(self, settings: AuthSettings) -> None:
        self._tenants = {_digest(key.get_secret_value()): tenant for tenant, key in settings.api_keys.items()}
        secret = settings.cache_secret.get_secret_value()
        self._cache_secret = secret.encode() if secret else secrets.token_bytes(32)
        self._salt_of = lru_cache(maxsize=1_024)(self._make_salt)

    def tenant(self, authorization: str | None) -> str:
        """Raises `Unauthorized`. The comparison takes as long for a near miss as for a far one."""
        if not self._tenants:
            return ANONYMOUS
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("an API key is needed: send the header 'Authorization: Bearer <key>'")
        digest = _digest(key.strip())
        found = None
        for known, tenant in self._tenants.items():
            if hmac.compare_digest(known, digest):
                found = tenant
        if found is None:
            raise Unauthorized("this API key is not known")
        return found

    def cache_salt(self, tenant: str) -> str:
        """Separates the engine's prefix cache by tenant, so that timing tells nobody another's prompts."""
        return self._salt_of(tenant)

    def _make_salt(self, tenant: str) -> str:
        return hmac.new(self._cache_secret, tenant.encode(), hashlib.sha256).hexdigest()[:32]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
