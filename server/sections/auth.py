"""Who may call."""

from __future__ import annotations

from pydantic import Field, SecretStr

from server.sections.section import Section


class AuthSettings(Section):
    api_keys: dict[str, SecretStr] = Field({})
    """Tenant name to API key. Empty: no key is asked for, which only a loopback address allows."""
    priority_tenants: tuple[str, ...] = ()
    """Tenants that may ask for `service_tier: "priority"`."""
    allow_anonymous: bool = False
    """Serve without keys on an address that others can reach."""
    cache_secret: SecretStr = SecretStr("")
    """Secret from which each tenant's cache salt is derived; empty: a new one at every start."""
