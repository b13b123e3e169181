"""Certificates: proof by measurement that a child computes what its parent did.

Both are run in float64, with the weights cast up, so that rounding cannot excuse a fault; in eval mode and in train
mode apart. All figures are in **units**: for each output, the root mean square of its elements' standard deviations
over the probe.

- error: the largest difference of an output (in train mode also of a running statistic) of the child from the parent's;
- floor: the same for the parent against itself, when each activation that the changed nodes read is multiplied, for
  them alone, by 1 ± 2^-52: what rounding alone can do;
- tolerance: the larger of 1e-12 and 20 floors;
- power: for each activation that a changed node reads, by itself, what 1 ± .01 in its place does to the outputs, as the
  root mean square over them (`ops.sensitivity`); the least of these. What leads to no output in a mode does not count
  there, nor what is read by a node that is gone with its tensors, nor, on stirred weights, what could be anything.

Outputs that are no floating-point tensors have no unit: they must be equal, and show nothing. All of this runs on the
CPU in float64, which no setting of a GPU has a say in, such as TF32, and leaves the caller's settings and generators as
they are.

A measurement proves nothing if its power is below a million tolerances, if it copies a channel which is zero on the
whole probe, or if a tensor that is made from one of the parent's holds numbers for such a channel, or for one that
moves no output (`ops.visibility`): it is **blind**, the parent is stirred (`ops.stirring`), the record replayed on it,
and that is certified; the child itself must then be, bit for bit, what the record leads to. What a transfer does not
speak of must be the parent's in any case. A promise that rests on
zeros or copies among the weights names them (`Build.ground`): the stirred parent is brought back onto this ground, and
the parent itself must stand on it.

A mutation that computes numbers from the parent's weights, such as means of them, has to round these to the weights'
type, which float64 would show. Then too the record is what is certified: it is replayed on the parent's weights in
float64, and the child must be, bit for bit, what it leads to in the weights' own type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError, NotComputed
from graphs.genome import Genome
from graphs.kinds.joins import whole_numbers
from graphs.structure import Node
from ops.comparison import Comparison, Measures
from ops.errors import BrokenPromise, ReplayError
from ops.examples import fitting
from ops.mutation import COUNT, Child, counts
from ops.probe import Probe, cast_up, precise
from ops.stirring import stir
from ops.table import replay_child

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["VERDICTS", "Certificate", "Mode", "certify"]

VERDICTS = ("pass", "broken", "blind", "unreached", "approximate")

_LEAST_TOLERANCE = 1e-12
_FLOORS = 20
_POWER = 1e6
_FEWEST, _MOST, _PLENTY, _ROOM = 4, 64, 2**16, 2**29
"""How many examples are drawn at least and at most; activations that cost nothing; and how many there is room for,
which a pass backwards keeps in float64, and once more in what is computed between them."""

_WIDE, _LESS_WIDE = 8.0, 3.0
"""How much wider every fourth example is, and how much in every second turn on stirred weights, where the cube of an
input would else drown all that is beside it."""

_TURNS, _MANY, _SETTLED = 8, 32, 4
"""How often stirred weights are measured before they are said to show nothing; with how many examples after once; after
how many turns an element of an output that has been the same for all examples is taken for a constant."""


@dataclass(frozen=True, slots=True)
class Mode:
    """What was measured in one mode, in units, and what follows.

    Attributes:
        verdict: `pass`; `broken`: a promise is not kept; `approximate`: nothing was promised in this mode; `unreached`:
            the change leads to no output in this mode; `blind`: the measurement proves nothing.
    """

    error: float
    floor: float
    tolerance: float
    power: float
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """All of it; a figure that is not finite is null."""
        found: dict[str, Any] = {name: getattr(self, name) for name in ("error", "floor", "tolerance", "power")}
        return {name: value if math.isfinite(value) else None for name, value in found.items()} | {
            "verdict": self.verdict
        }


@dataclass(frozen=True, slots=True)
class Certificate:
    """The measurement of one child against its parent, in both modes.

    Attributes:
        dtype: In what it was measured.
        batch: Number of examples in the probe. Stirred weights that show nothing on it are measured on others, too.
        source: `data` if the probe was given, `random` if it was drawn.
        seed: Of the probe's numbers, of the perturbations and of nodes that draw.
        stirred: It was taken on stirred weights, because the real ones hid something.
    """

    dtype: str
    batch: int
    source: str
    seed: int
    stirred: bool
    eval: Mode
    train: Mode

    @property
    def broken(self) -> bool:
        """Whether a promise is not kept."""
        return "broken" in (self.eval.verdict, self.train.verdict)

    @property
    def probe(self) -> dict[str, Any]:
        """Batch size, source and seed of the probe."""
        return {"batch": self.batch, "source": self.source, "seed": self.seed}

    def require(self) -> Certificate:
        """This certificate, if no promise is broken and none is unproven.

        Raises:
            BrokenPromise: The child does not compute what was promised, or that could not be shown.
        """
        for name, mode in (("eval", self.eval), ("train", self.train)):
            if mode.verdict in ("broken", "blind"):
                raise BrokenPromise(
                    f"in {name} mode the child is {mode.verdict}: it differs by {mode.error:.2e} units, where "
                    f"{mode.tolerance:.2e} are allowed; the measurement could see {mode.power:.2e}"
                )
        return self

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON types."""
        return {
            "dtype": self.dtype,
            "probe": self.probe,
            "stirred": self.stirred,
            "eval": self.eval.to_json(),
            "train": self.train.to_json(),
        }


