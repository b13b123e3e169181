"""Where a search starts: its task, and the network that becomes candidate 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evolve.naming import FILE, TORCHVISION, candidate_named
from evolve.seeds import seed_of
from graphs.errors import EvolutionError

if TYPE_CHECKING:
    from evolve.settings import Settings
    from graphs import Genome, Graph
    from runners.task import Task

__all__ = [
    "StartError",
    "check_weights",
    "named_network",
    "named_teacher",
    "network",
    "starting_network",
    "starting_task",
    "told",
]


class StartError(EvolutionError, ValueError):
    """Network, data and run do not fit each other."""


def starting_task(
    settings: Settings, recorded: Mapping[str, Any] | None = None, report: Callable[[int, int], None] | None = None
) -> Task:
    """The task of the settings.

    Args:
        settings: What to train on and where it lies.
        recorded: For a run that exists, the task's `spec` at its start.
        report: Called while images are decoded, with how many are done and how many there are.

    Raises:
        StartError: The data is not what the run started with.
        EvolutionError: There is no such data set, or it is not of the expected form.
    """
    from runners.task import Task

    task = Task.named(settings.data, settings.data_root, settings.download, settings.limit, settings.image_size, report)
    if recorded is not None and task.spec["digest"] != recorded["digest"]:
        raise StartError(
            f"data set '{task.name}' is not the one that this run started with: SHA-256 "
            f"{task.spec['digest'][:12]}…, expected {recorded['digest'][:12]}…; "
            "put the earlier files back, or start a new run"
        )
    return task


def network(model: str, weights: str | None = None, **settings: Any) -> Genome:
    """The network that a person names: that of a file, the trained one of a candidate, of the zoo, or of torchvision.

    Args:
        model: Path that ends in `.safetensors`, `RUN:ID`, a name of the zoo, or `torchvision:NAME`.
        weights: For one of torchvision: `DEFAULT` for those that it publishes, or the path of a `.safetensors` file.
        **settings: What `graphs.zoo.create` takes; files and candidates have their own. One of torchvision takes
            `input_shape`, `classes`, for which its last layer is drawn anew where it tells another number apart, and
            `seed`.

    Raises:
        StartError: Weights are named for another network, or the network does not take inputs of the shape.
        EvolutionError: There is no such network, or a file is damaged.
    """
    from evolve.runs import open_run
    from graphs import load, zoo

    if model.startswith(TORCHVISION):
        return _of_torchvision(model, weights, **settings)
    check_weights(model, weights)
    if candidate := candidate_named(model):
        folder, number = candidate
        return open_run(folder).candidate(number).genome()
    return load(model) if model.endswith(FILE) else zoo.create(model, **settings)


def is_fresh(model: str, weights: str | None = None) -> bool:
    """Whether the network that a person names has weights that nobody has trained."""
    return weights is None and not model.endswith(FILE) and (model.startswith(TORCHVISION) or ":" not in model)


def check_weights(model: str, weights: str | None) -> None:
    """Raises `StartError` where weights are named for a network that has its own."""
    if weights is not None:
        raise StartError(f"weights are for {TORCHVISION}NAME, and {model} has its own; leave --weights out")


def _of_torchvision(
    model: str,
    weights: str | None,
    classes: int | None = None,
    input_shape: tuple[int, ...] = (3, 224, 224),
    seed: int = 0,
) -> Genome:
    from evolve.importing import example, module_named
    from graphs import from_torch
    from graphs.errors import GraphError
    from graphs.outputs import with_outputs

    module = module_named(model, weights, seed)
    try:
        genome = from_torch(module, example([",".join(map(str, input_shape))], seed))
        return genome if classes is None else with_outputs(genome, classes, seed)
    except GraphError as error:
        raise StartError(
            f"{model} does not fit inputs of {_sizes(tuple(input_shape))} (such networks read 3×224×224; images of a "
            f"folder come in any size by --image-size N): {error}"
        ) from None


def starting_network(settings: Settings, task: Task) -> Genome:
    """The network that becomes candidate 0, knowing the normalisation and the labels of `task`.

    Raises:
        StartError: Its input or its output does not fit the task.
        EvolutionError: There is no such network, or its file is damaged.
    """
    from graphs import parameters
    from graphs.errors import ShapeError
    from runners.measuring import check_fit

    if settings.model_settings and (settings.model.endswith(FILE) or ":" in settings.model):
        raise StartError(f"model_settings are for networks of the zoo, and {settings.model} is none; leave them out")
    genome = network(
        settings.model,
        settings.weights,
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
    try:
        check_fit(graph, task)
    except ShapeError as error:
        raise StartError(f"model {settings.model}: {error}") from None
    if not parameters(graph):
        raise StartError(f"model {settings.model} has no parameters, so there is nothing to train; choose another one")
    hydra = settings.recipe.hydra
    if hydra is not None:
        # Heads are part of a candidate's structure, so that they are mutated and inherited like the rest of it.
        genome = hydra.heads_of(genome, task, seed_of(settings.seed, 0, "heads"))
    return told(genome, task)


def named_teacher(settings: Settings, task: Task) -> Genome | None:
    """The network that the settings name as the teacher of all candidates; None where candidates teach.

    Raises:
        StartError: It does not fit the task.
        EvolutionError: There is no such network, or its file is damaged.
    """
    from evolve.teachers import is_network
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


def named_network(name: str, task: Task, seed: int, scratch: bool = False, weights: str | None = None) -> Genome:
    """The network that a person names: of the zoo or of torchvision, made for the task, of a file, or `RUN:ID`.

    Args:
        name: What the person has typed.
        task: For whose images and classes a network of the zoo is made.
        seed: Of fresh weights.
        scratch: Whether a network that has weights gets fresh ones.
        weights: See `network`.

    Raises:
        EvolutionError: There is no such network.
    """
    from graphs.initial import fresh_weights

    found = network(name, weights, classes=task.classes, input_shape=task.input_shape, seed=seed)
    if scratch:
        found = replace(found, weights=fresh_weights(found, seed))
    return told(found, task)


def told(genome: Genome, task: Task) -> Genome:
    """The network, knowing the normalisation and the labels of `task`."""
    about = {
        **genome.about,
        "normalisation": {name: list(values) for name, values in task.normalisation.items()} or None,
        "labels": list(task.labels),
    }
    return replace(genome, about=about)


def _demands(graph: Graph, task: Task) -> Iterator[tuple[str, Any, Any]]:
    """What a network has, and what it must have to be trained on `task`."""
    yield "inputs", len(graph.inputs), 1
    yield "outputs", len(graph.lasting_heads), 1
    yield "an input of shape", tuple(graph.inputs[0].settings["shape"]), task.input_shape
    for head in graph.heads:
        yield f"an output '{head.name}' of shape", tuple(graph.shapes[head.node]), (task.classes,)


def _sizes(value: Any) -> str:
    return "×".join(map(str, value)) if isinstance(value, tuple) else str(value)
