"""Chain: several mutations as one, such as widening three stages and deepening one.

The record holds the place, the choices and the seed of each part, the transfer is the composition of the parts'
(`ops.composition`), and the certificate compares the last child with the first parent. Law: what the worst of the parts
promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError, UnknownName
from graphs.genome import Genome
from graphs.structure import frozen
from ops.composition import compose, given_name
from ops.errors import NoSite
from ops.mutation import PROMISES, Build, Child, Mutation, Site, Touched, Work, birth, check_draws

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

    from ops.examples import Batch

__all__ = ["Step", "chain_mutation", "draw_chain", "joined", "promised"]

Step = str | tuple[str, Site | Mapping[str, Any] | None]
"""An operator's name, for any of its sites; or the name with the place."""


def chain_mutation(operators: Mapping[str, Mutation]) -> Mutation:
    """The mutation that a chain of `operators` is: it has no sites, and builds what a chain's record says."""
    return Mutation(
        name="chain",
        preserves="exact",
        summary="several mutations as one",
        needs="steps, each with a site of its own",
        find=lambda genome: (),
        choose=lambda genome, place, rng: {},
        build=lambda work: _build(operators, work),
    )


def draw_chain(
    chain: Mutation,
    operators: Mapping[str, Mutation],
    genome: Genome,
    steps: Iterable[Step],
    rng: numpy.random.Generator,
    batch: Batch | None,
    born: int | None,
) -> Child:
    """Draws what `steps` leave open and makes the child; see `ops.table.chain`."""
    check_draws(rng)
    now, parts, born = genome, [], birth(genome, born)
    wanted = [_step(number, step) for number, step in enumerate(steps)]
    if not wanted:
        raise GraphError("a chain has no steps; expected at least one name of an operator")
    for name, _ in wanted:
        if name not in operators:
            raise UnknownName.of("operator", name, operators)
    for number, (name, place) in enumerate(wanted):
        site = _site(operators[name].sites(now), number, name, place, rng)
        parts.append(operators[name].apply(now, site, rng, batch, born))
        now = parts[-1].genome
    return joined(chain, parts, batch)


def joined(chain: Mutation, parts: Sequence[Child], batch: Batch | None = None) -> Child:
    """Children as one, each the parent of the next and with the same `born`; `batch` is what they were made from."""
    records = [part.record for part in parts]
    places = {"steps": [{"operator": record.operator, "site": record.site} for record in records]}
    choices = {"steps": [{"choices": record.choices, "seed": record.seed} for record in records]}
    first = records[0]
    given = _collected(parts)
    work = Work(parts[0].parent, frozen(places), frozen(choices), first.seed, first.born, batch, given)
    return chain.make(work, max(_promises(parts), key=PROMISES.index))


def _step(number: int, step: Any) -> tuple[str, Site | Mapping[str, Any] | None]:
    """A step as the name of an operator and a site, or none.

    Raises:
        GraphError: It is something else.
    """
    name, place = step if isinstance(step, tuple) and len(step) == 2 else (step, None)
    if isinstance(name, str) and (place is None or isinstance(place, Site | Mapping)):
        return name, place
    raise GraphError(
        f"step {number + 1} of the chain is {step!r}; expected the name of an operator, or a pair of that and a site"
    )


def _promises(parts: Sequence[Child]) -> Iterable[str]:
    """What each part promises in a chain; nothing, if its promise rests on weights that earlier parts have made."""
    for number, part in enumerate(parts):
        yield "approximate" if number and part.ground.plans else part.preserves


def _site(
    sites: list[Site], number: int, name: str, place: Site | Mapping[str, Any] | None, rng: numpy.random.Generator
) -> Site:
    """The site of one step.

    Raises:
        NoSite: There is none, or not the one asked for.
    """
    if place is None:
        fitting = sites
    elif isinstance(place, Site):
        fitting = [site for site in sites if site == place]
    else:
        fitting = [site for site in sites if site.place == frozen(place)]
    if not fitting:
        what = "no site" if place is None else f"no site {place.to_json() if isinstance(place, Site) else dict(place)}"
        raise NoSite(
            f"step {number + 1} of the chain, '{name}', has {what} in the network that the steps before it leave; "
            f"it has {len(sites)} sites there"
        )
    return fitting[int(rng.integers(len(fitting)))]


def _collected(parts: Sequence[Child]) -> dict[str, Tensor]:
    """The tensors that the parts computed from data, by their names in the whole."""
    return {
        given_name(number, name): tensor for number, part in enumerate(parts) for name, tensor in part.tensors.items()
    }


def promised(operators: Mapping[str, Mutation], work: Work) -> str:
    """What a chain promises: the worst of what its steps do, each at its site in the network that it is applied to."""
    return max(_promises(_parts(operators, work, Mutation.promise)), key=PROMISES.index)


def _parts(
    operators: Mapping[str, Mutation], work: Work, promise: Callable[[Mutation, Genome, Mapping[str, Any]], str]
) -> list[Child]:
    """The children of a chain's steps, each the parent of the next, with what `promise` says of each."""
    now, parts = work.genome, list[Child]()
    for number, (step, drawn) in enumerate(zip(work.place["steps"], work.choices["steps"], strict=True)):
        name = step["operator"]
        if name not in operators:
            raise UnknownName.of("operator", name, operators)
        start = given_name(number, "")
        given = {key[len(start) :]: value for key, value in (work.given or {}).items() if key.startswith(start)}
        part = Work(now, step["site"], drawn["choices"], drawn["seed"], work.born, work.batch, given)
        parts.append(operators[name].make(part, promise(operators[name], now, part.place)))
        now = parts[-1].genome
    return parts


def _build(operators: Mapping[str, Mutation], work: Work) -> Build:
    parts = _parts(operators, work, lambda mutation, genome, place: mutation.preserves)
    now = parts[-1].genome
    found = _touched(work.genome, parts)
    return Build(now.graph, compose(work.graph, parts), found, _collected(parts), parts[0].ground)


def _touched(genome: Genome, parts: list[Child]) -> tuple[Touched, ...]:
    """What the parts work on.

    For the first part, that is in the parent. What a later part works on may have been copied and moved by those before
    it, so all channels of the value stand for some of them: the parent's value, or the child's where the node is new.
    Where it works on none, it only adds some, which may well be zero.
    """
    import numpy

    last = parts[-1].genome.graph
    found = list(parts[0].touched)
    for touch in (touch for part in parts[1:] for touch in part.touched if len(touch.channels)):
        shapes = genome.graph.shapes if touch.node in genome.graph.nodes else last.shapes
        width = shapes[touch.node][touch.axis] if touch.node in shapes else 0
        found.append(Touched(touch.node, 0, 1, numpy.arange(width), touch.axis))
    return tuple(found)
