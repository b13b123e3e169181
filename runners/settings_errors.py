"""Settings whose faults are one line for a person: `CheckedModel`, the base of settings models, and `SettingsError`.

pydantic finds the faults; here its report of several lines becomes the one line that this project promises for a user's
input: which settings, which field, what was given and what is expected. A key that no field bears names the nearest one
that exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from graphs.errors import EvolutionError, UnknownName

__all__ = ["CheckedModel", "SettingsError", "settings_error"]

SHOWN = 60
"""A given value is shown up to this many characters."""


class SettingsError(EvolutionError, ValueError):
    """A setting is unknown, of the wrong type or out of range; the message names it and what is expected."""


def settings_error(error: ValidationError, model: type[BaseModel], what: str) -> SettingsError:
    """Puts all that pydantic found wrong with the settings `what` into one line.

    Args:
        error: pydantic's report.
        model: The model that was being filled; its field names are the known keys.
        what: Name of the settings for the message, such as `recipe` or the path of a file.
    """
    return SettingsError(f"{what}: " + "; ".join(_fault(fault, model, what) for fault in error.errors()))


def _fault(fault: Any, model: type[BaseModel], what: str) -> str:
    """One entry of pydantic's list of faults, in words."""
    inner = fault.get("ctx", {}).get("error")
    if isinstance(inner, SettingsError):
        return str(inner).removeprefix(f"{what}: ")
    path = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        known = model.model_fields if len(path) == 1 else ()
        return str(UnknownName.of("setting", ".".join(path), known)).removesuffix(" Known: ")
    got = " ".join(repr(fault["input"]).split())
    got = got if len(got) <= SHOWN else f"{got[:SHOWN]}…"
    if fault["type"] == "missing":
        return f"{'.'.join(path)} is missing"
    if inner is not None:
        expected = str(inner)
    else:
        expected = fault["msg"].replace("Input should", "should")
    if not path and inner is not None:
        return expected
    return f"{'.'.join(path) or 'the settings'} is {got}, {expected}"


class CheckedModel(BaseModel):
    """Frozen settings without unknown keys, NaN or infinity, made as `Model(key=value, …)`.

    A subclass says in `what` how messages call it.

    Raises:
        SettingsError: Anything is wrong with the values given; the message names every fault in one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    what: ClassVar[str] = "settings"

    if not TYPE_CHECKING:  # type checkers see the constructor that the fields imply

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise settings_error(error, type(self), self.what) from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses `epochs: yes`, which pydantic takes for 1."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and annotation in (int, float, int | None, float | None):
            raise ValueError("should be a number")
        return value

    def changed(self, **updates: Any) -> Self:
        """The same settings but for `updates`, checked like the first ones (`model_copy` does not check).

        Raises:
            SettingsError: An update is unknown or out of range.
        """
        return type(self)(**(self.model_dump() | updates))
