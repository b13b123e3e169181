"""Nodes for what is traced: the draft under construction, and how its nodes come about.

What has a kind becomes a node of that kind, what works on each element a `pointwise` node, all else an opaque one.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.importing.chance import nothing_drawn
from graphs.importing.held import reach, tensors_of
from graphs.importing.observing import BATCHES, Seen, observe, performed
from graphs.importing.programs import opaque, pointwise
from graphs.importing.stand_ins import (
    TRAINING,
    Differing,
    Held,
    Numbering,
    OwnType,
    Program,
    Ref,
    Size,
    Training,
    Unknown,
    any_of,
)
from graphs.importing.tracing import Trace
from graphs.kinds.allowed import allowed, function
from graphs.kinds.in_memory import entrance, remember
from graphs.structure import Shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Lowering"]


class Lowering:
    """Adds the nodes of one traced mode after another to a draft; equal nodes of both modes are one node.

    Attributes:
        draft: What nodes are added to.
        shapes: Shapes of its nodes, without the batch.
        types: Types of their entries.
        weights: The tensors that they use, by name.
        layers: The module's parts by path.
        fixed: The layers that are in the same mode whatever that of the module is: their modes by path.
        precise: Its nodes whose values stay in the precision that a cast names.
        made_in: By whether it is train mode, the nodes that the mode has called for.
        in_memory: What no file may name is called as it is, so that the network runs in this process alone.
    """

    def __init__(
        self,
        module: nn.Module,
        given: Mapping[str, Tensor],
        fixed: Mapping[str, bool] | None = None,
        in_memory: bool = False,
    ) -> None:
        self.module, self.given, self.fixed, self.in_memory = module, given, fixed or {}, in_memory
        self.draft = Draft()
        self.shapes: dict[str, Shape] = {}
        self.types: dict[str, torch.dtype] = {}
        self.weights: dict[str, Tensor] = {}
        self.made: dict[Any, str] = {}
        self.made_in: dict[bool, set[str]] = {True: set(), False: set()}
        self.held = tensors_of(module)
        self.layers = dict(module.named_modules(remove_duplicate=False))
        self.inputs: dict[str, str] = {}
        self.varying: set[str] = set()
        self.precise: set[str] = set()
        self.line = ""
        self.look: Callable[[], Any] | None = None
        self.seen: Seen | None = None
        self.called: Callable[..., Any] | None = None
        self.count: dict[Any, int] = {}
        self.drawing: dict[int, Program] = {}
        self.apart_rows: dict[int, tuple[Program, Ref | None]] = {}
        self.apart, self.training = False, False
        self.root = module

    def begin(self, trace: Trace, alone: bool) -> None:
        """Starts with one mode; `alone` if it cannot be held against the other one, call by call."""
        self.count, self.apart, self.root, self.training = {}, alone, trace.root, trace.training

    def at(self, line: str) -> None:
        """Says which line of the user's code the value that comes next is from."""
        self.line = line

    def about(
        self,
        call: Callable[..., Any],
        arguments: list[Any],
        keywords: Mapping[str, Any],
        own: Callable[..., Any] | None = None,
    ) -> None:
        """Says what is called, so that what it gives can be observed where that is asked for.

        Args:
            call: A function of these arguments.
            arguments: Stand-ins.
            keywords: Stand-ins.
            own: What can be called in memory; None where nothing can.
        """
        self.look, self.seen, self.called = lambda: observe(call, arguments, keywords, self._value), None, own

    @property
    def now(self) -> Seen:
        """What the call gives that is being taken in.

        Raises:
            GraphError: It fails for a batch of another size than the example's.
        """
        if self.seen is None:
            try:
                self.seen = self.look() if self.look else Seen()
            except GraphError:
                raise
            except Exception as error:
                sizes, reason = " and ".join(map(str, BATCHES)), (str(error).splitlines() or [""])[0]
                raise self.error(f"it fails for batches of {sizes}: {reason}") from error
        return self.seen

    def _value(self, value: Any, place: int) -> Any:
        """A stand-in as the value that it would be in a batch of `BATCHES[place]`, a tensor without numbers."""
        import torch

        if isinstance(value, Size):
            return value.factor * BATCHES[place]
        if isinstance(value, Training):
            return self.training
        if isinstance(value, Differing):
            return value.training if self.training else value.inference
        if isinstance(value, OwnType):
            return value.dtype
        if isinstance(value, Held):
            return value.tensor
        if isinstance(value, Program | Numbering):
            return value.seen.values[place]
        if isinstance(value, Ref):
            first = () if value.bare else (BATCHES[place] if self.depends(value) else 1,)
            return torch.empty((*first, *self.shape(value)), dtype=self.types[value.node], device="meta")
        return value

    def input(self, name: str) -> Any:
        """The node of an argument of the forward pass; None for one that the example leaves out."""
        if name not in self.given:
            return None
        if name not in self.inputs:
            from torch import bool as boolean

            tensor = self.given[name]
            shape = tuple(tensor.shape[1:])
            dtype, most = "float", 1
            if not tensor.is_floating_point():
                dtype = "boolean" if tensor.dtype == boolean else "integer"
                most = int(tensor.max()) + 1 if dtype == "integer" else 1
            node = self.draft.add("input", (), name=name, shape=shape, dtype=dtype, most=max(most, 1))
            self.shapes[node], self.types[node] = shape, tensor.dtype
            self.inputs[name] = node
            self.varying.add(node)
        return Ref(self.inputs[name])

    def attribute(self, path: str) -> Any:
        """What stands for an attribute of the module."""
        if path == "training":
            return TRAINING
        from torch import Tensor

        try:
            found: Any = reach(self.module, path)
        except AttributeError:
            found = reach(self.root, path)

        return self.hold(found, path) if isinstance(found, Tensor) else found

    def named(self, name: str) -> Held | None:
        """The tensor of the module that has this name."""
        return next((held for held in self.held.values() if held.name == name), None)

    def hold(self, tensor: Tensor, path: str) -> Held:
        """A tensor of the module under the name that it has there first, or a constant."""
        if id(tensor) in self.held:
            return self.held[id(tensor)]
        alike = (held for held in self.held.values() if held.how == "constant" and _equal(held.tensor, tensor))
        found = next(alike, None)
        # A tensor that is not kept leaves its identity to the next one.
        return found or self.held.setdefault(id(tensor), Held(path, "constant", tensor))

    def use(self, held: Held) -> str:
        """Notes that a node uses a tensor, and gives its name."""
        self.weights[held.name] = held.tensor
        return held.name

    def add(
        self,
        kind: str,
        operands: Sequence[Ref],
        tensors: Mapping[str, str] | None = None,
        path: str | None = None,
        bare: bool | None = None,
        **settings: Any,
    ) -> Ref:
        """A node of a kind, or the equal one that the other mode has already."""
        from graphs.kinds import KINDS

        ids = tuple(operand.node for operand in operands)
        try:
            filled = KINDS[kind].fill(path or kind, settings)
        except GraphError as error:
            raise self.error(str(error)) from error
        key = (kind, repr(sorted(filled.items())), ids, tuple(sorted((tensors or {}).items())))
        turn = self.count[key] = self.count.get(key, 0) + 1
        if (key, turn) not in self.made:
            id = self.draft.add(kind, ids, path=path, tensors=tensors or {}, **settings)
            try:
                self.shapes[id] = KINDS[kind].infer(self.draft.nodes[id], [self.shapes[source] for source in ids])
            except GraphError as error:
                raise self.error(str(error)) from error
            self.types[id] = self._type_of(ids, (tensors or {}).values())
            self.made[key, turn] = id
            if any(source in self.varying for source in ids):
                self.varying.add(id)
            if not tensors and not self.precise.isdisjoint(ids):
                self.precise.add(id)
        self.made_in[self.training].add(self.made[key, turn])
        return Ref(self.made[key, turn], operands[0].bare if bare is None and operands else bool(bare))

    def choose(self, one: str, other: str) -> str:
        """The node that is the value of `one` in train mode, and of `other`, of the same shape, in eval mode."""
        id = self.draft.add("by_mode", (one, other))
        self.shapes[id], self.types[id] = self.shapes[one], self.types[one]
        for known in (self.varying, self.precise):
            if one in known:
                known.add(id)
        return id

    def _type_of(self, operands: Sequence[str], tensors: Iterable[str]) -> torch.dtype:
        """The type of what a layer computes: its tensors', or what its operands' types are brought to."""
        import torch

        own = next((self.weights[name].dtype for name in tensors), None)
        return own or functools.reduce(torch.promote_types, (self.types[operand] for operand in operands))

    def shape(self, value: Ref) -> Shape:
        """Shape of a node's value without the batch."""
        return self.shapes[value.node]

    def ref(self, value: Any, rank: int | None = None) -> Ref:
        """A node for a value.

        Args:
            value: A stand-in.
            rank: For what is the same for all examples, with how many axes, behind the batch, it is to be seen.

        Raises:
            GraphError: The batch of the value is not its first axis.
        """
        if isinstance(value, Ref):
            return value if rank is None or self.depends(value) else self._aligned(value, rank)
        if isinstance(value, Held):
            return self._held_node(value, rank)
        raise self.error("its batch is not the first axis; keep examples along the first axis")

    def _aligned(self, value: Ref, rank: int) -> Ref:
        """What is the same for all examples, with axes of one entry in front, as it meets others; itself if longer."""
        own = self.shape(value)
        seen = own if value.bare else (1, *own)
        whole = (1,) * (rank + 1 - len(seen)) + seen
        if len(whole) != rank + 1 or whole[0] != 1:
            return value
        return Ref(value.node) if whole[1:] == own else self.add("reshape", [value], shape=whole[1:], bare=False)

    def _held_node(self, held: Held, rank: int | None) -> Ref:
        shape = tuple(held.tensor.shape)
        if rank is not None:
            shape = shape[1:] if len(shape) == rank + 1 and shape[0] == 1 else (1,) * (rank - len(shape)) + shape
        settings: dict[str, Any] = {"shape": tuple(held.tensor.shape), "view": shape}
        if held.how != "parameter":
            settings["dtype"] = "float" if held.tensor.is_floating_point() else "integer"
            settings["persistent"] = held.how == "buffer"
        kind = "parameter" if held.how == "parameter" else "constant"
        return self.add(kind, [], {"value": self.use(held)}, bare=rank is None, **settings)

    def sizes(self, value: Any) -> tuple[Any, ...]:
        """Shape of a traced tensor, as numbers and `Size`."""
        if isinstance(value, Held):
            return tuple(value.tensor.shape)
        if isinstance(value, Ref):
            first = () if value.bare else (Size(1),) if self.depends(value) else (1,)
            return (*first, *self.shape(value))
        if isinstance(value, Program | Numbering) and value.seen.shapes:
            return tuple(self._size(*pair) for pair in zip(*value.seen.shapes, strict=True))
        raise self.error("the shape of this value is not known")

    def _size(self, one: int, other: int) -> Any:
        if one == other:
            return one
        factor = one // BATCHES[0]
        if (one, other) != (factor * BATCHES[0], factor * BATCHES[1]):
            raise self.error("a size is no multiple of the batch size")
        return Size(factor)

    def type_of(self, value: Ref | Held | Program | Numbering) -> torch.dtype | OwnType:
        """What a tensor says that its type is."""
        if isinstance(value, Ref):
            found = self.types[value.node]
            if value.node in self.precise:
                return found
        else:
            found = value.tensor.dtype if isinstance(value, Held) else value.seen.dtype
        own = {held.tensor.dtype for held in self.held.values() if held.how == "parameter"}
        return OwnType(found) if found.is_floating_point and found in own else found

    def call(self, target: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """What there is no kind for: a function of each element, an opaque node, or a program that goes on."""
        keywords = {
            name: each
            for name, each in keywords.items()
            if name not in ("inplace", "device", "layout", "memory_format", "non_blocking", "out", "pin_memory")
        }
        if not any_of(lambda each: isinstance(each, Ref | Held | Program | Size), [*arguments, *keywords.values()]):
            return self._computed(target, arguments, keywords)
        if not allowed(target) and self.in_memory and self.called is not None:
            return self.call_in_memory(self.called, target, arguments, keywords)
        if not allowed(target):
            raise self._unnamed(target)
        return self._made(Program(target, tuple(arguments), dict(keywords), self.now))

    def _made(self, made: Program) -> Any:
        """A call as a node, or as a program that goes on."""
        if self.now.several or not self.now.shapes or not (self.now.batched or self.now.constant):
            return made
        found = pointwise(self, made)
        return found if found is not None else opaque(self, made)

    def _unnamed(self, target: str) -> GraphError:
        return self.error(
            f"it calls '{target}', which is no function that a network's file may name; "
            "write it with functions of torch"
        )

    def call_in_memory(
        self, own: Callable[..., Any], target: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Any:
        """What a function gives that no file may name, called as it is: by a node that runs in this process alone.

        Args:
            own: The function.
            target: What messages call it.
            arguments: Stand-ins.
            keywords: Stand-ins.

        Raises:
            GraphError: It cannot be called so, or nothing is to run in memory.
        """
        if not self.in_memory:
            raise self._unnamed(target)
        if (unknown := self.unknown([*arguments, *keywords.values()])) is not None:
            raise self.refusal(unknown)
        try:
            self.seen, draws = performed(entrance(own), list(arguments), keywords, self._value)
        except GraphError as error:
            raise self.error(str(error)) from error
        if not self.seen.several and not self.seen.shapes:
            found = type(self.seen.values[0]).__name__
            raise self.error(f"'{target}' gives a value of type {found}; what is called as it is must give tensors")
        return self._made(Program(remember(own, target, self.line), tuple(arguments), dict(keywords), self.seen, draws))

    def call_anew(self, target: str, arguments: list[Any], **keywords: Any) -> Any:
        """As `call`, for what the user's code does not call itself: what it gives is observed on its own."""
        self.about(function(target), arguments, keywords)
        return self.call(target, arguments, keywords)

    def later(self, target: str, arguments: list[Any]) -> Program:
        """As `call_anew`, for what is to become part of a program."""
        self.about(function(target), arguments, {})
        return Program(target, tuple(arguments), {}, self.now)

    def _computed(self, target: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """The result of a call in which no tensor of the network takes part, as a constant."""
        import torch
        from torch import Tensor

        prefix, _, name = target.partition(".")
        homes: dict[str, Any] = {"torch": torch, "operator": operator, "functional": torch.nn.functional, "math": math}
        known = getattr(homes.get(prefix), name, None)
        if known is None:
            raise self.error(f"it calls '{target}', which is not known here; write it with functions of torch")
        try:
            with nothing_drawn():
                result = known(*arguments, **keywords)
        except GraphError:
            raise self.error("it draws random numbers of a fixed shape; draw with torch.rand_like of a value") from None
        return self.hold(result, f"constant_{len(self.held)}") if isinstance(result, Tensor) else result

    def depends(self, ref: Ref) -> bool:
        """Whether a value depends on an input, so that its batch axis has N entries."""
        return ref.node in self.varying

    def mode(self, flag: Any) -> Any:
        """What a layer is told of the mode: `TRAINING`, or a flag that is the same in both modes.

        Where the two modes make different calls, nothing can be compared, and a flag that is true in train mode, or
        false in eval mode, is taken for the mode.
        """
        return TRAINING if self.apart and flag is self.training else flag

    def unknown(self, given: Any) -> Unknown | None:
        """A value that no node computes, among what a call is given: so is what the call gives; None without one.

        Raises:
            GraphError: It is refused where it is used, rather than where it is made.
        """
        if isinstance(given, Unknown):
            if not given.line:
                raise self.refusal(given)
            return given
        if isinstance(given, slice):
            given = [given.start, given.stop, given.step]
        return next(filter(None, map(self.unknown, given)), None) if isinstance(given, list | tuple) else None

    def refusal(self, value: Unknown, does: str = "uses") -> GraphError:
        """An error for what is done with a value that no node computes."""
        return self.error(value.what, value.line) if value.line else self.error(f"it {does} {value.what}")

    def error(self, what: str, line: str = "") -> GraphError:
        """An error that names the line of the user's code, the one that is being taken in if no other is given."""
        return GraphError(f"cannot take in {line or self.line or 'this module'}: {what}")


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