def certify(
    parent: Genome, child: Child, probe: Tensor | Mapping[str, Tensor] | None = None, seed: int = 0
) -> Certificate:
    """Measures whether a child keeps what its site promised. Leaves both as they are, buffers too.

    Args:
        parent: What the child was made from.
        child: What a mutation made.
        probe: At least 4 examples (N, *shape), or such a tensor for each input by its name; drawn if None. A fault
            that none of the examples shows is not found, so where they are few and have no places, draw.
        seed: Of a drawn probe, of the perturbations, and of nodes that draw random numbers.

    Raises:
        GraphError: The probe has fewer than 4 examples, or does not fit the network's inputs; or the seed is no whole
            number from 0 on.
        ReplayError: The child was made from a network of another structure.
    """
    import torch

    if not counts(seed):
        raise GraphError(f"the certificate's seed is {seed!r}; expected {COUNT}")
    if parent.graph != child.parent.graph:
        raise ReplayError("the child was made from a network of another structure; give its own parent")

    # Tensors made in the caller's inference mode would have no derivatives.
    with torch.inference_mode(False):
        return _certify(parent, child, _inputs(parent, probe, seed), "random" if probe is None else "data", seed)


def _certify(parent: Genome, child: Child, inputs: dict[str, Tensor], source: str, seed: int) -> Certificate:
    examples, batch = Probe(inputs, seed), min(len(tensor) for tensor in inputs.values())
    promised = {"eval": child.preserves != "approximate", "train": child.preserves == "exact"}
    rounds = child.transfer.rounds
    modes = _measure(*(_unrounded(parent, child) if rounds else (parent, child)), examples, promised, 0)
    stirred = any(mode.verdict == "blind" for mode in modes.values())
    again = replay_child(parent, child.record, child.tensors) if stirred or rounds else child
    if stirred:
        for turn in range(_TURNS):
            # What draws may have dropped all that there was to see, or few examples have missed it.
            wide = _LESS_WIDE if turn % 2 else _WIDE
            inputs = inputs if turn == 0 else _inputs(parent, None, seed + turn, _MANY, wide)
            try:
                bold = _bold(parent, again, inputs, seed + turn, wild=turn > 0)
                stout = replay_child(bold, child.record, child.tensors)
                modes = _measure(bold, stout, Probe(inputs, seed + turn), promised, 1 + turn)
            except NotComputed:  # not every network computes on all weights, as one whose values are indices
                continue
            if "blind" not in (mode.verdict for mode in modes.values()):
                break
    if stirred or rounds:
        # That proves the record for weights on its ground; there must the parent be, and the child what it leads to.
        if not (_same(_grounded(parent, again), parent) and _same(again.genome, child.genome)):
            modes = {name: _broken(mode) for name, mode in modes.items()}
    elif not _untouched(parent, child):
        modes = {name: _broken(mode) if promised[name] else mode for name, mode in modes.items()}
    return Certificate("float64", batch, source, seed, stirred, modes["eval"], modes["train"])


