"""Passages are found under the data's own ids, and embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from evaluation_made import PASSAGES

from retrieval.embed.hashing import HashingEmbedder
from retrieval.types import Query, Scope, Vectors
from server.evaluation.data import SourcePassage
from server.evaluation.knowledge import embed_once, open_collections
from server.settings import load_settings

BY_COLLECTION = {
    name: tuple(SourcePassage(**row) for row in PASSAGES if row["collection"] == name)
    for name in ("tax", "sea")
}


class CountingEmbedder(HashingEmbedder):
    def __init__(self, dim: int = 64) -> None:
        super().__init__(dim)
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded += texts
        return super().embed(texts)


class Words:
    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def token_offsets(self, text: str) -> Sequence[tuple[int, int]]:
        raise NotImplementedError


def embed(embedder: CountingEmbedder, folder: Path) -> dict[str, Vectors]:
    return embed_once(BY_COLLECTION, embedder, folder, lambda n_done, n_all: None)


@pytest.mark.anyio
async def test_a_collection_is_searched_alone_and_its_ids_are_the_datas(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    settings = load_settings(overrides={"data_dir": tmp_path / "var"})
    async with open_collections(
        settings, BY_COLLECTION, HashingEmbedder(64), Words(), tmp_path, lambda *done: seen.append(done)
    ) as collections:
        for name, passages in BY_COLLECTION.items():
            for passage in passages:
                found, _ = await collections[name].retriever.search(Query(passage.text), Scope(), top_k=10)
                assert found[0].document_id == passage.id
                assert found[0].text == passage.text
                assert found[0].n_tokens == len(passage.text.split())
                assert {one.document_id for one in found} == {one.id for one in passages}
    assert seen[-1] == (5, 5)
    assert not (tmp_path / "var").exists(), "what the deployment keeps of its index is left alone"


def test_nothing_is_embedded_twice_until_text_or_embedder_change(tmp_path: Path) -> None:
    first, second, third = CountingEmbedder(), CountingEmbedder(), CountingEmbedder(32)
    made = embed(first, tmp_path)
    assert len(first.embedded) == 5
    again = embed(second, tmp_path)
    assert second.embedded == []
    for name in BY_COLLECTION:
        np.testing.assert_array_equal(made[name], again[name])
    embed(third, tmp_path)
    assert len(third.embedded) == 5


def test_a_damaged_file_of_vectors_is_made_anew(tmp_path: Path) -> None:
    made = embed(CountingEmbedder(), tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    embedder = CountingEmbedder()
    np.testing.assert_array_equal(embed(embedder, tmp_path)["tax"], made["tax"])
    assert len(embedder.embedded) == 5


def test_a_folder_that_cannot_be_written_costs_the_cache_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert set(embed(CountingEmbedder(), tmp_path / "file" / "below")) == {"tax", "sea"}
