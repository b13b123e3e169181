"""Whether what was made of a module computes what the module does: both are run on examples, in both modes.

A pass of each in train mode, with equal seeds, on two examples, because what mixes examples shows with two of them;
then one in eval mode, with the buffers that the first has left, on one example, because what does something else with a
batch of one shows there. What the module remembers from pass to pass shows as well.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.importing.copying import copied
from graphs.importing.labels import labelled
from graphs.importing.tracing import batches

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["compare"]

_TOLERANCE, _PRECISE = 1e-5, 1e-9
"""Largest difference as a part of the largest entry of an output; the second in double precision."""


def compare(module: nn.Module, genome: Genome, given: Mapping[str, Tensor], alike: bool) -> None:
    """Runs the original and what was made of it. Leaves the module and the example as they are.

    An example that is not finite, or has entries of one sign only, as images have, hides much: then both are run on one
    that is drawn, too.

    Where they differ, a rewritten attention may have drawn its dropout in another order: then they are run without
    dropout, so that how it is drawn is not compared. Or rounding may have been amplified: then they have to agree in
    double precision, and to differ by no more than the module does from itself where its weights are rounded otherwise.

    Args:
        module: The original.
        genome: What was made of it.
        given: The example by argument.
        alike: Both modes make the same calls.

    Raises:
        GraphError: Their outputs or their buffers differ, or the module changes its own parameters.
    """
    reason = _reason(module, genome, given, alike)
    if not reason and not all(map(_is_telling, given.values())):
        with contextlib.suppress(Unfit):
            reason = _reason(module, genome, _drawn(given), alike)
    if reason:
        raise GraphError(reason)


class Unfit(GraphError):
    """The module itself fails on an example, in both modes."""


class Failing(GraphError):
    """What was made of a module fails on an example; in double precision alone, that says nothing of the module."""


def _is_telling(tensor: Tensor) -> bool:
    """Whether entries differ in sign: of others, a rectifier that is left out, say, may not show."""
    finite = tensor[:2].isfinite()
    return not tensor.is_floating_point() or bool(finite.all() and (tensor[:2] > 0).any() and (tensor[:2] < 0).any())


def _drawn(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An example like the one that is given, with other numbers."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return {
            name: torch.randn_like(tensor[:2]) if tensor.is_floating_point() else tensor
            for name, tensor in given.items()
        }


def _reason(module: nn.Module, genome: Genome, given: Mapping[str, Tensor], alike: bool) -> str | None:
    """What differs on an example other than the order of draws and rounding; None if nothing does."""
    still = any(node.settings.get("dropout") for node in genome.graph.nodes.values())
    reason = _difference(copied(module), genome, given, alike)
    if reason and still:
        with _nothing_dropped():
            reason = _difference(copied(module), genome, given, alike)
    if reason:
        with contextlib.suppress(Exception), _nothing_dropped() if still else contextlib.nullcontext():
            precise = Genome(genome.graph, {name: _double(each) for name, each in genome.weights.items()}, genome.about)
            double = {name: _double(each) for name, each in given.items()}
            in_double = _difference(copy.deepcopy(module).double(), precise, double, alike, _PRECISE)
            # Casts do something else there, so that both agree in double precision does not say enough.
            reason = in_double or _difference(copied(module), genome, given, alike, _AMPLIFIED * _spread(module, given))
    return reason


_AMPLIFIED = 100
"""How much larger than the module's own spread a difference may be that comes from rounding: the spread is one draw."""


def _spread(module: nn.Module, given: Mapping[str, Tensor]) -> float:
    """How far a module's outputs move, as a part of the largest, where what it computes with is rounded otherwise.

    None at all is what counts for one whose outputs move without that.
    """
    import torch

    most = 0.0
    for training, inputs in itertools.product((True, False), batches(given)):
        work, again, other = copied(module), copied(module), copy.deepcopy(module)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            for tensor in filter(torch.is_floating_point, other.parameters()):
                tensor.copy_(_rounded(tensor))
            rounded = {name: _rounded(each) if each.is_floating_point() else each for name, each in inputs.items()}
        try:
            one, same = (_original(each, _cloned(inputs), training) for each in (work, again))
            moved = _original(other, rounded, training)
        except Exception:  # noqa: S112 such as a batch norm's, of a single value for each channel
            continue
        if not all(_same(value, same[name], 0.0) for name, value in one.items()):
            return 0.0
        most = max(most, *(_distance(value, moved[name]) for name, value in one.items()))
    return most


def _rounded(tensor: Tensor) -> Tensor:
    """A tensor whose entries are off by up to a unit in the last place."""
    import torch

    return tensor * (1 + torch.finfo(tensor.dtype).eps * torch.randn_like(tensor).clamp(-1, 1))


def _cloned(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in inputs.items()}


def _distance(one: Tensor, other: Tensor) -> float:
    """The largest difference of entries that are finite in both, as a part of the largest of them."""
    both = one.isfinite() & other.isfinite()
    one, other = one[both].double(), other[both].double()
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-300)) if one.numel() else 0.0


