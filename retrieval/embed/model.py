"""A sentence-transformers model in a local folder, as files: found, named and told apart from others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import EmbedderMissing


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    folder: Path
    identity: str
    """The model's name and the SHA-256 of its weights."""
    files_sha256: str
    """Of the weights and of all that decides what is computed with them: configuration and tokenizer."""

    @classmethod
    def at(cls, path: str) -> EmbeddingModel:
        """Reads all weights, about 0.1 s per 100 MB. Raises `EmbedderMissing` when the folder or they are not there."""
        folder = Path(path).expanduser()
        weights = _weights_files(folder)
        try:
            weights_sha256 = _sha256(weights)
            configuration = sorted(
                file for pattern in ("*.json", "[0-9]*_*/*.json") for file in folder.glob(pattern)
            )
            files_sha256 = hashlib.sha256((weights_sha256 + _sha256(configuration)).encode()).hexdigest()
        except OSError as error:
            raise EmbedderMissing(
                f"{folder}: the embedding model cannot be read ({error}); run `firstword models prepare`"
            ) from error
        return cls(folder, f"{_name(folder)}@sha256:{weights_sha256}", files_sha256)


def _weights_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise EmbedderMissing(f"{folder}: no embedding model there; run `firstword models prepare`")
    files = sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("pytorch_model*.bin"))
    if not files:
        raise EmbedderMissing(
            f"{folder}: holds no model weights (*.safetensors); run `firstword models prepare`"
        )
    return files


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _name(folder: Path) -> str:
    """The name the model was published under, where its configuration tells it, else its folder's name."""
    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_name_or_path")
    except (OSError, ValueError, AttributeError):
        name = None
    return Path(str(name or folder.resolve())).name
