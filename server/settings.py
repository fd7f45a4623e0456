"""The one settings tree: a TOML file, then the environment (`FIRSTWORD_SECTION__FIELD`), frozen at start.

Unknown keys are fatal, every field has bounds, and its docstring is what `firstword config show` prints.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from server.errors import ConfigError
from server.sections.admission import AdmissionSettings
from server.sections.auth import AuthSettings
from server.sections.context import ContextSettings
from server.sections.engine import EngineSettings
from server.sections.files import FileSettings
from server.sections.generation import GenerationSettings
from server.sections.http import HttpSettings
from server.sections.limits import LimitSettings
from server.sections.prewarm import PrewarmSettings
from server.sections.prompt import PromptSettings
from server.sections.retrieval import RetrievalSettings
from server.sections.telemetry import TelemetrySettings

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = PROJECT_ROOT / "configs" / "default.toml"

_ENV_PREFIX = "FIRSTWORD_"
_API_KEYS_VARIABLE = "FIRSTWORD_AUTH__API_KEYS__"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_ENV_PREFIX,
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
    )

    data_dir: Path = Path("var")
    """Where models, documents and the turn log are kept; relative to the project."""
    http: HttpSettings = HttpSettings()
    """The listening socket and its pace."""
    limits: LimitSettings = LimitSettings()
    """What one request may ask for."""
    auth: AuthSettings = AuthSettings()
    """Who may call."""
    engine: EngineSettings = EngineSettings()
    """The model and how it is run."""
    retrieval: RetrievalSettings = RetrievalSettings()
    """Documents, chunks and search."""
    files: FileSettings = FileSettings()
    """Uploaded files and vector stores."""
    prompt: PromptSettings = PromptSettings()
    """The layout of a prompt."""
    context: ContextSettings = ContextSettings()
    """How a conversation's prompt grows."""
    prewarm: PrewarmSettings = PrewarmSettings()
    """Type-ahead."""
    generation: GenerationSettings = GenerationSettings()
    """Defaults for sampling."""
    admission: AdmissionSettings = AdmissionSettings()
    """How much is taken on at a time."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """Logs and the turn log."""

    @model_validator(mode="after")
    def _strangers_need_a_key(self) -> Settings:
        if not (_is_loopback(self.http.host) or self.auth.api_keys or self.auth.allow_anonymous):
            raise ValueError(
                f"http.host = {self.http.host!r} can be reached by others, so auth.api_keys must name at "
                "least one key (or auth.allow_anonymous = true)"
            )
        return self

    @model_validator(mode="after")
    def _prompt_fits(self) -> Settings:
        if self.generation.max_tokens >= self.engine.max_model_len:
            raise ValueError("generation.max_tokens must be below engine.max_model_len")
        return self

    @model_validator(mode="after")
    def _priority_tenants_have_keys(self) -> Settings:
        for tenant in self.auth.priority_tenants:
            if tenant not in self.auth.api_keys:
                raise ValueError(f"auth.priority_tenants names {tenant!r}, which has no key in auth.api_keys")
        return self

    @model_validator(mode="after")
    def _writers_have_keys(self) -> Settings:
        for tenant in self.files.default_store_writers:
            if tenant not in self.auth.api_keys:
                raise ValueError(
                    f"files.default_store_writers names {tenant!r}, which has no key in auth.api_keys"
                )
        return self

    @property
    def data_path(self) -> Path:
        return PROJECT_ROOT / self.data_dir

    @property
    def models_path(self) -> Path:
        return self.data_path / "models"


def load_settings(config: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Read `config` (default: `configs/default.toml`), then the environment, then `overrides`.

    Raises `ConfigError` that names every key at fault.
    """
    path = config or DEFAULT_CONFIG
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"configuration file {path} does not exist", next_step="name another with --config or CONFIG="
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}", next_step="mend that line") from None
    _refuse_unknown_environment()
    try:
        return _layered(nested(overrides or {}))(**values)
    except ValidationError as error:
        raise ConfigError(
            "\n".join([f"the configuration from {path} and the environment is not valid:", *_explain(error)]),
            next_step="see every key, its bounds and its meaning with `firstword config show`",
        ) from None


def nested(dotted: dict[str, Any]) -> dict[str, Any]:
    """`{"http.port": 1}` as the tree `{"http": {"port": 1}}`."""
    tree: dict[str, Any] = {}
    for key, value in dotted.items():
        *sections, field = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[field] = value
    return tree


def _layered(overrides: dict[str, Any]) -> type[Settings]:
    """`Settings` read from the command line, then the environment, then what it is called with (the file)."""

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return InitSettingsSource(settings_cls, overrides), env_settings, init_settings

    return Layered


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {key}: unknown key{_nearest(problem['loc'])}")
        else:
            lines.append(f"  {key + ': ' if key else ''}{problem['msg'].removeprefix('Value error, ')}")
    return lines


def _nearest(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    close = difflib.get_close_matches(str(location[-1]), list(model.model_fields), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(model.model_fields)}"


def _refuse_unknown_environment() -> None:
    """A misspelt variable would otherwise be ignored in silence."""
    known = {name for name, _ in environment_names()}
    known |= {"FIRSTWORD_API_KEY", "FIRSTWORD_SCREENSHOT"}
    for name in os.environ:
        upper = name.upper()
        if upper.startswith(_ENV_PREFIX) and upper not in known and not upper.startswith(_API_KEYS_VARIABLE):
            close = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(
                f"environment variable {name} names no setting{hint}",
                next_step="unset it, or see the names with `firstword config show`",
            )


def environment_names() -> list[tuple[str, str]]:
    """(environment variable, dotted key) of every setting and section."""
    found: list[tuple[str, str]] = []

    def visit(model: type[BaseModel], path: tuple[str, ...]) -> None:
        for name, field in model.model_fields.items():
            here = (*path, name)
            found.append((_ENV_PREFIX + "__".join(here).upper(), ".".join(here)))
            annotation = field.annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                visit(annotation, here)

    visit(Settings, ())
    return found


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
