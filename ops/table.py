"""The table of all mutations, picking one of them, and replaying one from its record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from graphs.errors import EvolutionError, GraphError, UnknownName
from graphs.genome import Genome
from graphs.structure import Graph
from ops.add_heads import ADD_HEADS
from ops.add_skip import ADD_SKIP
from ops.blend_activation import BLEND_ACTIVATION
from ops.branch import BRANCH
from ops.chaining import Step, chain_mutation, draw_chain, joined, promised
from ops.copy_block import COPY_BLOCK
from ops.deepen import DEEPEN
from ops.drop_heads import DROP_HEADS
from ops.errors import BadChoice, NoSite, ReplayError
from ops.grow_kernel import GROW_KERNEL
from ops.insert_block import INSERT_BLOCK
from ops.insert_dropout import INSERT_DROPOUT
from ops.insert_pool import INSERT_POOL
from ops.insert_se import INSERT_SE
from ops.insert_transformer_layer import INSERT_TRANSFORMER_LAYER
from ops.merge_twins import MERGE_TWINS
from ops.mutation import Child, Mutation, Record, Work, birth, check_draws
from ops.narrow import NARROW
from ops.narrow_all import NARROW_ALL
from ops.regroup import DENSE_TO_GROUP, GROUP_TO_DENSE
from ops.remove_block import REMOVE_BLOCK
from ops.remove_branch import REMOVE_BRANCH
from ops.remove_head import REMOVE_HEAD
from ops.remove_skip import REMOVE_SKIP
from ops.replicate_branch import REPLICATE_BRANCH
from ops.separate import DENSE_TO_SEPARABLE
from ops.shrink_kernel import SHRINK_KERNEL
from ops.skip import SKIP
from ops.split_branch import SPLIT_BRANCH
from ops.split_head import SPLIT_HEAD
from ops.split_outputs import SPLIT_OUTPUTS
from ops.widen import WIDEN
from ops.widen_gradmax import WIDEN_GRADMAX
from ops.widen_keys import WIDEN_KEYS
from ops.widen_stream import WIDEN_STREAM
from ops.widen_zero import WIDEN_ZERO

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

    from ops.examples import Batch

__all__ = ["CHAIN", "MUTATIONS", "Odds", "chain", "check_odds", "propose", "replay", "replay_child"]

MUTATIONS: dict[str, Mutation] = {
    mutation.name: mutation
    for mutation in (
        WIDEN,
        DEEPEN,
        INSERT_BLOCK,
        BRANCH,
        SKIP,
        GROW_KERNEL,
        SPLIT_HEAD,
        SPLIT_OUTPUTS,
        INSERT_SE,
        BLEND_ACTIVATION,
        GROUP_TO_DENSE,
        DENSE_TO_GROUP,
        DENSE_TO_SEPARABLE,
        SPLIT_BRANCH,
        INSERT_DROPOUT,
        ADD_SKIP,
        REPLICATE_BRANCH,
        INSERT_POOL,
        COPY_BLOCK,
        NARROW,
        NARROW_ALL,
        REMOVE_BLOCK,
        WIDEN_ZERO,
        WIDEN_GRADMAX,
        MERGE_TWINS,
        SHRINK_KERNEL,
        REMOVE_BRANCH,
        REMOVE_SKIP,
        REMOVE_HEAD,
        WIDEN_KEYS,
        ADD_HEADS,
        DROP_HEADS,
        INSERT_TRANSFORMER_LAYER,
        WIDEN_STREAM,
    )
}
"""All operators, by name."""

CHAIN = chain_mutation(MUTATIONS)
"""Several of them as one. No operator of its own: it has no sites, `chain` makes its children."""


def chain(
    genome: Genome,
    steps: Iterable[Step],
    rng: numpy.random.Generator,
    batch: Batch | None = None,
    born: int | None = None,
) -> Child:
    """Several mutations as one, with one record, one transfer and one certificate.

        >>> import numpy, graphs, ops
        >>> parent = graphs.zoo.create("convnet", classes=10, input_shape=(1, 8, 8))
        >>> child = ops.chain(parent, ["widen", "widen", "deepen"], numpy.random.default_rng(0))
        >>> child.record.operator, child.genome.graph == ops.replay(parent, child.record).graph
        ('chain', True)

    Args:
        genome: The parent.
        steps: Names of operators, or pairs of a name and a place (or a site, or None for any). Each finds its sites in
            the network that the one before it leaves.
        rng: Draws sites, choices and seeds.
        batch: See `Mutation.apply`.
        born: See `Mutation.apply`.

    Raises:
        UnknownName: A step names an operator that does not exist.
        NoSite: A step has no site, or not the one that it asks for; the message says which step.
    """
    return draw_chain(CHAIN, MUTATIONS, genome, steps, rng, batch, born)


Odds = Mapping[str, float] | Callable[[Graph], Mapping[str, float]]
"""Relative odds by operator, or by operators in a row as in `deepen+insert_pool`; or what gives them for a network."""


def propose(
    genome: Genome,
    rng: numpy.random.Generator,
    odds: Odds | None = None,
    batch: Batch | None = None,
    born: int | None = None,
    steps: int = 1,
) -> Child:
    """A child by a random operator at a random site, or by several in a row, as one.

        >>> import numpy, graphs, ops
        >>> parent = graphs.zoo.create("convnet", classes=10, input_shape=(3, 8, 8))
        >>> child = ops.propose(parent, numpy.random.default_rng(0), {"deepen+insert_pool": 1.0})
        >>> [step["operator"] for step in child.record.site["steps"]], child.preserves
        (['deepen', 'insert_pool'], 'approximate')

    Args:
        genome: The parent.
        rng: Draws operator, site and choices.
        odds: Relative odds by operator; those left out are not used, and all are alike if None. In `one+other`, the
            second one is applied at what the first has made. A function is asked anew for each step.
        batch: See `Mutation.apply`.
        born: See `Mutation.apply`.
        steps: How many draws are made, each in the network that the one before leaves.

    Raises:
        GraphError: An argument is of another type, or out of range.
        NoSite: No operator that has odds has a site in this network, or in that of a later step.
        UnknownName: `odds` names an operator that does not exist.
        BadChoice: A weight is not a number from 0.
    """
    check_draws(rng)
    if type(steps) is not int or steps < 1:
        raise GraphError(f"steps is {steps!r}; expected a whole number from 1 on")
    now, parts, born = genome, list[Child](), birth(genome, born)
    for _ in range(steps):
        weights = odds(now.graph) if callable(odds) else odds
        parts += _drawn(now, rng, dict.fromkeys(MUTATIONS, 1.0) if weights is None else weights, batch, born)
        now = parts[-1].genome
    return parts[0] if len(parts) == 1 else joined(CHAIN, parts, batch)


def check_odds(odds: Mapping[str, float]) -> None:
    """Passes where each key of odds is an operator, or several with `+` between them, and each weight a number.

    Raises:
        UnknownName: A key names an operator that does not exist.
        BadChoice: A weight is none.
    """
    for key, weight in odds.items():
        for name in key.split("+"):
            if name not in MUTATIONS:
                raise UnknownName.of("operator", name, MUTATIONS)
        if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise BadChoice(f"odds: the weight of '{key}' is {weight!r}; expected a number from 0")


def _drawn(
    genome: Genome, rng: numpy.random.Generator, odds: Mapping[str, float], batch: Batch | None, born: int
) -> list[Child]:
    """The children, each the parent of the next, of one draw among `odds`."""
    check_odds(odds)
    keys = [*MUTATIONS, *(key for key in odds if "+" in key)]
    left = {key: odds[key] for key in keys if odds.get(key, 0) > 0}
    while left:
        key = _pick(left, rng)
        parts = _applied(genome, key.split("+"), rng, batch, born)
        if parts:
            return parts
        del left[key]
    raise NoSite(f"none of the operators {', '.join(sorted(odds))} can be applied to this network")


def _applied(
    genome: Genome, names: list[str], rng: numpy.random.Generator, batch: Batch | None, born: int
) -> list[Child]:
    """Operators in a row, each but the first at nodes that are new; nothing where one of them has no site."""
    now, parts = genome, list[Child]()
    for name in names:
        sites = MUTATIONS[name].sites(now)
        if parts:
            new = now.graph.nodes.keys() - genome.graph.nodes.keys()
            sites = [site for site in sites if not new.isdisjoint(map(str, site.place.values()))]
        if not sites:
            return []
        parts.append(MUTATIONS[name].apply(now, sites[int(rng.integers(len(sites)))], rng, batch, born))
        now = parts[-1].genome
    return parts


def _pick(odds: Mapping[str, float], rng: numpy.random.Generator) -> str:
    point = float(rng.random()) * sum(odds.values())
    for name, weight in odds.items():
        point -= weight
        if point < 0:
            return name
    return name


def replay_child(genome: Genome, record: Record, tensors: Mapping[str, Tensor] | None = None) -> Child:
    """As `replay`, with the record and the transfer."""
    known = {**MUTATIONS, CHAIN.name: CHAIN}
    if record.operator not in known:
        raise UnknownName.of("operator", record.operator, known)
    if genome.graph.fingerprint != record.parent:
        raise ReplayError(
            f"this record of '{record.operator}' starts from the structure {record.parent[:12]}, "
            f"but the given network is {genome.graph.fingerprint[:12]}; replay it on its own parent"
        )
    try:
        child = known[record.operator].make(_work(genome, record, tensors), record.preserves)
    except EvolutionError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ReplayError(f"the record of '{record.operator}' does not fit this network: {error!r}") from error
    if child.record.child != record.child:
        raise ReplayError(
            f"the record of '{record.operator}' names the child {record.child[:12]}, "
            f"but leads to {child.record.child[:12]}; it was changed, or made by another version"
        )
    return child


def _work(genome: Genome, record: Record, tensors: Mapping[str, Tensor] | None) -> Work:
    return Work(genome, record.site, record.choices, record.seed, record.born, None, tensors or {})


def replay(genome: Genome, record: Record, tensors: Mapping[str, Tensor] | None = None) -> Genome:
    """The child that a record leads to from its parent, bit for bit.

    Args:
        genome: The parent.
        record: What `Mutation.apply` wrote down.
        tensors: `Child.tensors` of then, where there were any.

    Raises:
        ReplayError: The record does not belong to this parent, leads elsewhere, or promises what its site does not.
    """
    child = replay_child(genome, record, tensors)
    try:
        found = (
            promised(MUTATIONS, _work(genome, record, tensors))
            if record.operator == CHAIN.name
            else MUTATIONS[record.operator].promise(genome, record.site)
        )
    except NoSite as error:
        raise ReplayError(f"{error}; the record was changed, or made by another version") from error
    if found != record.preserves:
        raise ReplayError(
            f"the record of '{record.operator}' promises '{record.preserves}', but its site in this network "
            f"'{found}'; it was changed, or made by another version"
        )
    return child.genome
