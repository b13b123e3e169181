"""Where a search starts: its task, and the network that becomes candidate 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evolve.seeds import seed_of
from graphs.errors import EvolutionError

if TYPE_CHECKING:
    from evolve.settings import Settings
    from graphs import Genome
    from runners.task import Task

__all__ = ["StartError", "starting_network", "starting_task"]


class StartError(EvolutionError, ValueError):
    """Network, data and run do not fit each other."""


def starting_task(settings: Settings, recorded: Mapping[str, Any] | None = None) -> Task:
    """The task of the settings.

    Args:
        settings: What to train on and where it lies.
        recorded: For a run that exists, the task's `spec` at its start.

    Raises:
        StartError: The data is not what the run started with.
        EvolutionError: There is no such data set, or it is not of the expected form.
    """
    from runners.task import Task

    task = Task.named(settings.data, settings.data_root, settings.download, settings.limit)
    if recorded is not None and task.spec["digest"] != recorded["digest"]:
        raise StartError(
            f"data set '{task.name}' is not the one that this run started with: SHA-256 "
            f"{task.spec['digest'][:12]}…, expected {recorded['digest'][:12]}…; "
            "put the earlier files back, or start a new run"
        )
    return task


def starting_network(settings: Settings, task: Task) -> Genome:
    """The network that becomes candidate 0, knowing the normalisation and the labels of `task`.

    Raises:
        StartError: Its input or its output does not fit the task.
        EvolutionError: There is no such network, or its file is damaged.
    """
    from graphs import load, parameters, zoo

    if settings.model.endswith(".safetensors"):
        if settings.model_settings:
            raise StartError(
                f"model_settings are for networks of the zoo; {settings.model} is a file, so leave them out"
            )
        genome = load(settings.model)
    else:
        genome = zoo.create(
            settings.model,
            classes=task.classes,
            input_shape=task.input_shape,
            seed=seed_of(settings.seed, 0, "start"),
            **settings.model_settings,
        )
    graph = genome.graph
    heads = [head for head in graph.heads if not head.training_only]
    for what, got, expected in (
        ("inputs", len(graph.inputs), 1),
        ("heads", len(heads), 1),
        ("an input of shape", tuple(graph.inputs[0].settings["shape"]), task.input_shape),
        ("an output of shape", tuple(graph.shapes[heads[0].node]), (task.classes,)),
    ):
        if got != expected:
            raise StartError(
                f"model {settings.model} does not fit data set '{task.name}': it has {what} {_sizes(got)}, "
                f"expected {_sizes(expected)}; choose a network made for such images"
            )
    if not parameters(graph):
        raise StartError(f"model {settings.model} has no parameters, so there is nothing to train; choose another one")
    about = {
        **genome.about,
        "normalisation": {name: list(values) for name, values in task.normalisation.items()},
        "labels": list(task.labels),
    }
    return replace(genome, about=about)


def _sizes(value: Any) -> str:
    return "×".join(map(str, value)) if isinstance(value, tuple) else str(value)
