"""Documents, chunks and search."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from server.sections.section import STARTER, Section


class RetrievalSettings(Section):
    embedder: str = STARTER
    """`starter` or the path of a sentence-transformers model."""
    embedder_kind: Literal["sentence-transformers", "hashing"] = "sentence-transformers"
    """`hashing` has no model and no sense of meaning: for tests of everything else."""
    embedder_backend: Literal["auto", "torch", "onnx", "onnx-int8"] = "auto"
    """What runs the model; `auto`: torch on a GPU, on a CPU the fastest that holds its recall."""
    embedder_threads: int = Field(2, ge=1, le=64)
    """Threads that embed one query on the CPU."""
    embedder_device: str = ""
    """For torch: `cpu`, `cuda`, `cuda:1`; empty: a GPU where there is one."""
    sample_knowledge: str = "docs"
    """Folder that is ingested when the store is empty; empty: none. Relative to the project."""
    chunk_tokens: int = Field(160, ge=16, le=4_096)
    """Largest chunk, in the chat model's tokens."""
    chunk_overlap_tokens: int = Field(24, ge=0, le=1_024)
    """Tokens two neighbouring chunks of one section share."""
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    """Search by meaning (`dense`), by words (`lexical`, BM25), or by both, fused."""
    query: Literal["last", "last_two", "last_three", "weighted", "rules"] = "weighted"
    """What of the conversation is searched for."""
    candidates: int = Field(50, ge=1, le=1_000)
    """Chunks that each index contributes before they are fused and reranked."""
    top_k: int = Field(2, ge=1, le=64)
    """Passages per turn, unless the request says otherwise."""
    min_score: float = Field(0.0, ge=-1, le=1)
    """Passages below this score are left out."""
    nothing_found: Literal["tell", "refuse", "ignore"] = "tell"
    """A turn whose search finds nothing above `min_score`: the model is told so, the turn is answered with
    `prompt.nothing_found_reply`, or the model answers as if nothing had been searched."""
    merge_neighbours: bool = True
    """Passages of one turn that follow one another in a document become one in the prompt."""
    reranker: str = ""
    """Path of a cross-encoder that orders what both indexes found; empty: none."""
    rerank_candidates: int = Field(20, ge=1, le=200)
    """Passages that are reranked."""
    rerank_budget_ms: float = Field(100.0, gt=0, le=60_000)
    """What is not reranked by then keeps its place."""
    index: Literal["auto", "flat", "pq", "ivf", "hnsw", "gpu-flat", "gpu-ivfpq", "gpu-cagra"] = "auto"
    """The kind of FAISS index; `auto`: by the number of chunks and the device."""
    index_device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the index lives; `auto`: on a GPU where there is one and FAISS can use it."""
    index_snapshot: bool = True
    """Keep the index in a file too, so that a large one need not be built at each start."""
    max_document_bytes: int = Field(20_000_000, ge=1_024)
    """Largest file that is ingested."""
    max_unpacked_bytes: int = Field(200_000_000, ge=1_024)
    """Most that a packed document (DOCX, XLSX, PPTX, EPUB) may unpack to."""
    max_pages: int = Field(5_000, ge=1)
    """Pages, slides or sheets of one document."""
    max_chunks: int = Field(50_000, ge=1)
    """Chunks of one document."""
    parse_seconds: float = Field(120.0, gt=0, le=3_600)
    """A document that takes longer to parse is given up."""
    parse_memory_mib: int = Field(1_536, ge=256)
    """So is one that takes more memory."""

    @model_validator(mode="after")
    def _overlap_is_smaller_than_chunk(self) -> RetrievalSettings:
        if self.chunk_overlap_tokens * 2 > self.chunk_tokens:
            raise ValueError("chunk_overlap_tokens must be at most half of chunk_tokens")
        return self
