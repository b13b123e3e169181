"""Programs of opaque nodes: they write into nothing, and Python's operators see tensors alone."""

from __future__ import annotations

import ast
import inspect
import keyword
from typing import Any

import pytest
import torch
from torch import fx

from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.execution import execute
from graphs.genome import Genome
from graphs.kinds import program
from graphs.kinds.allowed import _NAMES, PREFIXES, function
from graphs.kinds.program import checked_program
from graphs.modules import to_torch
from graphs.source_text import _imports

X: dict[str, Any] = {"in": 0}

TARGETS = sorted(f"{prefix}.{name}" for prefix in PREFIXES for name in _NAMES)
WRITING = {"out", "inplace", "max_norm"}


def there(target: str) -> Any:
    """The function, if this version of torch has it."""
    try:
        return function(target)
    except GraphError:
        return None


@pytest.mark.parametrize("name", sorted(WRITING))
def test_no_function_is_asked_by_name_to_write(name: str) -> None:
    for target in TARGETS:
        with pytest.raises(ValueError, match="step 0"):
            checked_program([[target, [X, X], {name: True}]])


def test_no_function_is_asked_by_position_to_write() -> None:
    found = set()
    for target in TARGETS:
        try:
            names = list(inspect.signature(there(target)).parameters)
        except (TypeError, ValueError):
            continue
        for name in WRITING.intersection(names):
            found.add(target)
            for given in (True, X, {"training": True}, 1.0):
                with pytest.raises(ValueError, match="which write in place"):
                    checked_program([[target, [X] * names.index(name) + [given], {}]])
            checked_program([[target, [X] * names.index(name) + [None], {}]])
    assert {"functional.relu", "functional.elu", "functional.dropout", "functional.embedding", "torch.norm"} <= found


def schemas(name: str) -> list[Any]:
    found = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
    return [schema for schema in found if not any(argument.is_out for argument in schema.arguments)]


@pytest.mark.parametrize("name", sorted(_NAMES))
def test_the_tables_know_what_functions_change_and_give(name: str) -> None:
    """As `torch` itself describes them; what it can do to plain numbers and lists does not matter here."""
    for schema in schemas(name):
        if not schema.arguments or str(schema.arguments[0].type) not in ("Tensor", "List[Tensor]"):
            continue
        names = [argument.name for argument in schema.arguments]
        changed = {each.name for each in schema.arguments if each.alias_info and each.alias_info.is_write}
        assert not changed or name == "sort"  # of a list
        assert WRITING.isdisjoint(names)
        if any("running" in each for each in names):
            assert program._PARAMETERS[f"torch.{name}"] == tuple(names[:5])
        if len(schema.returns) > 1 or any("List" in str(each.type) for each in schema.returns):
            assert name in program._SEVERAL


@pytest.mark.parametrize("name", [*keyword.kwlist, "ｏｕｔ", "größe", "a b", "", "1", "a=1)#"])
def test_names_of_arguments_are_what_python_reads(name: str) -> None:
    with pytest.raises(ValueError, match="step 0: expected names of arguments"):
        checked_program([["torch.add", [X, X], {name: 1}]])


@pytest.mark.parametrize("prefix", [prefix for prefix in PREFIXES if prefix != "method"])
def test_the_text_of_a_network_says_where_functions_come_from(prefix: str) -> None:
    for target in (each for each in TARGETS if each.startswith(f"{prefix}.") and there(each)):
        emitted = fx.Graph()
        x = emitted.placeholder("x")
        emitted.output(emitted.call_function(there(target), (x, x)))
        code = emitted.python_code("self")
        known: dict[str, Any] = {}
        exec(_imports(code, ()), known)  # noqa: S102
        named = [node for node in ast.walk(ast.parse(code.src)) if isinstance(node, ast.Name)]
        assert {node.id for node in named if isinstance(node.ctx, ast.Load)} <= {
            *known,
            *(node.id for node in named if isinstance(node.ctx, ast.Store)),
            "x",
        }


