"""Settings whose faults are one line for a person: `CheckedModel`, the base of settings models, and `SettingsError`.

pydantic finds the faults; here its report of several lines becomes the one line that this project promises for a user's
input: which settings, which field, what was given and what is expected. A key that no field bears names the nearest one
that exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Self, Union, get_args, get_origin

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
    return SettingsError(f"{what}: " + "; ".join(_fault(fault, model, what) for fault in _by_field(error, model)))


def _by_field(error: ValidationError, model: type[BaseModel]) -> Iterator[Any]:
    """The faults found; what each member of a union says of the same value, under a name of its own, is one."""
    for path, group in groupby(error.errors(), lambda fault: fault["loc"][:1]):
        faults: list[Any] = list(group)
        alone = not path or len(_members(model, str(path[0]))) < 2 or any(len(fault["loc"]) < 2 for fault in faults)
        deeper = [{**fault, "loc": (*path, *fault["loc"][2:])} for fault in faults if len(fault["loc"]) > 2]
        if alone or deeper:  # of the members, one that the value is like says what is wrong inside of it
            yield from faults if alone else deeper
            continue
        expected = dict.fromkeys(_expected(fault) for fault in faults)
        yield {**faults[0], "loc": path, "msg": f"Input should be {' or '.join(expected)}"}


def _members(model: type[BaseModel], field: str) -> tuple[Any, ...]:
    """The types of a field of which a value may be, but for None."""
    annotation = model.model_fields[field].annotation if field in model.model_fields else None
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(member for member in members if member is not type(None))


def _expected(fault: Any) -> str:
    """What one member of a union takes, without why the value is none of it."""
    text = str(fault["msg"]).removeprefix("Input should be ")
    return text.partition(",")[0] if fault["type"].endswith(("_parsing", "_from_float")) else text


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
        members = _members(cls, info.field_name or "")
        if isinstance(value, bool) and bool not in members and not {int, float}.isdisjoint(members):
            raise ValueError("should be a number")
        return value

    def changed(self, **updates: Any) -> Self:
        """The same settings but for `updates`, checked like the first ones (`model_copy` does not check).

        Raises:
            SettingsError: An update is unknown or out of range.
        """
        return type(self)(**(self.model_dump() | updates))
