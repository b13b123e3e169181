"""`from_torch`: any traceable module as a genome."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.bursts import uncollected
from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.state import State
from graphs.structure import Head

if TYPE_CHECKING:
    from torch import Tensor, nn

    from graphs.importing.lowering import Lowering
    from graphs.importing.stand_ins import Ref
    from graphs.importing.tracing import Trace

__all__ = ["from_torch"]


@uncollected()
def from_torch(module: nn.Module, example_input: Any, *, verify: bool = True) -> Genome:
    """The genome of a module, weights included; `graphs.to_torch` gives an ordinary module back.

    The forward pass is traced with `torch.fx`, or recorded by `torch.export` where that cannot be done, in train and in
    eval mode: what exists in train mode only, such as auxiliary outputs, is marked so. What the engine has no kind for
    becomes an opaque node. Batch sizes are not baked in, other sizes are. Functions of the user's that neither way can
    say in functions of torch, such as a `torch.autograd.Function` with a backward pass of its own, run in this process
    alone: `graphs.save` refuses such a network, and names the function.

    A network has named heads, so of the structure of the outputs only names stay, and train mode's order: a lone tensor
    becomes `logits`, the parts of a tuple `output_0`, `output_1`, those of named tuples and dictionaries what they are
    called there (`_` for what is no letter or digit), and of what is nested the names are joined, `boxes_0`. `to_torch`
    gives a tensor where there is one head, else a dictionary. Outputs that are no tensors, None or a number, are left
    out.

    Args:
        module: Any `torch.nn.Module` whose forward pass does not branch on the values of tensors. Left as it is.
        example_input: A tensor (N, ...), a tuple of them for several arguments, or a dictionary by argument name.
            Names, types and shapes (not N) are kept, and the greatest value of integer inputs, or what the embeddings
            that they index have rows for.
        verify: Compare the result with the original on an example or two, in train and in eval mode. Without it, which
            saves these passes, a forward pass that depends on values in a way that no trace shows goes unnoticed.

    Raises:
        GraphError: The module cannot be taken in; names the line of its code, and what to do.
    """
    import torch

    from graphs.importing.chance import generators_kept
    from graphs.importing.exported import trace_exported
    from graphs.importing.gradients import check_hooks
    from graphs.importing.tracing import Untraced, examples, trace

    if not isinstance(module, torch.nn.Module):
        raise GraphError(f"expected a torch.nn.Module, got {type(module).__name__}")
    _check_wrapped(module)
    _check_tensors(module)
    check_hooks(module)
    given = examples(module, example_input)
    if len({len(tensor) for tensor in given.values()}) > 1:
        _check_runs(module, given)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with generators_kept():
            try:
                return _taken_in(module, given, trace, verify)
            except Untraced as stopped:
                _check_runs(module, given)
                # What came further knows the true reason.
                try:
                    return _taken_in(module, given, trace_exported, verify)
                except GraphError as error:
                    raise _placed(error, stopped.place) from error
            except GraphError:
                _check_runs(module, given)
                with contextlib.suppress(GraphError):
                    return _taken_in(module, given, trace_exported, verify)
                # What can be no data runs in memory. To note the lines of the user's code takes long, so it is done
                # where one may have to be named. This way takes in what the first one does and more, so that what stops
                # it is what to tell, rather than what the export of all in functions of aten makes of it.
                return _taken_in(module, given, functools.partial(trace, lines=True, in_memory=True), verify, True)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _check_runs(module: nn.Module, given: Mapping[str, Tensor]) -> None:
    """Looks for a reason outside of the trace: whether the module takes the example at all.

    Raises:
        GraphError: It does not; with what torch says.
    """
    import torch

    from graphs.importing.copying import copied

    work = copied(module).eval()
    own = {name: tensor.detach().clone() for name, tensor in work.named_parameters()}
    example = {name: tensor.clone() for name, tensor in given.items()}
    try:
        with torch.no_grad():
            torch.func.functional_call(work, own, (), example)
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise GraphError(f"the module does not run on the example: {said}") from error


def _placed(error: GraphError, place: str) -> GraphError:
    """The error with a line of the user's code, where it names none."""
    named = re.search(r":\d+, in |line \d+, in ", str(error))
    return error if named or not place else GraphError(f"{error} (tracing stops at {place})")


def _check_wrapped(module: nn.Module) -> None:
    """Passes modules whose forward pass is Python's.

    Raises:
        GraphError: The module, or a part of it, is compiled or wrapped; says what to give instead.
    """
    import torch

    for path, part in module.named_modules():
        what = f"the part '{path}'" if path else "the module"
        if isinstance(part, torch.jit.ScriptModule):
            raise GraphError(f"{what} is compiled by torch.jit; give what it was made from")
    inside = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
    name = inside.get(type(module).__name__)
    if name and type(module).__module__.startswith("torch."):
        raise GraphError(f"the module is wrapped as {type(module).__name__}; give what is inside, the module's .{name}")


