"""Several tasks on one body: a head for each label set of the same images, such as CIFAR-100's fine and coarse classes.

This is what people mean by HydraNet today, beside the two that `runners.hydra` speaks of. A head tells apart the
classes of the label set whose name it bears, every other head the task's main classes. Their losses are added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from graphs.genome import Genome
    from runners.feeding import Feed

__all__ = ["LabelSet", "scores", "split_by_labels"]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Classes that the images have beside the main ones.

    Attributes:
        classes: Their number.
        labels: Their names; empty where none are known.
    """

    classes: int
    labels: tuple[str, ...] = ()


def split_by_labels(
    genome: Genome,
    classes: Mapping[str, int],
    point: int | Literal["auto"] = "auto",
    start: str = "fresh",
    seed: int = 0,
) -> Genome:
    """The network with its last units once for each label set; the last layer has as many outputs as that has classes.

    Args:
        genome: A network with one output in eval mode.
        classes: Of each label set, by the name that its head gets; two or more.
        point: Number of units that stay shared.
        start: `fresh` or `copied`, as in `runners.hydra.split`; a last layer of another size is always fresh.
        seed: Of fresh weights.

    Raises:
        GraphError: The network cannot be split there, or the layer that makes the classes would be shared.
    """
    from graphs.draft import Draft
    from graphs.outputs import with_outputs
    from runners.hydra import split

    made = split(genome, len(classes), point, start, seed)
    draft = Draft(made.graph)
    draft.heads = [replace(head, name=name) for head, name in zip(draft.heads, classes, strict=True)]
    return with_outputs(made.changed(draft.finish(), made.weights), classes, seed)


def scores(heads: Mapping[str, Tensor], feed: Feed) -> dict[str, tuple[float, float]]:
    """(accuracy, mean cross-entropy) of each head, by its name, for the labels that are its own.

    Args:
        heads: Logits `(N, classes)` of all examples of `feed`, on the processor.
        feed: The examples.
    """
    from torch.nn import functional

    found = {}
    for name, logits in heads.items():
        labels = feed.labels_of(name).cpu()
        right = (logits.argmax(1) == labels).double().mean().item()
        found[name] = (right, functional.cross_entropy(logits, labels).item())
    return found
