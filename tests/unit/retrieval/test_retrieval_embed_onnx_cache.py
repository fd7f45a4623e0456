"""ONNX graphs are made once, whole or not at all, and anew when they are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from retrieval.embed import onnx_cache
from retrieval.embed import spec as embed
from retrieval.embed.model import EmbeddingModel
from retrieval.embed.onnx_cache import UnsuitableModel, onnx_model
from retrieval.embed.onnx_graph import GRAPH, META, TOKENIZER, digest, unsuitable
from retrieval.embed.spec import EmbedderSpec, open_embedder
from retrieval.errors import EmbedderMissing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return folder


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precisions of the graphs that were made; the graph is a stand-in."""
    made = []

    def export(model: EmbeddingModel, precision: str, target: Path) -> None:
        made.append(precision)
        (target / GRAPH).write_text(precision)
        if len(made) == 1:
            raise KeyboardInterrupt
        (target / TOKENIZER).write_text("{}")
        (target / META).write_text(json.dumps({"dim": 8, "sha256": digest(target)}))

    monkeypatch.setattr(onnx_cache, "_export", export)
    return made


def test_a_graph_is_made_once_and_an_interrupted_one_leaves_nothing(
    folder: Path, made: list[str], tmp_path: Path
):
    cache, model = tmp_path / "cache", EmbeddingModel.at(str(folder))
    with pytest.raises(KeyboardInterrupt):
        onnx_model(model, "int8", cache)
    assert [path.name for path in cache.iterdir()] == [".lock"]
    places = {onnx_model(model, precision, cache) for precision in ("int8", "int8", "fp32", "fp32")}
    assert len(places) == 2
    assert made == ["int8", "int8", "fp32"]


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER, META])
def test_a_damaged_graph_is_made_anew(folder: Path, made: list[str], tmp_path: Path, name: str):
    made.append("")
    model = EmbeddingModel.at(str(folder))
    place = onnx_model(model, "int8", tmp_path)
    whole = (place / name).read_bytes()
    (place / name).write_bytes(whole[:-1])
    assert onnx_model(model, "int8", tmp_path) == place
    assert (place / name).read_bytes() == whole


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "1_Pooling/config.json"])
def test_whatever_decides_the_vectors_decides_the_graph(
    folder: Path, made: list[str], tmp_path: Path, name: str
):
    made.append("")
    before = EmbeddingModel.at(str(folder))
    (folder / name).write_text('{"another": 1}')
    after = EmbeddingModel.at(str(folder))
    assert onnx_model(before, "int8", tmp_path) != onnx_model(after, "int8", tmp_path)
    assert (before.identity == after.identity) == name.endswith(".json")


@pytest.mark.parametrize(("status", "error"), [(3, UnsuitableModel), (1, EmbedderMissing)])
def test_what_the_exporter_says_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, error: type[EmbedderMissing]
):
    exporter = tmp_path / "exporter"
    exporter.write_text(f"#!/bin/sh\necho first >&2\necho the reason >&2\nexit {status}\n")
    exporter.chmod(0o755)
    monkeypatch.setattr(onnx_cache.sys, "executable", str(exporter))
    with pytest.raises(EmbedderMissing, match=r"\(the reason\)") as raised:
        open_embedder(EmbedderSpec(str(folder), "onnx", cache=str(tmp_path / "cache")))
    assert type(raised.value) is error
    assert str(folder) in str(raised.value)


def test_a_model_that_onnx_cannot_run_is_run_by_torch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_: object) -> None:
        raise UnsuitableModel("its pooling is 'max'")

    opened = []
    monkeypatch.setattr(embed, "OnnxEmbedder", refuse)
    monkeypatch.setattr(embed, "SentenceTransformerEmbedder", lambda *args, **options: opened.append(options))
    open_embedder(EmbedderSpec(str(folder), device="cpu"))
    open_embedder(EmbedderSpec(str(folder), device="cuda"))
    assert opened == [{"device": "cpu"}, {"device": "cuda"}]
    assert "its pooling is 'max'" in caplog.text
    with pytest.raises(UnsuitableModel):
        open_embedder(EmbedderSpec(str(folder), "onnx-int8"))


def stage(kind: str, **parts: object) -> object:
    return type(kind, (), parts)()


class Model(list[object]):
    """What `unsuitable` looks at."""

    def __init__(self, *modules: object, default_prompt_name: str | None = None, fast: bool = True) -> None:
        super().__init__(modules)
        self.default_prompt_name = default_prompt_name
        self.tokenizer = SimpleNamespace(is_fast=fast)


TRANSFORMER = stage("Transformer", do_lower_case=False)
MEAN = stage("Pooling", pooling_mode="mean")
NORMALIZE = stage("Normalize")


def test_only_what_the_graph_computes_is_suitable():
    for modules in ([TRANSFORMER, MEAN, NORMALIZE], [TRANSFORMER, stage("Pooling", pooling_mode="cls")]):
        assert unsuitable(Model(*modules)) == ""
    for model in (
        Model(TRANSFORMER, MEAN, stage("Dense"), NORMALIZE),
        Model(stage("BoW"), MEAN),
        Model(TRANSFORMER, stage("Pooling", pooling_mode="max")),
        Model(TRANSFORMER, stage("Pooling", pooling_mode=("mean", "cls"))),
        Model(stage("Transformer", do_lower_case=True), MEAN),
        Model(TRANSFORMER, MEAN, default_prompt_name="query"),
        Model(TRANSFORMER, MEAN, fast=False),
    ):
        assert unsuitable(model)
