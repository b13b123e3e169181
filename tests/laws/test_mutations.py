"""Laws of every mutation, on the networks of the zoo and on random ones.

A child passes its certificate in the modes that its site promises, and the measurement is never blind. In float32 its
outputs are the parent's. The parent stays as it is, the record leads to the same child bit for bit, also in another
process, ids are not used again, and what is new learns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

import graphs
from graphs import files
from graphs.check import check
from graphs.execution import execute
from graphs.genome import Genome
from graphs.kinds import KINDS, tensors
from graphs.modules import to_torch
from graphs.structure import Graph
from ops import MUTATIONS, Child, Record, Site, certify, replay
from ops.axis_maps import AxisMap
from ops.stirring import stir
from ops.transfer import Extended, Mapped
from tests.strategies import MADE, SMALL_ZOO, WHOLE_ZOO, budget, inputs, mapped, networks, residual, small, transformer

EXACT = [name for name, mutation in MUTATIONS.items() if mutation.preserves == "exact"]

ROOT = Path(__file__).resolve().parents[2]


def bold(genome: Genome) -> Genome:
    """The genome with weights that hide nothing, in float32 like those of a trained network."""
    weights = stir(genome, inputs(genome.graph)).weights
    return Genome(genome.graph, {name: tensor.to(genome.weights[name].dtype) for name, tensor in weights.items()})


@cache
def stirred(model: str) -> Genome:
    """A network of the zoo, small, with weights that hide nothing."""
    return bold(small(model))


def some_sites(name: str, genome: Genome, count: int = 2) -> Iterator[Site]:
    """Up to so many sites, spread over the network, of each promise that is made."""
    sites = MUTATIONS[name].sites(genome)
    for promise in dict.fromkeys(site.preserves for site in sites):
        fitting = [site for site in sites if site.preserves == promise]
        yield from (fitting[place] for place in sorted({place * len(fitting) // count for place in range(count)}))


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("model", WHOLE_ZOO)
def test_zoo(name: str, model: str) -> None:
    draws = numpy.random.default_rng(1)
    parent = stirred(model)
    for site in some_sites(name, parent, 2 if model in SMALL_ZOO else 1):
        child = MUTATIONS[name].apply(parent, site, draws, born=7)
        check_child(parent, child)
        check_float32(parent, child.genome, modes(child), 1e-5)
    for site in some_sites(name, small(model), 1) if model in SMALL_ZOO else ():
        check_child(small(model), MUTATIONS[name].apply(small(model), site, draws, born=7))


@cache
def made(model: str) -> Genome:
    """A network made for the laws, with weights that hide nothing."""
    return bold(MADE[model]())


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("model", MADE)
def test_made_networks(name: str, model: str) -> None:
    draws, parent = numpy.random.default_rng(1), made(model)
    for genome in (MADE[model](), parent):
        for site in some_sites(name, genome):
            check_child(genome, MUTATIONS[name].apply(genome, site, draws, born=7))
    for site in some_sites(name, parent):
        child = MUTATIONS[name].apply(parent, site, draws)
        check_float32(parent, child.genome, modes(child), 1e-5)


@pytest.mark.parametrize("model", MADE)
def test_every_site_that_is_offered_can_be_made(model: str) -> None:
    draws, parent = numpy.random.default_rng(2), made(model)
    for mutation in MUTATIONS.values():
        for site in mutation.sites(parent):
            check(mutation.apply(parent, site, draws).genome.graph)


NEITHER = {"widen_keys", "add_heads", "drop_heads", "insert_transformer_layer", "widen_stream"}
"""What works on attention, or on streams between layer norms, and so not on a network without."""


@pytest.mark.parametrize("name", sorted(MUTATIONS.keys() - NEITHER))
@pytest.mark.parametrize("places", [1, 3])
def test_sequences_and_volumes_have_the_sites_that_images_have(name: str, places: int) -> None:
    parent, image = mapped(places), mapped(2)
    undone = MUTATIONS[name].undoes
    if undone is not None:
        parent, image = (_at_every_site(genome, undone) for genome in (parent, image))
    assert len(MUTATIONS[name].sites(parent)) == len(MUTATIONS[name].sites(image)) > 0


def _at_every_site(genome: Genome, name: str) -> Genome:
    """A network in which a mutation has been at work, at the first site and at the last."""
    for end in (0, -1):
        genome = MUTATIONS[name].apply(genome, MUTATIONS[name].sites(genome)[end], numpy.random.default_rng(3)).genome
    return genome


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_has_a_site_in_the_zoo_or_a_transformer(name: str) -> None:
    """One that undoes another one, a site of its best promise where that one has been."""
    mutation = MUTATIONS[name]
    parents = [*map(small, SMALL_ZOO), transformer(), residual("layer_norm")]
    if mutation.undoes is None:
        assert any(mutation.sites(parent) for parent in parents)
        return
    undone = MUTATIONS[mutation.undoes]
    for parent in parents:
        for site in undone.sites(parent)[:1]:
            child = undone.apply(parent, site, numpy.random.default_rng(0))
            promises = {found.preserves for found in mutation.sites(child.genome)}
            assert child.preserves in promises and mutation.preserves == undone.preserves


@budget(70)
@given(networks(), st.integers(0, 2**32))
def test_random_networks(parent: Genome, seed: int) -> None:
    draws = numpy.random.default_rng(seed)
    batch = inputs(parent.graph, 16, 3, torch.float32)["x"] if seed % 2 and len(parent.graph.inputs) == 1 else None
    for mutation in MUTATIONS.values():
        sites = mutation.sites(parent)
        if sites:
            child = mutation.apply(parent, sites[int(draws.integers(len(sites)))], draws, batch)
            check_child(parent, child)
            check_float32(parent, child.genome, modes(child), 1e-5)


def modes(child: Child) -> tuple[bool, ...]:
    """In which modes (training or not) the function is kept and a module draws no random numbers."""
    draws = any(KINDS[node.kind].random(node.settings) for node in child.genome.graph.nodes.values())
    return {"exact": (False,) if draws else (False, True), "eval-exact": (False,), "approximate": ()}[child.preserves]


def check_child(parent: Genome, child: Child) -> None:
    digest = files.digest(parent)
    graph = child.genome.graph
    check(graph)
    assert not child.genome.graph.nodes.keys() - set(graph.shapes)
    run = execute(graph, child.genome.weights, inputs(graph, 4, dtype=torch.float32), training=True)
    assert run.values.keys() == graph.in_mode(training=True).nodes.keys()
    assert all(tuple(value.shape[1:]) == graph.shapes[id] for id, value in run.values.items())
    check_ids(parent.graph, graph, child.record.born)
    check_certificate(parent, child)
    check_replay(parent, child)
    assert files.digest(parent) == digest == parent.digest


def check_ids(parent: Graph, child: Graph, born: int) -> None:
    """New nodes have new numbers and say when they came; old ones are as old as before."""
    for id, node in child.nodes.items():
        if id in parent.nodes:
            assert node.born == parent[id].born
        else:
            assert node.born == born
            assert parent.counter <= int(id.rpartition("#")[2]) < child.counter
    assert child.counter >= parent.counter


def check_certificate(parent: Genome, child: Child) -> None:
    certificate = certify(parent, child)
    found = {"eval": certificate.eval.verdict, "train": certificate.train.verdict}
    promised = {"exact": {"eval", "train"}, "eval-exact": {"eval"}, "approximate": set()}[child.preserves]
    for mode, verdict in found.items():
        assert verdict in ({"pass", "unreached"} if mode in promised else {"approximate", "unreached"}), certificate
    assert set(found.values()) != {"unreached"}, certificate
    assert not certificate.broken


def check_replay(parent: Genome, child: Child) -> None:
    record = Record.from_json(json.loads(json.dumps(child.record.to_json())))
    assert record == child.record
    again = replay(parent, record, child.tensors)
    assert again.digest == child.genome.digest
    assert again.graph == child.genome.graph
    for name, tensor in child.genome.weights.items():
        assert torch.equal(again.weights[name], tensor) and again.weights[name].dtype == tensor.dtype, name


def outputs(genome: Genome, training: bool) -> dict[str, Tensor]:
    """Outputs of the module in float32, by head."""
    module = to_torch(genome).train(training)
    with torch.no_grad():
        found = module(**inputs(genome.graph, 8, dtype=torch.float32))
    names = [head.name for head in genome.graph.heads if training or not head.training_only]
    return {names[0]: found} if isinstance(found, Tensor) else {name: found[name] for name in names}


@lru_cache(maxsize=4)
def of_parent(parent: Genome, training: bool) -> dict[str, Tensor]:
    """Its outputs, which are the same for each of its children."""
    return outputs(parent, training)


def check_float32(parent: Genome, child: Genome, which: tuple[bool, ...], allowed: float) -> None:
    """In units of the deviation of each head; or within 20 times what rounding does to the parent."""
    for training in which:
        before, after = of_parent(parent, training), outputs(child, training)
        assert before.keys() == after.keys()
        for name, output in before.items():
            unit = float(output.std(0, correction=0).square().mean().sqrt())
            error = float((after[name] - output).abs().max())
            if error > allowed * unit:
                assert error <= 20 * rounding(parent, child, name, training), (name, training, error / unit)


def rounding(parent: Genome, child: Genome, head: str, training: bool) -> float:
    """How far an output of the parent moves where what changed nodes read is multiplied by 1 ± 2^-23."""
    graph, generator = parent.graph, torch.Generator().manual_seed(0)
    changed = {
        id
        for nodes in (graph.nodes, child.graph.nodes)
        for id, node in nodes.items()
        if graph.nodes.get(id) != child.graph.nodes.get(id) or not _same(parent, child, node.tensors.values())
    }

    def perturb(id: str, slot: int, value: Tensor) -> Tensor:
        if id not in changed:
            return value
        return value * (1 + 2.0**-23 * (torch.randint(0, 2, value.shape, generator=generator) * 2 - 1))

    examples = inputs(graph, 8, dtype=torch.float32)
    node = next(each.node for each in graph.heads if each.name == head)
    plain = execute(graph, parent.weights, examples, training=training).values[node]
    moved = execute(graph, parent.weights, examples, training=training, adjust=perturb).values[node]
    return float((plain - moved).abs().max())


def _same(parent: Genome, child: Genome, names: Iterable[str]) -> bool:
    return all(
        name in parent.weights and name in child.weights and torch.equal(parent.weights[name], child.weights[name])
        for name in names
    )


# Chains -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", SMALL_ZOO)
def test_ten_exact_mutations_in_a_row(model: str) -> None:
    parent = stirred(model)
    check_chain(parent, seed=3)


@budget(25)
@given(networks(largest=8), st.integers(0, 2**32))
def test_chains_on_random_networks(parent: Genome, seed: int) -> None:
    check_chain(parent, seed)


def check_chain(parent: Genome, seed: int) -> None:
    """Ten exact mutations: the function is kept, in float32 too, no id comes twice, and all of it can be replayed."""
    draws = numpy.random.default_rng(seed)
    now, seen, records = parent, set(parent.graph.nodes), []
    for born in range(1, 11):
        found = [(name, site) for name in EXACT for site in MUTATIONS[name].sites(now) if site.preserves == "exact"]
        if not found:
            break
        name = str(draws.choice(sorted({name for name, _ in found})))
        sites = [site for each, site in found if each == name]
        child = MUTATIONS[name].apply(now, sites[int(draws.integers(len(sites)))], draws, born=born)
        fresh = child.genome.graph.nodes.keys() - now.graph.nodes.keys()
        assert seen.isdisjoint(fresh)
        seen |= fresh
        records.append(child.record)
        now = child.genome
    draws_numbers = any(KINDS[node.kind].random(node.settings) for node in now.graph.nodes.values())
    for training in (False,) if draws_numbers else (False, True):
        before, after = (_run(genome, training) for genome in (parent, now))
        for head, value in before.items():
            unit = float(value.std(0, correction=0).square().mean().sqrt())
            assert float((after[head] - value).abs().max()) <= 1e-10 * max(unit, 1e-3), (head, training)
    check_float32(parent, now, (False,) if draws_numbers else (False, True), 1e-4)
    again = parent
    for record in records:
        again = replay(again, record)
    assert again.digest == now.digest


def _run(genome: Genome, training: bool) -> dict[str, Tensor]:
    weights = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in genome.weights.items()
    }
    run = execute(genome.graph, weights, inputs(genome.graph), training=training)
    return {head.name: run.values[head.node] for head in genome.graph.heads}


# Another process ----------------------------------------------------------------------------------------------------

REPLAY = """
import json, sys, pathlib
import graphs, ops
from graphs.files import digest
folder = pathlib.Path(sys.argv[1])
for line in (folder / "records.jsonl").read_text().splitlines():
    case = json.loads(line)
    parent = graphs.load(folder / case["parent"])
    print(digest(ops.replay(parent, ops.Record.from_json(case["record"]))))
