"""Uploaded files and vector stores."""

from __future__ import annotations

from pydantic import Field

from server.sections.section import Section


class FileSettings(Section):
    """Uploaded files and vector stores (`/v1/files`, `/v1/vector_stores`)."""

    default_store_writers: tuple[str, ...] = ()
    """Tenants of `auth.api_keys` that may add to and take from the store `default`. Without keys, everybody may."""
    max_files_per_tenant: int = Field(10_000, ge=1)
    """Files that one tenant may keep."""
    max_bytes_per_tenant: int = Field(10_000_000_000, ge=1_024)
    """What they may weigh together."""
    max_stores_per_tenant: int = Field(1_000, ge=1)
    """Vector stores of one tenant."""
    max_files_per_batch: int = Field(500, ge=1, le=10_000)
    """Files that one call attaches."""
    ingest_pause_s: float = Field(2.0, ge=0, le=60)
    """While a turn waits for its first token an ingest waits too, before each batch that it embeds, so long at most."""