def _difference(
    work: nn.Module, genome: Genome, given: Mapping[str, Tensor], alike: bool, tolerance: float = _TOLERANCE
) -> str | None:
    """What differs between a module, which may be changed, and a genome; None if nothing does.

    Raises:
        Failing: What was made of the module does not run.
        Unfit: The module itself runs in no mode.
    """
    two, one = batches(given)
    runs = [("train", two), ("eval", one)] if alike else [("train", two), ("eval", two), ("eval", one)]
    if _draws(genome) and sum(tensor.numel() for tensor in one.values()) <= _SMALL:
        runs.append(("train", {name: tensor.repeat_interleave(_MANY // 2, 0) for name, tensor in two.items()}))
    weights = dict(genome.weights)
    versions = _versions(work)
    failed: Exception | None = None
    facts, done = _facts(work), 0
    for mode, inputs in runs:
        try:
            expected = _original(work, _cloned(inputs), mode == "train")
        except Exception as error:  # such as a batch norm's, of a single value for each channel
            failed = error
            continue
        finally:
            changed = _versions(work)
            if changed != versions:
                _restore(work, genome)
        if changed != versions:
            return "its forward pass changes a parameter in place, such as an embedding with max_norm"
        try:
            found, buffers = _made(genome, weights, inputs, mode == "train")
        except (GraphError, RuntimeError) as error:  # of another shape than what was observed, say
            raise Failing(f"what was traced fails in {mode} mode: {error}".splitlines()[0]) from error
        weights.update(buffers)
        what: str | None = None
        # In a mode of its own an output may have another name, or a place of its own among the others.
        names = list(expected if expected.keys() == found.keys() else found)
        pairs = zip(expected.values(), (found[name] for name in names), strict=False)
        if len(expected) != len(found) or not all(_same(*pair, tolerance) for pair in pairs):
            what = "what was traced does not compute what the module does"
        else:
            state = [(name, buffer) for name, buffer in work.named_buffers() if name in weights]
            wrong = [name for name, buffer in state if not _same(buffer, weights[name], tolerance)]
            if wrong:
                what = f"what was traced leaves another buffer '{wrong[0]}' than the module does"
        if what:
            after = _facts(work)
            news = sorted(name for name in facts if after.get(name, facts[name]) != facts[name])
            state_of = f"its attribute '{news[0]}' changes with each pass" if news else _CAUSES
            return f"{what} in {mode} mode, given {len(next(iter(inputs.values())))} of the example; {state_of}"
        done += 1
    if not done:
        raise Unfit(f"the module itself fails on the example: {(str(failed).splitlines() or [''])[0]}")
    return None


_MANY, _SMALL = 16, 2**16
"""How many examples tell how often something is drawn, where one of them has no more entries than that."""


def _draws(genome: Genome) -> bool:
    """Whether random numbers are drawn: two examples may be given the same ones by chance."""
    from graphs.kinds import KINDS

    return any(KINDS[node.kind].random(node.settings) for node in genome.graph.nodes.values())


def _versions(work: nn.Module) -> list[int]:
    """How often each parameter has been changed in place."""
    return [parameter._version for parameter in work.parameters() if not parameter.is_inference()]


_CAUSES = (
    "its forward pass may depend on values of tensors, on the number of examples, on state outside of tensors, or "
    "change tensors in place that others still read"
)


def _original(work: nn.Module, inputs: Mapping[str, Tensor], training: bool) -> dict[str, Tensor]:
    import torch

    work.train(training)
    signature = inspect.signature(work.forward)
    missing = [
        name
        for name, each in signature.parameters.items()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    bound = signature.bind(**{**dict.fromkeys(missing), **inputs})
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _tensors(work(*bound.args, **bound.kwargs))


def _made(
    genome: Genome, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], training: bool
) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
    import torch

    from graphs.execution import execute

    heads = {head.name: head.node for head in genome.graph.heads if training or not head.training_only}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        run = execute(genome.graph, weights, inputs, training=training, seed=None, keep=heads.values())
    return {name: run.values[node] for name, node in heads.items()}, run.buffers


def _same(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two tensors are equal, up to a part of the largest entry."""
    import torch

    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if torch.equal(one, other):
        return True
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()) or not torch.equal(
        one[~finite].nan_to_num(), other[~finite].nan_to_num()
    ):
        return False
    one, other = one[finite], other[finite]
    if one.is_floating_point():
        tolerance = max(tolerance, 2 * torch.finfo(one.dtype).eps)
        one, other = one.double(), other.double()
    elif not one.is_complex():
        return False
    # Where nothing is finite, all has been compared.
    return not one.numel() or float((one - other).abs().max()) <= tolerance * float(one.abs().max())


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _restore(work: nn.Module, genome: Genome) -> None:
    """Gives parameters, which a module shares with its copy, the values back that they had."""
    import torch

    with torch.no_grad():
        for name, parameter in work.named_parameters():
            if name in genome.weights and not torch.equal(parameter, genome.weights[name]):
                parameter.copy_(genome.weights[name])


def _facts(work: nn.Module) -> dict[str, Any]:
    """The numbers and truth values that are attributes of a module and its parts, by path."""
    return {
        f"{path}.{name}".lstrip("."): value
        for path, part in work.named_modules()
        for name, value in vars(part).items()
        if name != "training" and type(value) in (bool, int, float)
    }


def _tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors of an output by the names of the heads that they become."""
    from torch import Tensor

    if isinstance(value, Tensor):
        return {name or "logits": value}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    elif dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    parts = labelled(value, name) if isinstance(value, Mapping | list | tuple) else []
    return {label: tensor for path, part in parts for label, tensor in _tensors(part, path).items()}


@contextlib.contextmanager
def _nothing_dropped() -> Iterator[None]:
    """Runs what is within with a dropout that drops nothing."""
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    class Still(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
            keywords = dict(keywords or {})
            if function in (functional.dropout, torch.dropout):
                return arguments[0] if arguments else keywords["input"]
            if function is functional.scaled_dot_product_attention:
                arguments = arguments[:4] + ((0.0,) if len(arguments) > 4 else ()) + arguments[5:]
                keywords.update({"dropout_p": 0.0} if "dropout_p" in keywords else {})
            if function is functional.multi_head_attention_forward:
                keywords["training"] = False
            return function(*arguments, **keywords)

    with Still():
        yield