def _inputs(
    parent: Genome, probe: Tensor | Mapping[str, Tensor] | None, seed: int, least: int = 8, wide: float = _WIDE
) -> dict[str, Tensor]:
    """The probe by argument name, in float64.

    As many examples are drawn as hold `_PLENTY` activations, so that a layer without places sees each pair of a channel
    that it reads and one that it makes alive at once; at least `least` if there is room for them, and at most 64.
    """
    import torch

    nodes = parent.graph.inputs
    if probe is None:
        generator = torch.Generator().manual_seed(seed)
        activations = sum(map(prod, parent.graph.shapes.values()))
        batch = max(_FEWEST, min(_ROOM // activations, max(least, min(_MOST, _PLENTY // activations))))
        return {node.settings["name"]: _drawn(node, generator, batch, wide) for node in nodes}
    given = dict(probe) if isinstance(probe, Mapping) else {nodes[0].settings["name"]: probe}
    return {node.settings["name"]: precise(fitting("probe", node, given, _FEWEST)) for node in nodes}


def _drawn(node: Node, generator: Generator, batch: int, wide: float) -> Tensor:
    """Examples for an input: numbers of a normal distribution, every fourth example of one `wide` times as wide.

    What differs far from zero only, such as ReLU and ReLU6, would not be seen in the bulk.
    """
    import torch

    shape = (batch, *node.settings["shape"])
    if node.settings["dtype"] == "float":
        found = torch.randn(shape, generator=generator, dtype=torch.float64)
        found[3::4] *= wide
        return found
    if node.settings["dtype"] == "boolean":
        return torch.randint(0, 2, shape, generator=generator).bool()
    return whole_numbers(node.settings, batch, generator)


def _unrounded(parent: Genome, child: Child) -> tuple[Genome, Child]:
    """The parent in float64, and what the child's record makes of it there."""
    exact = Genome(parent.graph, cast_up(parent), parent.about)
    return exact, replay_child(exact, child.record, child.tensors)


def _bold(parent: Genome, child: Child, inputs: Mapping[str, Tensor], seed: int, wild: bool) -> Genome:
    """The parent's graph with weights that hide nothing but what the promise of its child rests on."""
    stirred = stir(parent, inputs, seed, wild=wild)
    if not child.ground.plans:
        return stirred
    # What is closed or alike now, what is behind it was not shaped for.
    return _grounded(stir(_grounded(stirred, child), inputs, seed, child.ground.plans.keys(), wild), child)


def _grounded(parent: Genome, child: Child) -> Genome:
    """The parent's graph with weights for which the promise of its child was made."""
    if not child.ground.plans:
        return parent
    return parent.changed(parent.graph, child.ground.apply(parent.weights, parent.graph, 0, {}))


def _broken(mode: Mode) -> Mode:
    return replace(mode, error=math.inf, verdict="broken")


def _untouched(parent: Genome, child: Child) -> bool:
    """Whether what the transfer does not speak of is the parent's, bit for bit, however little of it shows."""
    mine = child.genome.weights
    kept = mine.keys() & parent.weights.keys() - child.transfer.plans.keys()
    return all(_equal(mine[name], parent.weights[name]) for name in kept)


def _same(one: Genome, other: Genome) -> bool:
    """Whether two genomes have the same graph and the same tensors, bit for bit."""
    return one.graph == other.graph and all(_equal(tensor, other.weights[name]) for name, tensor in one.weights.items())


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, or NaN at the same places."""
    if one is other:
        return True
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


def _measure(parent: Genome, child: Child, probe: Probe, promised: Mapping[str, bool], stirred: int) -> dict[str, Mode]:
    """Both modes; or up to the first that is blind, where there is another turn on weights that are `stirred`."""
    comparison = Comparison(parent, child, probe, stirred > 0, stirred > _SETTLED)
    found: dict[str, Mode] = {}
    for name, expected in promised.items():
        # What stirred weights don't show on many examples is hidden by the structure.
        measures = comparison.measure(training=name == "train", strict=expected and stirred < 2)
        found[name] = _judge(measures, expected)
        if found[name].verdict == "blind" and stirred < _TURNS:
            break
    return found


def _judge(found: Measures, promised: bool) -> Mode:
    tolerance = max(_LEAST_TOLERANCE, _FLOORS * found.floor)
    if not found.reached:
        verdict = "unreached"
    elif not promised:
        verdict = "approximate"
    elif found.hidden or not found.power >= _POWER * tolerance:
        verdict = "blind"
    else:
        verdict = "pass" if found.error <= tolerance else "broken"
    return Mode(found.error, found.floor, tolerance, found.power, verdict)
