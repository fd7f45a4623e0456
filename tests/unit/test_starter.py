from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import server.starter as starter
from server.errors import ModelMissing
from server.starter import StarterModel


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StarterModel:
    """One small model in place of the real ones; its package is a folder."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "weights.bin").write_bytes(b"weights")

    def build(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "model.bin").write_bytes((source / "weights.bin").read_bytes() * 2)

    made = StarterModel("Tiny", "tiny", "weights.bin", hashlib.sha256(b"weights").hexdigest(), build)
    monkeypatch.setattr(starter, "_MODELS", (made,))
    monkeypatch.setattr(starter, "_source", lambda model: package)
    return made


def silent(message: str) -> None:
    pass


def test_what_is_prepared_verifies_and_is_left_alone(model: StarterModel, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert not starter.starter_is_prepared(models)
    starter.prepare(models, silent)
    assert starter.starter_is_prepared(models)
    assert starter.verify(models) == []
    before = (models / "Tiny" / "model.bin").stat().st_mtime_ns
    starter.prepare(models, silent)
    assert (models / "Tiny" / "model.bin").stat().st_mtime_ns == before


def test_an_interruption_leaves_nothing_half_made_and_the_next_call_goes_on(
    model: StarterModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"

    def interrupted(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "model.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    broken = StarterModel(model.name, model.package, model.weights, model.sha256, interrupted)
    with monkeypatch.context() as patch:
        patch.setattr(starter, "_MODELS", (broken,))
        with pytest.raises(KeyboardInterrupt):
            starter.prepare(models, silent)
    assert not starter.starter_is_prepared(models)
    starter.prepare(models, silent)
    assert starter.verify(models) == []
    assert [path.name for path in models.iterdir() if path.is_dir()] == ["Tiny"]


def test_damaged_weights_are_refused(model: StarterModel, tmp_path: Path) -> None:
    (tmp_path / "package" / "weights.bin").write_bytes(b"other")
    with pytest.raises(ModelMissing, match="damaged"):
        starter.prepare(tmp_path / "models", silent)
    assert not starter.starter_is_prepared(tmp_path / "models")


def test_verify_names_the_file_that_changed(model: StarterModel, tmp_path: Path) -> None:
    models = tmp_path / "models"
    starter.prepare(models, silent)
    (models / "Tiny" / "model.bin").write_bytes(b"rot")
    assert starter.verify(models) == [str(models / "Tiny" / "model.bin")]


def test_a_full_disk_is_said_and_leaves_nothing(
    model: StarterModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.mkdir()
        raise OSError(28, "No space left on device")

    broken = StarterModel(model.name, model.package, model.weights, model.sha256, full)
    monkeypatch.setattr(starter, "_MODELS", (broken,))
    with pytest.raises(ModelMissing, match="No space left") as raised:
        starter.prepare(tmp_path / "models", silent)
    assert "free" in raised.value.next_step
    assert [path for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


def test_the_real_starter_models_verify(chat_model_path: Path) -> None:
    assert starter.verify(chat_model_path.parent) == []
