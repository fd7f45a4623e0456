"""What every section of the settings is: frozen, without unknown keys, told by its docstrings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

STARTER = "starter"
"""As a model's name: the small model that `firstword models prepare` makes ready."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