@pytest.mark.parametrize(
    "steps",
    [
        [["operator.truediv", [X, {"batch": 1}], {}]],
        [["operator.mul", [2.5, X], {}]],
        [["torch.max", [X], {}], ["operator.truediv", [X, {"step": 0}], {}]],
        [["torch.max", [X, 1], {}], ["operator.getitem", [{"step": 0}, 0], {}], ["operator.add", [X, {"step": 1}], {}]],
        [["operator.getitem", [X, {"tuple": [{"slice": [None, None, None]}, {"ellipsis": True}, 3]}], {}]],
        [["operator.mod", [X, 2**31], {}]],
        [["method.masked_fill", [X, X, -(2**40)], {}]],
        [["functional.threshold", [X, 0.0, 0.0, False], {}]],
        [["functional.embedding", [X, X, None, None, 2.0, False, False], {}]],
        [["functional.batch_norm", [X, {"tensor": 0}, {"tensor": 1}], {"training": {"training": True}}]],
        [["torch.div", [X, 3], {"rounding_mode": "trunc"}]],
        [["torch.where", [X, X, 0.0], {}], ["operator.mul", [{"step": 0}, 2], {}]],
    ],
)
def test_what_networks_do_is_let_through(steps: list[Any]) -> None:
    assert len(checked_program(steps)) == len(steps)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (["method.sum", [0, -1], {}], "expected a tensor"),
        (["method.add", [1, X], {}], "expected a tensor, whose method it is"),
        (["method.exp", [], {"input": X}], "expected a tensor, whose method it is"),
        (["torch.topk", ["text", X], {}], "expected a tensor as the first argument"),
        (["torch.topk", [X], {}], "expected 2 arguments or more"),
        (["torch.cat", [[1, 2]], {}], "expected a tensor"),
        (["functional.softmax", [X], {"axis": 1}], "unexpected keyword argument 'axis'"),
        (["functional.normalize", [X, 2.0, 1, 1e-6, None, X], {}], "too many positional arguments"),
        (["operator.add", [X], {}], "missing a required argument: 'b'"),
        (["operator.add", [X, X, X], {}], "too many positional arguments"),
        (["operator.neg", [5], {}], "expected a tensor"),
    ],
)
def test_calls_have_the_tensors_and_arguments_that_they_need(step: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^step 0: '{step[0]}': .*{message}"):
        checked_program([step])


def test_the_batch_size_needs_an_operand() -> None:
    draft = Draft()
    x = draft.input((3,))
    step = ["method.expand", [{"tensor": 0}, {"batch": 1}, 3], {}]
    held = [[[1, 3], "parameter", False]]
    part = draft.add("opaque", [], tensors={"0": "part"}, program=[step], reads=[], shape=[3], held=held)
    draft.head(draft.add("add", [x, part]))
    with pytest.raises(GraphError, match="refers to the batch 0, of which there are 0"):
        draft.finish()


@pytest.mark.parametrize("number", [-2, -2.5, 3, {"number": "-inf"}])
def test_a_power_of_a_number_is_written_as_it_is_computed(number: Any) -> None:
    draft = Draft()
    draft.head(draft.add("pointwise", draft.input((3,)), program=[["operator.pow", [number, X], {}]]))
    genome = Genome(draft.finish(), {})
    x = torch.tensor([[2.0, 1.0, 0.0]])
    expected = execute(genome.graph, {}, {"x": x}, training=False).values[genome.graph.heads[0].node]
    assert torch.equal(to_torch(genome)(x), expected)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (["torch.topk", [X, "text"], {}], "cannot be computed: topk"),
        (["torch.topk", [X, 2], {}], "gives something else than a tensor"),
        (["torch.sum", [X, -1], {}], "gives something else than a tensor"),
    ],
)
def test_what_is_only_known_when_it_runs_is_said_with_the_node(step: list[Any], message: str) -> None:
    draft = Draft()
    x = draft.input((3,))
    head = draft.add("opaque", x, program=[step], reads=[[3]], shape=[3])
    draft.head(head)
    with pytest.raises(GraphError, match=rf"^node '{head}' {message}"):
        execute(draft.finish(), {}, {"x": torch.randn(2, 3)}, training=False)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("how", ["buffer", "parameter"])
def test_statistics_of_a_program_leave_the_genome_as_it_is(training: bool, how: str) -> None:
    draft = Draft()
    tensors = {"0": "part.mean", "1": "part.deviation"}
    norm = ["functional.batch_norm", [X, {"tensor": 0}, {"tensor": 1}, None, None, True], {}]
    x = draft.input((3,))
    draft.head(
        draft.add("opaque", x, tensors=tensors, program=[norm], reads=[[3]], shape=[3], held=[[[3], how, False]] * 2)
    )
    genome = Genome(draft.finish(), {"part.mean": torch.zeros(3), "part.deviation": torch.ones(3)})
    execute(genome.graph, genome.weights, {"x": torch.randn(4, 3)}, training=training)
    assert torch.equal(genome.weights["part.mean"], torch.zeros(3))
    assert torch.equal(genome.weights["part.deviation"], torch.ones(3))