def _check_tensors(module: nn.Module) -> None:
    """Passes modules whose parameters and buffers have numbers.

    Raises:
        GraphError: One has none, or is sparse; names it.
    """
    import torch
    from torch.nn.parameter import is_lazy

    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if is_lazy(tensor):
            raise GraphError(f"'{name}' has no shape yet; run the module once, which gives it one")
        if tensor.is_meta:
            raise GraphError(f"'{name}' is on the meta device, where it has no numbers; load its weights first")
        if tensor.layout != torch.strided:
            raise GraphError(f"'{name}' is sparse; give a module with dense tensors")


def _taken_in(
    module: nn.Module,
    given: Mapping[str, Tensor],
    trace: Callable[[nn.Module, Mapping[str, Tensor], bool], Trace],
    verify: bool,
    in_memory: bool = False,
) -> Genome:
    """The genome by one way of tracing."""
    from graphs.importing.comparing import compare
    from graphs.importing.copying import copied, original_apart
    from graphs.importing.lowering import Lowering
    from graphs.importing.walking import walk

    work = copied(module)
    with original_apart(module):
        training = trace(work, given, True)
        inference = trace(work, given, False) if training.asked else training

    def walked(alike: bool) -> Genome:
        lowering = Lowering(work, given, _fixed(training, inference), in_memory)
        trained = walk(lowering, training, inference if alike else None)
        evaluated = trained if alike else walk(lowering, inference, None)
        _name_heads(lowering, trained, evaluated, "" if alike else _parting(training, inference))
        return _finish(lowering)

    alike = _alike(training, inference)
    try:
        genome = walked(alike)
    except GraphError as error:
        if not alike or training is inference:
            raise
        # Both make the same calls, but of numbers that differ in one that takes no two.
        alike = False
        try:
            genome = walked(alike)
        except GraphError:
            raise error from None
    if verify:
        compare(module, genome, given, alike)
    return genome


def _fixed(training: Trace, inference: Trace) -> dict[str, bool]:
    """The layers that are in the same mode in both, or in the other mode than the whole, by path."""
    if inference is training:
        return {}
    frozen = [path for path, mode in training.modes.items() if not mode and not inference.modes.get(path, False)]
    lively = [path for path, mode in inference.modes.items() if mode and training.modes.get(path, True)]
    return {**dict.fromkeys(frozen, False), **dict.fromkeys(lively, True)}


def _alike(one: Trace, other: Trace) -> bool:
    """Whether two modes make the same calls of the same values in the same order; numbers and flags may differ."""
    from torch import fx

    if one is other:
        return True
    nodes = [list(trace.graph.nodes) for trace in (one, other)]
    place = [{node: number for number, node in enumerate(each)} for each in nodes]

    def fits(argument: Any, twin: Any) -> bool:
        if isinstance(argument, fx.Node):
            return isinstance(twin, fx.Node) and place[0][argument] == place[1].get(twin)
        if isinstance(argument, list | tuple) and isinstance(twin, list | tuple):
            return len(argument) == len(twin) and all(map(fits, argument, twin))
        if isinstance(argument, Mapping) and isinstance(twin, Mapping):
            return argument.keys() == twin.keys() and all(fits(each, twin[name]) for name, each in argument.items())
        if isinstance(argument, slice) and isinstance(twin, slice):
            return all(fits(getattr(argument, end), getattr(twin, end)) for end in ("start", "stop", "step"))
        numbers = isinstance(argument, bool | int | float) and isinstance(twin, bool | int | float)
        return numbers or (type(argument) is type(twin) and bool(argument == twin))

    return len(nodes[0]) == len(nodes[1]) and all(
        (node.op, str(node.target)) == (twin.op, str(twin.target))
        and all(map(fits, node.args, twin.args))
        and all(fits(node.kwargs[name], twin.kwargs[name]) for name in node.kwargs.keys() & twin.kwargs.keys())
        for node, twin in zip(*nodes, strict=True)
    )


def _parting(one: Trace, other: Trace) -> str:
    """Where two modes begin to make different calls."""
    from graphs.importing.walking import line_of

    nodes = [list(trace.graph.nodes) for trace in (one, other)]
    # Where lines are known, what asks for a size has none, and stands where no one wrote it.
    placed = [[node for node in each if node.op == "output" or not line_of(node).startswith("'")] for each in nodes]
    for node, twin in itertools.chain(zip(*placed, strict=False), zip(*nodes, strict=False)):
        if (node.op, str(node.target)) != (twin.op, str(twin.target)):
            return line_of(twin if node.op == "output" else node)
    return ""


