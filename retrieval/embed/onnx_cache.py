"""ONNX graphs of embedding models, made once and kept in a folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from retrieval.embed.model import EmbeddingModel
from retrieval.embed.onnx_graph import META, UNSUITABLE, digest
from retrieval.errors import EmbedderMissing

Precision = Literal["fp32", "int8"]

_FORMAT = "1"
"""Changed whenever the same model would now be written otherwise."""
_EXPORT_S = 600
log = logging.getLogger(__name__)


class UnsuitableModel(EmbedderMissing):
    """sentence-transformers can run the model, the ONNX backend cannot."""


def onnx_model(model: EmbeddingModel, precision: Precision, cache: Path) -> Path:
    """The folder of the model's graph and tokenizer, made where it is not there yet: 15 s and 1 GB of memory.

    It is made beside its place and renamed into it, so that an interruption leaves nothing half-made; a graph
    that is not what was written is made anew. Raises `UnsuitableModel`, and `EmbedderMissing` when it cannot
    be made.
    """
    key = hashlib.sha256(f"{_FORMAT}:{model.files_sha256}".encode()).hexdigest()[:24]
    place = cache / f"{key}-{precision}"
    if _whole(place):
        return place
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second process that starts beside this one waits here
            if not _whole(place):
                _make(model, precision, place)
    except OSError as error:
        raise EmbedderMissing(
            f"{model.folder}: the ONNX form of the embedding model cannot be written below {cache} ({error}); "
            "make room and check its permissions"
        ) from error
    return place


def _make(model: EmbeddingModel, precision: Precision, place: Path) -> None:
    making = place.with_name(f".{place.name}.partial")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    try:
        _export(model, precision, making)
        shutil.rmtree(place, ignore_errors=True)
        making.rename(place)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _whole(place: Path) -> bool:
    try:
        meta = json.loads((place / META).read_text(encoding="utf-8"))
        return bool(digest(place) == meta["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _export(model: EmbeddingModel, precision: Precision, target: Path) -> None:
    log.info("making the ONNX form (%s) of %s", precision, model.folder)
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-W", "ignore", "-m", "retrieval.embed.onnx_graph"]
    try:
        done = subprocess.run(
            [*command, str(model.folder), str(target), precision],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=_EXPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EmbedderMissing(
            f"{model.folder}: its ONNX form was not made within {_EXPORT_S} s; set the embedder's backend to torch"
        ) from error
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    if done.returncode == UNSUITABLE:
        raise UnsuitableModel(
            f"{model.folder}: ONNX Runtime cannot run this embedding model ({reason}); set its backend to torch"
        )
    if done.returncode:
        raise EmbedderMissing(
            f"{model.folder}: the embedding model cannot be loaded ({reason}); run `firstword models prepare`"
        )
