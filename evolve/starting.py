"""Where a search starts: its task, and the network that becomes candidate 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evolve.seeds import seed_of
from graphs.errors import EvolutionError

if TYPE_CHECKING:
    from evolve.settings import Settings
    from graphs import Genome, Graph
    from runners.task import Task

__all__ = ["StartError", "named_teacher", "network", "starting_network", "starting_task", "told"]

FILE = ".safetensors"
"""By this end of its name a network's file is told from a name of the zoo."""


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


def network(model: str, **settings: Any) -> Genome:
    """The network that a person names: that of a file, the trained one of a candidate, or one of the zoo.

    Args:
        model: Path that ends in `.safetensors`, `RUN:ID`, or a name of the zoo.
        **settings: What `graphs.zoo.create` takes; others have their own.

    Raises:
        EvolutionError: There is no such network, or its file is damaged.
    """
    from evolve.runs import open_run
    from graphs import load, zoo

    folder, _, number = model.rpartition(":")
    if folder and number.isdecimal():
        return open_run(folder).candidate(int(number)).genome()
    return load(model) if model.endswith(FILE) else zoo.create(model, **settings)


def starting_network(settings: Settings, task: Task) -> Genome:
    """The network that becomes candidate 0, knowing the normalisation and the labels of `task`.

    Raises:
        StartError: Its input or its output does not fit the task.
        EvolutionError: There is no such network, or its file is damaged.
    """
    from graphs import parameters

    if settings.model_settings and (settings.model.endswith(FILE) or ":" in settings.model):
        raise StartError(f"model_settings are for networks of the zoo; {settings.model} is none, so leave them out")
    genome = network(
        settings.model,
        classes=task.classes,
        input_shape=task.input_shape,
        seed=seed_of(settings.seed, 0, "start"),
        **settings.model_settings,
    )
    graph = genome.graph
    for what, got, expected in _demands(graph, task):
        if got != expected:
            raise StartError(
                f"model {settings.model} does not fit data set '{task.name}': it has {what} {_sizes(got)}, "
                f"expected {_sizes(expected)}; choose a network made for such images"
            )
    if not parameters(graph):
        raise StartError(f"model {settings.model} has no parameters, so there is nothing to train; choose another one")
    return told(genome, task)


def named_teacher(settings: Settings, task: Task) -> Genome | None:
    """The network that the settings name as the teacher of all candidates; None where candidates teach.

    Raises:
        StartError: It does not fit the task.
        EvolutionError: There is no such network, or its file is damaged.
    """
    from evolve.teachers import is_network
    from evolve.trainings import named_network
    from graphs.errors import ShapeError
    from runners.measuring import check_fit

    if not is_network(settings.teacher):
        return None
    genome = named_network(settings.teacher, task, settings.seed)
    try:
        check_fit(genome.graph, task)
    except ShapeError as error:
        raise StartError(f"teacher {settings.teacher}: {error}") from None
    return genome


def told(genome: Genome, task: Task) -> Genome:
    """The network, knowing the normalisation and the labels of `task`."""
    about = {
        **genome.about,
        "normalisation": {name: list(values) for name, values in task.normalisation.items()},
        "labels": list(task.labels),
    }
    return replace(genome, about=about)


def _demands(graph: Graph, task: Task) -> Iterator[tuple[str, Any, Any]]:
    """What a network has, and what it must have to be trained on `task`."""
    yield "inputs", len(graph.inputs), 1
    yield "outputs", sum(not head.training_only for head in graph.heads), 1
    yield "an input of shape", tuple(graph.inputs[0].settings["shape"]), task.input_shape
    for head in graph.heads:
        yield f"an output '{head.name}' of shape", tuple(graph.shapes[head.node]), (task.classes,)


def _sizes(value: Any) -> str:
    return "×".join(map(str, value)) if isinstance(value, tuple) else str(value)
