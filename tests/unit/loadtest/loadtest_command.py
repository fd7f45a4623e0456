"""`firstword bench` in the test's own process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from loadtest.cli import app


def bench(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result