"""


def test_another_process_replays_the_same_children(tmp_path: Path) -> None:
    lines, digests = [], []
    for number, model in enumerate(("convnet", "resnet", "densenet")):
        parent = stirred(model)
        graphs.save(parent, tmp_path / f"{number}.safetensors")
        for name in MUTATIONS:
            for site in some_sites(name, parent, 1):
                child = MUTATIONS[name].apply(parent, site, numpy.random.default_rng(number))
                lines.append(json.dumps({"parent": f"{number}.safetensors", "record": child.record.to_json()}))
                digests.append(child.genome.digest)
    (tmp_path / "records.jsonl").write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == digests


# Learning -----------------------------------------------------------------------------------------------------------


def trained(genome: Genome, steps: int, seed: int = 0) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
    """The largest gradient that each entry of each parameter got in so many steps of SGD; the weights after them."""
    module = to_torch(genome)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
    largest = {name: torch.zeros_like(parameter) for name, parameter in module.named_parameters()}
    taught = reached_by_gradients(genome.graph)
    torch.manual_seed(seed)
    for step in range(steps):
        found = module(**inputs(genome.graph, 16, step, torch.float32))
        heads = [found] if isinstance(found, Tensor) else found.values()
        losses = [cross_entropy(output, torch.arange(16) % output.shape[1]) for output in heads]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        for name, parameter in module.named_parameters():
            if name not in taught:
                assert parameter.grad is None, name
                continue
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
            largest[name] = largest[name].maximum(parameter.grad.abs())
        optimiser.step()
    return largest, module.state_dict()


def reached_by_gradients(graph: Graph) -> set[str]:
    """The tensors that train mode uses, and from which not every path to an output is stopped."""
    nodes = graph.in_mode(training=True).nodes
    found = {head.node for head in graph.heads}
    for node in reversed(list(nodes.values())):
        if node.id in found and not KINDS[node.kind].stops:
            found.update(node.inputs)
    return {name for id in found for name in nodes[id].tensors.values()}


def fresh_parameters(parent: Genome, child: Child) -> list[str]:
    specs, taught = tensors(child.genome.graph), reached_by_gradients(child.genome.graph)
    return [name for name, spec in specs.items() if not spec.buffer and name not in parent.weights and name in taught]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("model", SMALL_ZOO)
def test_what_is_new_learns_within_two_steps(name: str, model: str) -> None:
    check_what_is_new_learns(name, stirred(model))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("model", MADE)
def test_what_is_new_in_a_made_network_learns_within_two_steps(name: str, model: str) -> None:
    check_what_is_new_learns(name, made(model))


def check_what_is_new_learns(name: str, parent: Genome) -> None:
    """Every new parameter, and the new entries of those that have grown."""
    for site in some_sites(name, parent, 1):
        child = MUTATIONS[name].apply(parent, site, numpy.random.default_rng(5))
        gradients, _ = trained(child.genome, 2)
        for each in fresh_parameters(parent, child):
            assert gradients[each].any(), (site, each)
        for tensor, plan in child.transfer.plans.items():
            for axis in plan.axes if isinstance(plan, Mapped | Extended) else ():
                if not isinstance(axis, AxisMap) or tensor not in gradients:
                    continue
                new = torch.from_numpy(numpy.flatnonzero(axis.index < 0))
                assert len(new) == 0 or gradients[tensor].index_select(axis.axis, new).any(), (site, tensor)


@budget(50)
@given(networks(largest=9), st.integers(0, 2**32))
def test_what_is_new_in_random_networks_learns(parent: Genome, seed: int) -> None:
    """All gradients are finite; in a network that is not dead already, some new parameter gets one in two steps."""
    draws = numpy.random.default_rng(seed)
    for name in EXACT:
        sites = MUTATIONS[name].sites(parent)
        if sites:
            child = MUTATIONS[name].apply(parent, sites[int(draws.integers(len(sites)))], draws)
            assert learns(parent, child) or not alive(parent), child.record


def alive(genome: Genome) -> bool:
    """Whether no value of a network is zero on all examples, and each of its own parameters gets a gradient."""
    run = execute(genome.graph, genome.weights, inputs(genome.graph, 16, 0, torch.float32), training=True)
    gradients, _ = trained(genome, 2)
    return all(bool(value.any()) for value in (*run.values.values(), *gradients.values()))


def learns(parent: Genome, child: Child) -> bool:
    """Whether some new parameter gets a gradient in two steps, or there is none.

    A network that draws may drop the site in both steps; it is drawn again.
    """
    fresh = fresh_parameters(parent, child)
    tries = 4 if any(KINDS[node.kind].random(node.settings) for node in child.genome.graph.nodes.values()) else 1
    for seed in range(tries):
        gradients, _ = trained(child.genome, 2, seed)
        if not fresh or any(bool(gradients[each].any()) for each in fresh):
            return True
    return False


@pytest.mark.parametrize("model", SMALL_ZOO)
def test_copied_channels_part_in_training(model: str) -> None:
    parent = stirred(model)
    for site in some_sites("widen", parent):
        child = MUTATIONS["widen"].apply(parent, site, numpy.random.default_rng(6))
        _, weights = trained(child.genome, 5)
        check_twins(child, weights)


@pytest.mark.parametrize("model", ["convnet", "resnet"])
def test_copies_that_share_evenly_stay_tied(model: str) -> None:
    """Equal gradients, step by step: the reason why this is not the default."""
    parent = stirred(model)
    site = MUTATIONS["widen"].sites(parent)[1]
    child = MUTATIONS["widen"].apply(parent, site, numpy.random.default_rng(6), choices={"split": "even"})
    check_child(parent, child)
    _, weights = trained(child.genome, 5)
    tied = 0
    for name, plan in child.transfer.plans.items():
        for axis in plan.axes if isinstance(plan, Mapped) else ():
            if isinstance(axis, AxisMap) and axis.take is None and weights[name].ndim > 1:
                slices = weights[name].movedim(axis.axis, 0)
                first = numpy.unique(axis.index, return_index=True)[1][axis.index]
                copies = numpy.flatnonzero(first != numpy.arange(len(first)))
                torch.testing.assert_close(slices[copies], slices[first[copies]], rtol=1e-4, atol=1e-6)
                tied += len(copies)
    assert tied


def check_twins(child: Child, after: Mapping[str, Tensor]) -> None:
    """No two copies of a channel are alike in a tensor that writes it."""
    for name, plan in child.transfer.plans.items():
        if not isinstance(plan, Mapped) or after[name].ndim < 2:
            continue
        for axis in plan.axes:
            if not isinstance(axis, AxisMap) or axis.take is not None:
                continue
            slices = after[name].movedim(axis.axis, 0)
            for source in {int(entry) for entry in axis.index}:
                twins = [slices[place] for place in numpy.flatnonzero(axis.index == source)]
                assert all(not torch.equal(twins[0], other) for other in twins[1:]), (name, source)


@pytest.mark.parametrize("model", SMALL_ZOO)
def test_copied_heads_part_in_training(model: str) -> None:
    parent = stirred(model)
    for site in some_sites("split_head", parent):
        child = MUTATIONS["split_head"].apply(parent, site, numpy.random.default_rng(6))
        _, weights = trained(child.genome, 3)
        for name, plan in child.transfer.plans.items():
            if isinstance(plan, Mapped) and weights[name].ndim > 1:
                assert not torch.equal(weights[name], weights[plan.source]), name
