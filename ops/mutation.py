"""What a mutation is: where it can be made, what is chosen there, and how the child is built from the choices.

A mutation has two steps. `choose` draws what is free (a width, a kernel) and writes it down as JSON; `build` is a pure
function of (parent, place, choices, seed), so that replaying a record gives the same child bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphs.bursts import uncollected
from graphs.errors import FormatError, GraphError, UnknownName
from graphs.genome import Genome
from graphs.structure import Graph, frozen
from ops.errors import BadChoice, NoSite
from ops.options import Option
from ops.transfer import Transfer

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

    from ops.examples import Batch

__all__ = [
    "COUNT",
    "PROMISES",
    "Build",
    "Child",
    "Mutation",
    "Record",
    "Site",
    "Touched",
    "Work",
    "birth",
    "check_draws",
    "counts",
    "plain",
]

PROMISES = ("exact", "eval-exact", "approximate")
"""What a site can promise, best first: the same function in eval and in train mode, in eval mode only, neither."""


def plain(value: Any) -> Any:
    """`value` as plain JSON types: lists for tuples, dictionaries for read-only mappings."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


COUNT = "a whole number from 0 to 2**63 - 1"
"""What seeds and numbers of candidates are."""


def counts(value: object) -> bool:
    """Whether a value is such a number."""
    return type(value) is int and 0 <= value < 2**63


def check_draws(rng: object) -> None:
    """Passes a generator of NumPy.

    Raises:
        GraphError: It is something else.
    """
    import numpy

    if not isinstance(rng, numpy.random.Generator):
        raise GraphError(f"rng is {rng!r}; expected a generator such as numpy.random.default_rng(0)")


def birth(genome: Genome, born: int | None) -> int:
    """The number of a candidate: the one that is given, or one more than the newest node's.

    Raises:
        GraphError: It is no whole number from 0 on.
    """
    if born is None:
        return 1 + max(node.born for node in genome.graph.nodes.values())
    if not counts(born):
        raise GraphError(f"born is {born!r}; expected {COUNT}, or None for one more than the newest node's")
    return born


@dataclass(frozen=True, slots=True)
class Site:
    """A place where a mutation can be made, and what it promises there."""

    place: Mapping[str, Any]
    preserves: str

    def __post_init__(self) -> None:
        if self.preserves not in PROMISES:
            raise GraphError(f"a site promises one of {', '.join(PROMISES)}, not '{self.preserves}'")
        object.__setattr__(self, "place", frozen(self.place))

    def to_json(self) -> dict[str, Any]:
        """The place, as JSON."""
        return {key: plain(value) for key, value in self.place.items()}


@dataclass(frozen=True, slots=True)
class Record:
    """One mutation as JSON: enough to make the child again.

    Attributes:
        operator: Key of `MUTATIONS`, or `chain`.
        site: The place.
        preserves: What the site promised.
        choices: What was chosen there.
        seed: From which new tensors and copies are drawn.
        born: Number of the candidate, which new nodes bear.
        parent: Fingerprint of the parent.
        child: Fingerprint of the child.
    """

    operator: str
    site: Mapping[str, Any]
    preserves: str
    choices: Mapping[str, Any]
    seed: int
    born: int
    parent: str
    child: str

    def __post_init__(self) -> None:
        if self.preserves not in PROMISES:
            raise FormatError(f"a mutation's record promises one of {', '.join(PROMISES)}, not {self.preserves!r}")
        for name in ("seed", "born"):
            if not counts(getattr(self, name)):
                raise FormatError(f"field '{name}' of a mutation's record is {getattr(self, name)!r}, expected {COUNT}")
        object.__setattr__(self, "site", frozen(self.site))
        object.__setattr__(self, "choices", frozen(self.choices))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON types."""
        return {name: plain(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The record that `to_json` gave.

        Raises:
            FormatError: A field is missing, superfluous, of another type or out of range.
        """
        expected = {"operator": str, "site": Mapping, "preserves": str, "choices": Mapping, "seed": int, "born": int}
        expected |= {"parent": str, "child": str}
        if set(data) != set(expected):
            raise FormatError(f"a mutation's record has the fields {sorted(expected)}, got {sorted(data)}")
        for name, kind in expected.items():
            if not isinstance(data[name], kind):
                raise FormatError(f"field '{name}' of a mutation's record is {data[name]!r}, expected {kind.__name__}")
        return cls(**data)


@dataclass(frozen=True, slots=True, eq=False)
class Touched:
    """Channels of a value that a mutation copies, drops or rescales: the parent's value, or the child's of a new node.

    Channel c takes the entries `offset + c·inner` to `offset + (c+1)·inner` of the value's axis `axis`, the batch not
    counted.
    """

    node: str
    offset: int
    inner: int
    channels: numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]
    axis: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """What a `build` is given: the parent, what was chosen, and what new nodes and tensors are made from."""

    genome: Genome
    place: Mapping[str, Any]
    choices: Mapping[str, Any]
    seed: int
    born: int
    batch: Batch | None = None
    given: Mapping[str, Tensor] | None = None

    @property
    def graph(self) -> Graph:
        """The parent's graph."""
        return self.genome.graph


