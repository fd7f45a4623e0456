"""The reranker on a tiny cross-encoder with random weights, which is made here."""

import json
import time
from pathlib import Path

import pytest

from retrieval.errors import RerankerMissing
from retrieval.search.rerank import CrossEncoderReranker, reranked

TEXTS = [
    "a passport costs money",
    "cats sleep",
    "how to apply",
    "money for a visa",
    "dogs run",
    "a b c",
    "visa",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cross_encoder(tmp_path_factory.mktemp("reranker"), 1)


def tiny_cross_encoder(folder: Path, n_labels: int) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        num_labels=n_labels,
        initializer_range=0.3,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


def test_every_text_is_scored_in_its_order_whatever_the_batches(folder: Path):
    whole = CrossEncoderReranker(str(folder), batch_size=32).rerank("what does a visa cost", TEXTS, 1e9)
    one_by_one = CrossEncoderReranker(str(folder), batch_size=1).rerank("what does a visa cost", TEXTS, 1e9)
    assert whole == pytest.approx(one_by_one, abs=1e-5)
    assert len(set(whole)) > len(TEXTS) // 2
    assert all(score is not None and 0 <= score <= 1 for score in whole)
    turned = CrossEncoderReranker(str(folder), batch_size=2).rerank("what does a visa cost", TEXTS[::-1], 1e9)
    assert turned[::-1] == pytest.approx(whole, abs=1e-5)


def test_when_the_time_is_used_up_the_rest_is_left_unscored(folder: Path, monkeypatch: pytest.MonkeyPatch):
    reranker = CrossEncoderReranker(str(folder), batch_size=2)
    everything = reranker.rerank("visa", TEXTS, 1e9)
    ticks = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) * 0.010)
    # A tick of 10 ms a batch: the third would have to begin after 30 ms and end at 40.
    limited = reranker.rerank("visa", TEXTS, 40)
    assert limited[:2] == pytest.approx(everything[:2], abs=1e-5)
    n_scored = sum(score is not None for score in limited)
    assert 0 < n_scored < len(TEXTS)
    assert limited[n_scored:] == [None] * (len(TEXTS) - n_scored)
    assert reranker.rerank("visa", TEXTS, 0) == [None] * len(TEXTS)


def test_no_texts_and_long_texts_are_taken(folder: Path):
    reranker = CrossEncoderReranker(str(folder))
    assert reranker.rerank("visa", [], 1e9) == []
    assert len(reranker.rerank("visa " * 1000, ["cat " * 1000, ""], 1e9)) == 2


def test_the_unscored_keep_their_order_behind_the_scored():
    assert reranked(5, [0.1, 0.9, 0.9, None, None]) == [1, 2, 0, 3, 4]
    assert reranked(3, []) == [0, 1, 2]
    assert reranked(2, [None, None]) == [0, 1]


def test_a_missing_or_damaged_model_is_refused_by_name(folder: Path, tmp_path: Path):
    with pytest.raises(RerankerMissing, match="nowhere"):
        CrossEncoderReranker(str(tmp_path / "nowhere"))
    with pytest.raises(RerankerMissing, match="no model weights"):
        CrossEncoderReranker(str(tmp_path))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(
            file.read_bytes()[:200] if file.suffix == ".safetensors" else file.read_bytes()
        )
    with pytest.raises(RerankerMissing, match="cannot be loaded"):
        CrossEncoderReranker(str(tmp_path))


def test_a_classifier_is_refused(tmp_path: Path):
    tiny_cross_encoder(tmp_path, 3)
    assert len(json.loads((tmp_path / "config.json").read_text())["id2label"]) == 3
    with pytest.raises(RerankerMissing, match="3 classes"):
        CrossEncoderReranker(str(tmp_path))
