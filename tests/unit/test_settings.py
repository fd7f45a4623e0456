from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from server.commands.config import bounds, leaves
from server.errors import ConfigError
from server.settings import PROJECT_ROOT, Settings, environment_names, load_settings


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["default.toml", "gpu.toml"])
def test_shipped_configurations_are_valid(name: str) -> None:
    load_settings(PROJECT_ROOT / "configs" / name)


def test_an_unknown_key_is_fatal_and_the_nearest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.modell: unknown key; did you mean model\?"):
        load_settings(config(tmp_path, '[engine]\nmodell = "x"\n'))


def test_every_wrong_key_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(config(tmp_path, "[http]\nport = 70000\n[engine]\nblock_size = 33\nx = 1\n"))
    assert all(key in raised.value.message for key in ("http.port", "engine.block_size", "engine.x"))


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, "[http]\nport = 1\nheartbeat_s = 7\n")
    monkeypatch.setenv("FIRSTWORD_HTTP__PORT", "2")
    assert load_settings(path).http.port == 2
    settings = load_settings(path, {"http.port": 3})
    assert (settings.http.port, settings.http.heartbeat_s) == (3, 7)


def test_a_misspelt_variable_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTWORD_HTTP__PROT", "2")
    with pytest.raises(
        ConfigError, match="FIRSTWORD_HTTP__PROT names no setting; did you mean FIRSTWORD_HTTP__PORT"
    ):
        load_settings()


def test_a_missing_file_and_broken_toml_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        load_settings(config(tmp_path, "[http\n"))


def test_an_address_that_others_reach_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"auth\.api_keys"):
        load_settings(overrides={"http.host": "0.0.0.0"})
    load_settings(overrides={"http.host": "0.0.0.0", "auth.allow_anonymous": True})
    monkeypatch.setenv("FIRSTWORD_AUTH__API_KEYS", '{"acme": "secret-key"}')
    settings = load_settings(overrides={"http.host": "0.0.0.0"})
    assert "secret-key" not in repr(settings)
    monkeypatch.delenv("FIRSTWORD_AUTH__API_KEYS")
    monkeypatch.setenv("FIRSTWORD_AUTH__API_KEYS__acme", "secret-key")
    assert set(load_settings().auth.api_keys) == {"acme"}


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.http.port = 1


def all_fields(model: type[BaseModel], path: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, field in model.model_fields.items():
        found.append((path + name, field))
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found += all_fields(annotation, f"{path}{name}.")
    return found


def test_every_setting_has_a_docstring() -> None:
    undocumented = [key for key, field in all_fields(Settings) if not field.description]
    assert undocumented == []


def test_every_setting_is_in_the_handbook() -> None:
    page = (PROJECT_ROOT / "docs" / "configuration.md").read_text()
    missing = [key for key, _, _ in leaves(load_settings()) if f"`{key}`" not in page]
    assert missing == []


def test_every_number_has_bounds() -> None:
    numbers = [
        (key, field)
        for key, value, field in leaves(load_settings())
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    assert len(numbers) > 20
    assert [key for key, field in numbers if not bounds(field)] == []


def test_environment_names_are_unique() -> None:
    names = [name for name, _ in environment_names()]
    assert len(names) == len(set(names))