def _name_heads(low: Lowering, trained: Any, evaluated: Any, parting: str) -> None:
    """Makes the outputs of both modes heads; those that eval mode lacks exist in training only."""
    from graphs.importing.modes import Joint

    in_training, in_eval = _outputs(low, trained, ""), _outputs(low, evaluated, "")
    joint, pairs, both = Joint(low), dict[str, tuple[str, str]](), set[str]()
    for name, own in _same_output(in_training, in_eval).items():
        node = in_eval[name]
        both.add(own)
        if own and in_training[own] == node:
            continue
        if not own or not joint.possible(in_training[own], node):
            place = f", from {parting} on" if parting else ""
            raise GraphError(
                f"the output '{name}' is of another shape or type in train mode than in eval mode, or there is none"
                f"{place}; give the same outputs in both, and those for training only beside them"
            )
        pairs[own] = (in_training[own], node)
    before = dict(low.draft.nodes)
    one_for_both = {name: joint.join(*pair) for name, pair in pairs.items()}
    if pairs and not joint.finish():
        low.draft.nodes = before
        joint = Joint(low, merging=False)
        one_for_both = {name: joint.join(*pair) for name, pair in pairs.items()}
        joint.finish()
    for name, node in in_training.items():
        low.draft.heads.append(Head(name, one_for_both.get(name, node), training_only=name not in both))


def _same_output(in_training: Mapping[str, str], in_eval: Mapping[str, str]) -> dict[str, str]:
    """For each output of eval mode, which of train mode it is, by name; an empty name where there is none.

    The same node under the same name; or else the same node; or else another node under the same name, or as the first
    where eval mode has no other. Where that leaves one without, names alone count.
    """
    found = {name: name for name, node in in_eval.items() if in_training.get(name) == node}
    for name, node in in_eval.items():
        if name not in found:
            same = (each for each, twin in in_training.items() if twin == node)
            like = name if name in in_training else next(iter(in_training), "") if name == "logits" else ""
            found[name] = next((each for each in (*same, like) if each not in found.values()), "")
    named = "" in found.values() and in_eval.keys() <= in_training.keys()
    return {name: name for name in in_eval} if named else found


def _outputs(low: Lowering, value: Any, name: str) -> dict[str, str]:
    from graphs.importing.labels import labelled
    from graphs.importing.stand_ins import Held, Numbering, Program, Ref, Unknown, refs_of

    if isinstance(value, Unknown):
        raise low.refusal(value, "gives")
    elif isinstance(value, Numbering):
        raise low.error(
            f"the output '{name or 'logits'}' numbers the examples, and does not depend on them; leave it out"
        )
    elif isinstance(value, Ref) and not value.bare:
        return {name or "logits": value.node}
    elif isinstance(value, Held) or (isinstance(value, Ref | Program) and not _made_of_inputs(low, refs_of(value))):
        raise low.error(f"the output '{name or 'logits'}' does not depend on the input; leave it out")
    elif isinstance(value, Ref) or (isinstance(value, Program) and value.seen.shapes and value.seen.constant):
        raise low.error(
            f"the output '{name or 'logits'}' is one for the whole batch; give one for each example, as a loss with "
            "reduction='none' is"
        )
    elif isinstance(value, Program):
        raise low.error(f"the batch is not the first axis of the output '{name or 'logits'}'")
    found: dict[str, str] = {}
    for label, part in labelled(value, name) if isinstance(value, Mapping | list | tuple) else ():
        new = _outputs(low, part, label)
        if twice := sorted(new.keys() & found.keys()):
            raise low.error(f"two of its outputs would be called '{twice[0]}'; give them names that stay apart")
        found.update(new)
    return found


def _made_of_inputs(low: Lowering, values: Iterable[Ref]) -> bool:
    """Whether an input is among what values are made of."""
    seen: set[str] = set()
    ahead = [value.node for value in values]
    while ahead:
        id = ahead.pop()
        if id not in seen:
            seen.add(id)
            ahead.extend(low.draft.nodes[id].inputs)
    return not seen.isdisjoint(low.inputs.values())


def _finish(low: Lowering) -> Genome:
    import torch

    from graphs.importing.held import further_names
    from graphs.importing.ranges import entries

    if not low.draft.heads:
        raise GraphError("the forward pass gives no tensor")
    low.draft.prune()
    unread = [name for name, node in low.inputs.items() if node not in low.draft.nodes]
    if unread:
        raise GraphError(f"the forward pass does not use its argument '{unread[0]}'; leave it out of the example")
    for node in low.inputs.values():
        settings = low.draft.nodes[node].settings
        if settings["dtype"] == "integer":
            example = low.given[settings["name"]]
            columns = example.flatten(0, -2) if example.ndim > 1 else example[:, None]
            shown = [max(1, int(number) + 1) for number in columns.amax(0)]
            most = entries(low.draft.nodes, node, shown, lambda id: low.types[id] == torch.bool)
            low.draft.set(node, most=most)
    used = {name for node in low.draft.nodes.values() for name in node.tensors.values()}
    known = {held.name: held for held in low.held.values()}
    unused = {name: held.how for name, held in known.items() if name not in used and held.how != "constant"}
    frozen = {name for name, held in known.items() if held.how == "parameter" and not held.tensor.requires_grad}
    graph = low.draft.finish()
    kept = {name: low.weights[name] for name in low.weights if name in used}
    kept |= {name: known[name].tensor for name in unused}
    order = tuple(low.module.state_dict())
    state = State(
        frozenset(frozen), further_names(low.module, low.held), unused, order if order != (*graph.tensors,) else ()
    )
    with torch.no_grad():
        weights = {
            name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
            for name, tensor in kept.items()
        }
    return Genome(graph, weights, state.told({}))
