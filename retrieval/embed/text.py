"""What of a chunk becomes its vector."""

from __future__ import annotations

from retrieval.types import Chunk


def chunk_text_for_embedding(title: str, chunk: Chunk) -> str:
    """What the vector is made of: title, heading path and text, so that it knows where the chunk is from."""
    path = chunk.heading_path
    if path and path[0] == title:
        path = path[1:]
    return "\n".join(line for line in (title, " > ".join(path), chunk.text) if line)