@dataclass(frozen=True, slots=True)
class Build:
    """What a `build` gives.

    Attributes:
        graph: The child's.
        transfer: What happens to tensors.
        touched: The channels that the mutation works on.
        tensors: Those that were computed from data.
        ground: What a promise rests on that holds for some weights only, such as zeros that are dropped or copies that
            are merged. A transfer from the parent to the parent: it brings any weights onto this ground, and leaves
            those that stand on it as they are.
    """

    graph: Graph
    transfer: Transfer
    touched: tuple[Touched, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    ground: Transfer = field(default_factory=Transfer)


@dataclass(frozen=True, slots=True)
class Child:
    """A mutated genome with its record, its transfer, its parent, and what else its `Build` tells."""

    genome: Genome
    record: Record
    transfer: Transfer
    touched: tuple[Touched, ...]
    tensors: Mapping[str, Tensor]
    parent: Genome
    ground: Transfer = field(default_factory=Transfer)

    @property
    def preserves(self) -> str:
        """What the site promised."""
        return self.record.preserves


@dataclass(frozen=True, slots=True)
class Mutation:
    """One operator.

    Attributes:
        name: Its key in `MUTATIONS`.
        preserves: The best that any site of it can promise.
        summary: One line for people.
        needs: What a network must have for there to be a site: what follows "it needs".
        find: `genome -> sites`.
        choose: `(genome, place, rng) -> choices` of JSON types.
        build: `work -> build`, a pure function.
        options: `(genome, place) -> what each choice may be`, by its name.
        undoes: The operator of which it is the inverse: where the other has been, it gives the parent back bit for bit.
    """

    name: str
    preserves: str
    summary: str
    needs: str
    find: Callable[[Genome], Iterable[Site]]
    choose: Callable[[Genome, Mapping[str, Any], numpy.random.Generator], Mapping[str, Any]]
    build: Callable[[Work], Build]
    options: Callable[[Genome, Mapping[str, Any]], Mapping[str, Option]] = lambda genome, place: {}
    undoes: str | None = None

    def sites(self, genome: Genome) -> list[Site]:
        """Where it can be applied, each with its promise; empty where it cannot."""
        return list(self._found(genome))

    def _found(self, genome: Genome) -> Iterator[Site]:
        """The sites, but for those at values that a new layer could not read, or where it would not learn."""
        closed = set(genome.cast)
        if self.undoes is None and self.preserves != "approximate":
            closed.update(genome.graph.nodes.keys() - genome.graph.taught)
        for site in self.find(genome):
            if not closed or closed.isdisjoint(map(str, site.place.values())):
                yield site

    def promise(self, genome: Genome, place: Mapping[str, Any]) -> str:
        """What the site at a place promises.

        Raises:
            NoSite: There is none in this network.
        """
        for site in self._found(genome):
            if site.place == place:
                return site.preserves
        raise NoSite(f"'{self.name}' has no site {plain(place)} in this network")

    def refusal(self, genome: Genome) -> str | None:
        """Why it cannot be applied, in one sentence; None if it can."""
        if next(self._found(genome), None) is not None:
            return None
        return f"'{self.name}' has no site in this network: it needs {self.needs}"

    @uncollected()
    def apply(
        self,
        genome: Genome,
        site: Site,
        rng: numpy.random.Generator,
        batch: Batch | None = None,
        born: int | None = None,
        choices: Mapping[str, Any] | None = None,
    ) -> Child:
        """Makes a child; the parent stays as it is.

        Args:
            genome: The parent.
            site: One of `sites(genome)`.
            rng: Draws the choices and the record's seed.
            batch: Examples for what is computed from data and then stored in `Child.tensors`: a tensor (N, *shape) for
                the first input, or a mapping from names of inputs to such; or a pair of that and targets, which are
                class numbers (N,), or values of the outputs' shape. From the inputs, statistics of new norms are taken,
                which are 0 and 1 without; for gradients, see `ops.steepest`.
            born: Number of the candidate, which new nodes bear; one more than the newest node's if None.
            choices: Some of the choices, by name, instead of drawn ones.

        Raises:
            GraphError: An argument is of another type.
            NoSite: The site is none of this mutation's for this genome.
            UnknownName: The mutation has no such choice.
            BadChoice: It has, but what is chosen is not possible here.
        """
        check_draws(rng)
        if not isinstance(site, Site):
            raise GraphError(f"the site is {site!r}; expected one of `sites` of '{self.name}', or a step of `chain`")
        if site not in self.sites(genome):
            raise NoSite(f"'{self.name}' has no site {site.to_json()} with promise '{site.preserves}' in this network")
        drawn = dict(self.choose(genome, site.place, rng))
        options = self.options(genome, site.place) if choices else {}
        for name, value in frozen(choices or {}).items():
            if name not in drawn:
                raise UnknownName.of(f"choice of '{self.name}'", name, drawn)
            if not options[name].allows(value):
                raise BadChoice(
                    f"'{self.name}' cannot have {name} = {value!r} at {site.to_json()}; expected {options[name]}"
                )
            drawn[name] = value
        seed = int(rng.integers(2**53))
        return self.make(Work(genome, site.place, frozen(drawn), seed, birth(genome, born), batch), site.preserves)

    def make(self, work: Work, preserves: str) -> Child:
        """The child that `work` leads to."""
        built = self.build(work)
        given = {**built.tensors, **(work.given or {})}
        weights = built.transfer.apply(work.genome.weights, built.graph, work.seed, given)
        sources = {name: plan.source for name, plan in built.transfer.plans.items()}
        child = work.genome.changed(built.graph, weights, sources)
        record = Record(
            operator=self.name,
            site=work.place,
            preserves=preserves,
            choices=work.choices,
            seed=work.seed,
            born=work.born,
            parent=work.graph.fingerprint,
            child=built.graph.fingerprint,
        )
        return Child(child, record, built.transfer, built.touched, given, work.genome, built.ground)
