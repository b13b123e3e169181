"""What a kind of node is: the contract of an entry of `KINDS`.

A `Kind` says everything that the engine needs to know of a layer: its settings, its tensors, its shape rule, what it
computes, which `torch` module stands for it, what it does with channels, and what it costs. Nothing elsewhere asks for
a kind by its name. What is missing or contradictory is refused when the entry is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError, ShapeError, UnknownName
from graphs.structure import Node, Shape, frozen

if TYPE_CHECKING:
    from graphs.solver import Dims, Solver

__all__ = ["REQUIRED", "Change", "Kind", "TensorSpec", "same_shape"]

LARGEST_SIZE = 2**40
"""No axis is longer; a graph that says otherwise is damaged or hostile."""

REQUIRED: Any = object()
"""Default of a setting that must be given."""

Settings = Mapping[str, Any]
Tensors = Mapping[str, Any]
Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a node expects of one of its tensors.

    Attributes:
        shape: Sizes of its axes.
        start: How it starts in a fresh network: `kaiming` (uniform, He et al. 2015, arXiv 1502.01852), `fan_in`
            (uniform within 1/√fan_in), `zeros`, `ones` or `quarter` (.25).
        buffer: It is state, not a parameter: not trained by gradients.
        integer: Its type is an integer or boolean one rather than a floating-point type.
        persistent: It stands in a module's `state_dict`.
        turned: It is a matrix (in, out), from which `fan_in` takes its first axis.
    """

    shape: Shape
    start: str
    buffer: bool = False
    integer: bool = False
    persistent: bool = True
    turned: bool = False

    @property
    def drawn(self) -> bool:
        """Whether it is a parameter that starts with random numbers, as weights of layers do, and no scale or gate."""
        return not self.buffer and self.start in ("kaiming", "fan_in")


@dataclass(frozen=True, slots=True)
class Change:
    """What a change of a channel space does to the shapes around a node.

    Attributes:
        before: Shapes of the operands as they were.
        after: Shapes of the operands as they become.
        out: Shape of the node's value as it becomes.
        moved: `(operand, axis, position) -> position`: where a boundary between channels of an operand comes to lie.
    """

    before: Sequence[Shape]
    after: Sequence[Shape]
    out: Shape
    moved: Callable[[int, int, int], int]


def same_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    """Shape rule of what works on each element."""
    return shapes[0]


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _no_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    return {}


def _no_roles(settings: Settings) -> tuple[str, ...]:
    return ()


def _no_macs(settings: Settings, shapes: Sequence[Shape], out: Shape) -> int:
    return 0


def _never(settings: Settings) -> bool:
    return False


def _as_given(settings: dict[str, Any]) -> dict[str, Any]:
    return settings


def _keep_settings(settings: Settings, change: Change) -> Settings:
    return settings


