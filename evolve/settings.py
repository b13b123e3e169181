"""All that can be chosen about a search: defaults, a YAML file, and flags that win over it.

The defaults are the demonstration: digits, a Ray on this machine, some minutes. What depends on the machine
(workers, threads, device, precision, paths) may be left open; `resolved` decides it once, at the start, and
the run records the answer, so that it goes on in the same way elsewhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from evolve.naming import FILE, candidate_named
from evolve.odds import ODDS
from evolve.presets import search_preset
from evolve.strategies import STRATEGIES
from evolve.teachers import TEACHERS, is_network
from graphs.errors import UnknownName
from runners.datasets import is_path
from runners.pools import POOLS
from runners.presets import merged, preset
from runners.recipe import Recipe
from runners.settings_errors import CheckedModel, SettingsError
from runners.settings_files import read_yaml

if TYPE_CHECKING:
    from runners.task import Task

__all__ = ["Settings"]


class Settings(CheckedModel):
    """What to search, from where, how, and with what means.

    Attributes:
        data: Name of a data set, or path of an `.npz` file, of one that `Task.save` wrote, or of a folder of images.
        image_size: Height and width to which the images of a folder are brought.
        data_root: Folder in which a named data set is looked for.
        download: Fetch a named data set that is not there.
        limit: Use at most this many training images.
        model: The starting network: a name of the zoo, the path of a `.safetensors` file, `RUN:ID`, or
            `torchvision:NAME`.
        weights: For `torchvision:NAME`: `DEFAULT` for those that it publishes, or path of a `.safetensors` file.
        model_settings: Settings of the zoo's network.
        strategy: Key of `evolve.STRATEGIES`.
        candidates: How many networks to train, the starting one included.
        population: How many may become parents, for strategies that limit it.
        sample: How many meet in a tournament, for strategies that hold one.
        odds: Weight of each mutation operator among those that have a site, or of several in a row, as in
            `deepen+insert_pool`; or the key of a rule of `evolve.odds.ODDS`; None for equal ones.
        steps: How many draws by these odds make one mutation, or the least and the most of them.
        widest: No candidate may have a layer with more channels; None for no limit.
        deepest: No candidate may have more layers in a row; None for no limit.
        growth: No candidate may have more than this many times the parameters or the MACs of the starting network.
        retries: How often a proposal is made again that is too large or was tried before.
        probe: Examples on which a certificate is measured.
        recipe: How each candidate is trained; the name of a recipe, or a mapping, which may name one as its `preset`
            and change it.
        teacher: Whom candidates are distilled from, as `recipe.distill` says: a key of `evolve.teachers.TEACHERS`, the
            path of a `.safetensors` file, or `RUN:ID`.
        ensemble: How many of the population's best the teacher `ensemble` is made of.
        epochs: Epochs of each candidate; None leaves them, or the minutes in place of them, to the recipe.
        order: `arrival` takes outcomes as they come and never waits. `strict` takes them in the order of proposal,
            which makes the lineage depend on nothing but these settings.
        seed: Of everything that is drawn.
        pool: Key of `runners.POOLS`.
        ray: Address of a running Ray cluster; None starts a Ray on this machine.
        workers: How many candidates train at once; None for as many as this machine's cores allow.
        threads: CPU threads of each worker; None for 1.
        gpus_per_worker: GPUs, or the fraction of one, that a Ray worker asks for.
        device: Where workers compute; None for `cuda` where workers ask for GPUs, else `cpu`.
        deadline: Seconds that one training may take; the control at the end gets as many times that as it trains
            longer.
        run: The run's folder; None for `runs/NNNN`, the next free number.

    Raises:
        SettingsError: Something is wrong with the values; the message names every fault in one line.
        UnknownName: There is no such strategy or pool.

    >>> Settings(candidates=3).strategy
    'aging'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
    what: ClassVar[str] = "settings"

    data: str = Field(default="digits", min_length=1)
    image_size: int | None = Field(default=None, ge=1, le=4096)
    data_root: str | None = None
    download: bool = False
    limit: int | None = Field(default=None, ge=1)
    model: str = Field(default="convnet", min_length=1)
    weights: str | None = Field(default=None, min_length=1)
    model_settings: dict[str, Any] = Field(default_factory=dict)
    strategy: str = "aging"
    candidates: int = Field(default=24, ge=1, le=1_000_000)
    population: int = Field(default=8, ge=1)
    sample: int = Field(default=3, ge=1, le=1_000_000)
    odds: dict[str, float] | str | None = None
    steps: int | tuple[int, int] = 1
    widest: int | None = Field(default=None, ge=1)
    deepest: int | None = Field(default=None, ge=1)
    growth: float = Field(default=4.0, ge=1)
    retries: int = Field(default=50, ge=1, le=1_000_000)
    probe: int = Field(default=16, ge=4, le=65_536)
    recipe: Recipe = Field(default_factory=lambda: Recipe.model_validate({}))
    teacher: str = "parent"
    ensemble: int = Field(default=3, ge=2, le=64)
    epochs: int | None = Field(default=None, ge=1, le=100_000)
    order: Literal["strict", "arrival"] = "arrival"
    seed: int = Field(default=0, ge=0, lt=2**63)
    pool: str = "ray"
    ray: str | None = None
    workers: int | None = Field(default=None, ge=1, le=100_000)
    threads: int | None = Field(default=None, ge=1, le=1024)
    gpus_per_worker: float = Field(default=0.0, ge=0, le=64)
    device: str | None = None
    deadline: float = Field(default=3600.0, gt=0, le=1e9)
    run: str | None = None

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise UnknownName.of("strategy", name, STRATEGIES)
        return name

    @field_validator("pool")
    @classmethod
    def _known_pool(cls, name: str) -> str:
        if name not in POOLS:
            raise UnknownName.of("pool", name, POOLS)
        return name

    @field_validator("teacher")
    @classmethod
    def _known_teacher(cls, name: str) -> str:
        if name not in TEACHERS and not is_network(name):
            error = UnknownName.of("teacher", name, TEACHERS)
            raise UnknownName(f"{error}, or the path of a .safetensors file, or RUN:ID")
        return name

    @field_validator("odds")
    @classmethod
    def _sensible_odds(cls, odds: dict[str, float] | str | None) -> dict[str, float] | str | None:
        if isinstance(odds, str):
            if odds not in ODDS:
                raise UnknownName.of("rule of odds", odds, ODDS)
        elif odds is not None and not (
            all(math.isfinite(odd) and odd >= 0 for odd in odds.values()) and any(odds.values())
        ):
            raise ValueError("expected operators with weights from 0 on, one of them above 0")
        return odds

    @field_validator("steps")
    @classmethod
    def _sensible_steps(cls, steps: int | tuple[int, int]) -> int | tuple[int, int]:
        least, most = (steps, steps) if isinstance(steps, int) else steps
        if not 1 <= least <= most <= 100:
            raise ValueError("expected a number from 1 to 100, or two, the smaller one first")
        return steps

    @field_validator("recipe", mode="before")
    @classmethod
    def _named_recipe(cls, given: Any) -> Any:
        if isinstance(given, str):
            return preset(given)
        if isinstance(given, Mapping) and "preset" in given:
            return preset(given["preset"], **{name: value for name, value in given.items() if name != "preset"})
        return given

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str | None) -> str | None:
        kind, _, number = (device or "cpu").partition(":")
        if kind not in {"cpu", "cuda"} or (number and not number.isdecimal()):
            raise ValueError("expected cpu, cuda or cuda:N")
        return device

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if self.order == "strict" and self.recipe.minutes is not None and self.epochs is None:
            raise ValueError(
                "order strict makes the lineage depend on nothing but the settings, recipe.minutes on how fast the "
                "machine is; give epochs, or take order arrival"
            )
        return self

    @classmethod
    def from_yaml(
        cls,
        path: str | os.PathLike[str],
        overrides: Mapping[str, Any] | None = None,
        start: Mapping[str, Any] | None = None,
    ) -> Settings:
        """The settings in a YAML file, which win over `start`, but for `overrides`, which win over both.

        Raises:
            SettingsError: The file cannot be read, is no mapping of keys to values, or holds a wrong value.
        """
        given = read_yaml(path, "settings")
        try:
            return cls(**{**(start or {}), **given, **(overrides or {})})
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from None

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str] | None,
        preset: str | None = None,
        recipe_changes: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Settings:
        """The settings of a preset, a file and `overrides`, each of which wins over those before it.

        Args:
            path: Of the file.
            preset: Name of a search.
            recipe_changes: Settings of the recipe that win, whichever it is.
            **overrides: By name.

        Raises:
            UnknownName: There is no such preset.
            SettingsError: As for `from_yaml`.
        """
        start = {} if preset is None else search_preset(preset)
        if recipe_changes:
            given = {**start, **({} if path is None else read_yaml(path, "settings")), **overrides}.get("recipe") or {}
            named = {"preset": given} if isinstance(given, str) else given
            overrides["recipe"] = merged(named, recipe_changes) if isinstance(named, Mapping) else named
        return cls(**{**start, **overrides}) if path is None else cls.from_yaml(path, overrides, start)

    def located(self) -> Settings:
        """The same with absolute paths of data and networks, so that they hold in another working directory."""
        return self.changed(
            data=_absolute(self.data) if is_path(self.data) else self.data,
            data_root=None if self.data_root is None else _absolute(self.data_root),
            model=_located(self.model),
            weights=_absolute(self.weights) if self.weights and self.weights.endswith(".safetensors") else self.weights,
            teacher=_located(self.teacher),
        )

    def resolved(self, task: Task) -> Settings:
        """The same with nothing left open, for this machine and `task`.

        Raises:
            UnknownName: `odds` names an operator that does not exist.
            SettingsError: A cluster is named for a pool that uses none, or settings and task do not fit.
        """
        from ops.table import check_odds

        if self.pool != "ray" and self.ray is not None:
            raise SettingsError(f"settings: ray={self.ray} is an address for --pool ray, but the pool is '{self.pool}'")
        if self.teacher == "ensemble" and not task.objective.classes:
            raise SettingsError(
                f"settings: teacher=ensemble averages probabilities of classes, and {task.name} is a task of "
                f"{task.objective.name}; choose parent, best or none"
            )
        if self.teacher not in ("parent", "none") and not self.recipe.distill.weight:
            raise SettingsError(
                f"settings: teacher is {self.teacher}, but the recipe's distill.weight is 0, so nothing would be "
                "distilled; set it above 0, or leave the teacher out"
            )
        if isinstance(self.odds, dict):
            check_odds(self.odds)
        threads = self.threads or 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        device = self.device or ("cuda" if self.gpus_per_worker else "cpu")
        given = {} if self.epochs is None else {"epochs": self.epochs, "minutes": None}
        recipe = self.recipe.changed(**given).resolved(task, device)
        return self.located().changed(
            threads=threads,
            workers=self.workers or max(1, cores // threads),
            device=device,
            recipe=recipe,
            epochs=None if recipe.minutes is not None else recipe.epochs,
        )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _located(network: str) -> str:
    """What names a network, a file's or a run's path being absolute."""
    if candidate := candidate_named(network):
        return f"{_absolute(candidate[0])}:{candidate[1]}"
    return _absolute(network) if network.endswith(FILE) else network