def _pass_on(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    return tuple(axes[0])


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of node.

    Attributes:
        name: Its key in `KINDS`.
        settings: For each setting, how a value is checked and brought to its canonical form, and the default.
        complete: `settings -> settings`: fills in defaults that depend on other settings.
        operands: Least and greatest number of inputs; None for no upper limit.
        shape: `(settings, input shapes) -> output shape`; raises `ShapeError` without naming the node.
        compute: `(settings, inputs, tensors by role, training) -> value`, with `torch` operations; may update buffers
            in place. With batch axes in front of all shapes.
        overwrite: As `compute`, but the result takes the place of the only operand; None where that cannot be, or where
            a gradient would need the operand. The emitted forward pass uses it where the operand is `spare`.
        module: `(settings, input shapes) -> (name in torch.nn, keyword arguments)` where an ordinary module stands for
            it; None where `compute` itself is emitted into the generated forward.
        roles: `settings -> names of its tensors`.
        tensors: `(settings, input shapes) -> spec by role`.
        channels: `(solver, node, input dims, input shapes, output shape) -> output dims`: what it does with channels,
            said in the vocabulary of `graphs.solver.Solver`. By default each output entry depends on the same entry of
            its only input, alike for all entries.
        resize: `(settings, change) -> settings`: the settings once the shapes around the node are as `change` says.
        macs: `(settings, input shapes, output shape) -> multiply-accumulates` for one example.
        commutative: The order of its operands does not matter.
        level: Each operand must hold as many examples as the others; none is broadcast over the batch.
        random: `settings -> bool`: whether it draws random numbers in train mode.
        idempotent: Applied twice it gives what it gives once, for example ReLU.
        activation: It is a non-linear function of each element.
        normalisation: Its train-mode output depends on the statistics of the batch.
        stops: Its value is its operand's, but no gradient flows back through it.
        divides: Its value is its first operand in train mode, its second one in eval mode; the other is not computed.
        elementwise: Each element of its value depends on the same element of each operand, and on nothing else.
        silent: A channel that is zero in all operands, and in the tensor `bias`, is zero in its value too, but not for
            ever: what would come in would come out.
        even: In eval mode it adds up entries of its operands, with the same weights for each channel: a channel that is
            the mean of others stays their mean.
        neutral: For a norm over channels, what one more of them can hold (`zeros`, or the `mean` of the others) for the
            norm to make of the others what it did, but for a factor: with r channels for each one that there was, eps
            is divided by r and the scale by √r. None for all other kinds.
        window: For a layer whose tensor `weight`, (out, in / groups, …), sums over its operand's channels: how many
            axes of places, behind that of the channels, it slides over. None for all other kinds.
        affine: Its value is zero where its tensors `weight` and `bias` are.
        pooling: It makes a map smaller, channel by channel.
        spare: Its value is memory of its own, and no gradient of it needs the value: a sole reader may overwrite it.
        wall: What it computes is not known here; no mutation builds on its value.
    """

    name: str
    settings: Mapping[str, tuple[Convert, Any]] = field(default_factory=dict)
    complete: Callable[[dict[str, Any]], dict[str, Any]] = _as_given
    operands: tuple[int, int | None] = (1, 1)
    shape: Callable[[Settings, Sequence[Shape]], Shape] = same_shape
    compute: Callable[[Settings, Sequence[Any], Tensors, bool], Any] | None = None
    overwrite: Callable[[Settings, Sequence[Any], Tensors, bool], Any] | None = None
    module: Callable[[Settings, Sequence[Shape]], tuple[str, dict[str, Any]]] | None = None
    roles: Callable[[Settings], tuple[str, ...]] = _no_roles
    tensors: Callable[[Settings, Sequence[Shape]], Mapping[str, TensorSpec]] = _no_tensors
    channels: Callable[[Solver, Node, Sequence[Dims], Sequence[Shape], Shape], Dims] = _pass_on
    resize: Callable[[Settings, Change], Settings] = _keep_settings
    macs: Callable[[Settings, Sequence[Shape], Shape], int] = _no_macs
    commutative: bool = False
    level: bool = False
    random: Callable[[Settings], bool] = _never
    idempotent: bool = False
    activation: bool = False
    normalisation: bool = False
    stops: bool = False
    divides: bool = False
    elementwise: bool = False
    silent: bool = False
    even: bool = False
    neutral: str | None = None
    window: int | None = None
    affine: bool = False
    pooling: bool = False
    spare: bool = False
    wall: bool = False

    def __post_init__(self) -> None:
        if self.compute is None and self.operands != (0, 0):
            raise GraphError(f"kind '{self.name}' must say what it computes")
        if (self.roles is _no_roles) != (self.tensors is _no_tensors):
            raise GraphError(f"kind '{self.name}' must give both roles and tensors, or neither")

    def fill(self, id: str, given: Settings) -> dict[str, Any]:
        """`given` checked, in canonical form, with defaults for what is left out.

        Raises:
            GraphError: A value is wrong; names node, setting, value and what was expected.
            UnknownName: There is no such setting.
        """
        for name in given:
            if name not in self.settings:
                raise UnknownName.of(f"setting of '{self.name}' at node '{id}'", name, self.settings)
        filled: dict[str, Any] = {}
        for name, (convert, default) in self.settings.items():
            value = given.get(name, default)
            if value is REQUIRED:
                raise GraphError(f"node '{id}' of kind '{self.name}' needs the setting '{name}'")
            try:
                filled[name] = convert(value)
            except (TypeError, ValueError) as error:
                raise GraphError(
                    f"node '{id}' of kind '{self.name}': setting {name}={_brief(value)}: {error}"
                ) from None
        return self.complete(filled)

    def check(self, node: Node) -> None:
        """Checks a node's settings, roles and number of operands against this kind.

        Raises:
            GraphError: Something is missing, superfluous or not in canonical form.
        """
        filled = frozen(self.fill(node.id, node.settings))
        # Compared as text, because 0 == 0.0 == False.
        if sorted(map(repr, node.settings.items())) != sorted(map(repr, filled.items())):
            raise GraphError(f"node '{node.id}' of kind '{self.name}': settings {dict(node.settings)} are not complete")
        least, most = self.operands
        if len(node.inputs) < least or (most is not None and len(node.inputs) > most):
            wanted = f"{least}" if most == least else f"{least} or more" if most is None else f"{least} to {most}"
            raise GraphError(f"node '{node.id}' of kind '{self.name}' has {len(node.inputs)} inputs, expected {wanted}")
        if set(node.tensors) != set(self.roles(node.settings)):
            raise GraphError(
                f"node '{node.id}' of kind '{self.name}' names tensors for {sorted(node.tensors)}, "
                f"expected {sorted(self.roles(node.settings))}"
            )

    def infer(self, node: Node, shapes: Sequence[Shape]) -> Shape:
        """Shape of the node's value.

        Raises:
            ShapeError: The inputs do not fit; names the node.
        """
        try:
            out = self.shape(node.settings, shapes)
        except ShapeError as error:
            found = ", ".join(map(str, shapes))
            raise ShapeError(f"node '{node.id}' of kind '{self.name}' cannot read {found}: {error}") from None
        if max(out, default=1) > LARGEST_SIZE:
            raise ShapeError(f"node '{node.id}' of kind '{self.name}' has an axis of more than {LARGEST_SIZE} entries")
        if any(size < 1 for size in out):
            found = ", ".join(map(str, shapes))
            raise ShapeError(f"node '{node.id}' of kind '{self.name}' would turn {found} into the empty {out}")
        return out
