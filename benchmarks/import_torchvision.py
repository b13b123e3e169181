"""All classification networks of torchvision: in, out again, and mutated.

Claim: each of the 80 comes in with `graphs.from_torch` and leaves with `graphs.to_torch` computing the same bits in
eval mode and, at equal seed with dropout and stochastic depth on, in train mode, with equal updated buffers and the
same state_dict; where attention is rewritten, the same to 1e-6 of the outputs' deviation. Its mutations certify.
Environment: a CPU; printed with the versions. n = 1 of each network, 80 in all, the smallest first, each in a process
of its own, so that one network and what it became are in memory at a time.
Method: fresh weights (no download), made lively: parameters that are zero or nearly so (heads, residual and layer
scales) and the statistics of norms are drawn anew, so that nothing is equal because it is hidden. The input is square,
of the smallest side that the network accepts in both modes, and no smaller than --least. The fast path of
torch.nn.MultiheadAttention, other arithmetic than its slow one, is off. What is not equal bit for bit is compared again
on stirred weights in float64, as in a certificate; the unit is the deviation of each output over the batch. Beside it
stands the noise: what the last bit of the images does to the original in float32. For each role the first operator that
has a site is certified at --sites of them, spread over those that eval mode reaches, on stirred weights in float64. A
network that has no part for a role, such as convolutions and attention for growth, shows "-"; where it has the part but
no site, each reason is printed.
Budget: no network is begun after --budget seconds, none takes more than --seconds or --memory GiB; what was measured is
kept in --to, one JSON object a line, and not measured again, so the benchmark goes on where it ended.

    python benchmarks/import_torchvision.py --to FILE.jsonl [--budget 3600] [--only resnet18,vit_b_16] [--again]
"""

from __future__ import annotations

import argparse
import gc
import math
import platform
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from measured_apart import Stopped, apart, keep, kept
from torch import Tensor, nn
from torchvision_networks import SEED, certified, names, prepared, probe, reached

import graphs
import ops
from graphs.errors import EvolutionError
from ops.differences import largest, unit
from ops.stirring import stir

ROLES = {
    "widen": ("widen",),
    "deepening": ("insert_block", "deepen", "insert_transformer_layer"),
    "growth": ("grow_kernel", "widen_keys", "add_heads"),
}
"""What has to certify, and the operators that count as it, in the order in which they are tried."""

PARTS = {"widen": None, "deepening": None, "growth": {"conv2d", "attention", "softmax"}}
"""Kinds of which a network has to have one for a role to be asked of it; None: every network has."""

REWRITTEN = {"attention", "softmax"}
"""Kinds whose arithmetic is not the original's."""

CLOSE = 1e-6
"""Most that a rewritten network may differ, in deviations of its outputs."""


def measured(name: str, least: int, sites: int, threads: int) -> Iterator[dict[str, Any]]:
    """All that is measured of one network, again and again as it grows; what goes wrong is part of it."""
    torch.set_num_threads(threads)
    torch.backends.mha.set_fastpath_enabled(False)
    row: dict[str, Any] = {"name": name, "refused": None}
    try:
        original, images = prepared(name, least)
        genome = _there_and_back(original, images, row)
        row["sites"] = {name: len(mutation.sites(genome)) for name, mutation in ops.MUTATIONS.items()}
        row["without"] = [ops.MUTATIONS[name].refusal(genome) for name, sites in row["sites"].items() if not sites]
        yield row
        inputs = probe(genome)
        bold = stir(genome, inputs, SEED)
        del genome
        if row["eval"] or row["train"]:
            _stirred(original, bold, images, row)
        del original
        gc.collect()
        for role in ROLES:
            _certify(bold, role, sites, inputs, row)
            yield row
    except EvolutionError as error:
        row["refused"] = " ".join(str(error).split())
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        row["refused"] = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}"
    yield row


def _there_and_back(original: nn.Module, images: Tensor, row: dict[str, Any]) -> graphs.Genome:
    """Imports the network, writes into `row` how the module that comes out differs, and gives the genome."""
    row["side"] = images.shape[-1]
    begin, work = time.perf_counter(), time.process_time()
    genome = graphs.from_torch(original, images)
    row["seconds"], row["cpu"] = time.perf_counter() - begin, time.process_time() - work
    row["nodes"] = len(genome.graph.nodes)
    row["parameters"] = graphs.parameters(genome.graph)
    row["opaque"] = [node.id for node in genome.graph.nodes.values() if node.kind == "opaque"]
    row["rewritten"] = sum(node.kind in REWRITTEN for node in genome.graph.nodes.values())
    row["certified"], row["why"] = {}, {}
    module = graphs.to_torch(genome)
    row["state"] = _same(original.state_dict(), module.state_dict())
    row |= _compared(original, module, images)
    row["buffers"] = _same(original.state_dict(), module.state_dict())
    return genome


def _stirred(original: nn.Module, bold: graphs.Genome, images: Tensor, row: dict[str, Any]) -> None:
    """Compares again on stirred weights, in float64, and notes the noise beside it.

    The original takes the genome's tensors over, but for its buffers: there may be no room for one more copy.
    """
    buffers = dict(original.named_buffers())
    state = {
        name: bold.weights[name].clone() if name in buffers else bold.weights[name] for name in original.state_dict()
    }
    original.load_state_dict(state, assign=True)
    row["stirred"] = _compared(original.double(), graphs.to_torch(bold), images.double())
    gc.collect()
    row["noise"] = _noise(original.float(), images)


def _compared(original: nn.Module, module: nn.Module, images: Tensor) -> dict[str, float | None]:
    """The difference of two modules in each mode, with equal seeds."""
    found = {}
    with torch.no_grad():
        for mode in ("eval", "train"):
            outputs = []
            for each in (original, module):
                each.train(mode == "train")
                torch.manual_seed(SEED)
                outputs.append(_named(each(images)))
            found[mode] = _difference(*outputs)
    return found


def _noise(module: nn.Module, images: Tensor) -> float:
    """What the last bit of the images does to the outputs of a module in eval mode, as a difference."""
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(SEED)) * 2 - 1
    last = torch.finfo(images.dtype).eps * signs
    with torch.no_grad():
        found = _difference(*(_named(module.eval()(each)) for each in (images, images * (1 + last))))
    return math.nan if found is None else found


def _named(output: Any) -> list[Tensor]:
    """The tensors of an output: sorted by their names where they have names, else in their order."""
    if isinstance(output, Tensor):
        return [output]
    fields = output._asdict() if hasattr(output, "_asdict") else output
    if isinstance(fields, Mapping):
        return [fields[name] for name in sorted(fields) if fields[name] is not None]
    return list(output)


def _difference(expected: list[Tensor], got: list[Tensor]) -> float | None:
    """Largest difference, in deviations of the original; 0 only if all bits are equal, None if the forms differ."""
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in got]:
        return None
    if all(torch.equal(one, other) for one, other in zip(expected, got, strict=True)):
        return 0.0
    return max(largest(other - one) / (unit(one) or math.nan) for one, other in zip(expected, got, strict=True))


def _same(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> bool:
    return expected.keys() == got.keys() and all(torch.equal(tensor, got[name]) for name, tensor in expected.items())


def _certify(bold: graphs.Genome, role: str, sites: int, inputs: Mapping[str, Tensor], row: dict[str, Any]) -> None:
    """Certifies the first operator of a role that has sites, or says why none has."""
    name = next((name for name in ROLES[role] if row["sites"][name]), None)
    parts = PARTS[role]
    if name is None:
        if parts is None or any(node.kind in parts for node in bold.graph.nodes.values()):
            row["certified"][role], row["why"][role] = [], _reasons(bold.graph)
        return
    places = reached(bold.graph, ops.MUTATIONS[name].sites(bold))
    chosen = sorted({len(places) * (2 * number + 1) // (2 * sites) for number in range(sites)})
    row["certified"][role] = []
    for number in chosen:
        row["certified"][role].append(certified(bold, name, places[number], inputs))


def _reasons(graph: graphs.Graph) -> list[str]:
    """Why channels of the network cannot be changed, each reason once."""
    return list(dict.fromkeys(graphs.explain(graph, node) for node in graph.nodes))


# --- the table


def proven(row: Mapping[str, Any], role: str) -> bool:
    """Whether the role was certified everywhere it was tried, at one site or more."""
    tried = row.get("certified", {}).get(role, [])
    return bool(tried) and all(each["verdict"] == "certified" for each in tried)


def equal(row: Mapping[str, Any]) -> bool:
    """Whether what came out is what went in, bit for bit."""
    return row.get("eval") == row.get("train") == 0.0 and restored(row)


def close(row: Mapping[str, Any]) -> bool:
    """Whether a network whose attention is rewritten comes out near enough, on stirred weights."""
    found = row.get("stirred", {})
    near = all(found.get(mode) is not None and found[mode] <= CLOSE for mode in ("eval", "train"))
    return bool(row.get("rewritten")) and near and bool(row.get("state"))


def restored(row: Mapping[str, Any]) -> bool:
    """Whether the state is the original's, bit for bit, before and after a pass in train mode."""
    return bool(row.get("state")) and bool(row.get("buffers"))


def figure(difference: float | None) -> str:
    """A difference of outputs for the table."""
    return "other form" if difference is None else "equal" if difference == 0 else f"{difference:.0e}"


def line(row: Mapping[str, Any]) -> str:
    """The row of one network: what came out, and what was certified."""
    if "buffers" not in row:
        return f"{row['name']:20s} refused: {row['refused']}"
    facts = f"{row['side']:4d} {row['nodes']:5d} {row['seconds']:7.2f} {row['cpu']:7.2f} {len(row['opaque']):6d}"
    stirred = row.get("stirred", {"eval": 0.0, "train": 0.0})
    same = " ".join(f"{figure(found[mode]):>10s}" for found in (row, stirred) for mode in ("eval", "train"))
    verdicts = " ".join(f"{_verdicts(row, role):30s}" for role in ROLES)
    noise = f"{row['noise']:8.0e}" if "noise" in row else f"{'-':>8s}"
    text = f"{row['name']:20s} {facts} {same} {noise} {row['buffers']!s:>7s} {row['state']!s:>5s}  {verdicts}".rstrip()
    reasons = [row["refused"]] if row["refused"] else []
    reasons += [f"{role}: {reason}" for role, why in row.get("why", {}).items() for reason in why]
    return "\n".join([text, *(f"{'':20s} refused: {reason}" for reason in reasons)])


def _verdicts(row: Mapping[str, Any], role: str) -> str:
    tried = row.get("certified", {}).get(role)
    if not tried:
        return "no site" if tried == [] else "-"
    return ", ".join(dict.fromkeys(f"{each['operator']} {each['verdict']}" for each in tried))


def counts(row: Mapping[str, Any]) -> str:
    """The row of one network in the table of sites."""
    numbers = (f"{row.get('sites', {}).get(name, '-')!s:>{len(name)}s}" for name in ops.MUTATIONS)
    return f"{row['name']:20s} {' '.join(numbers)}"


def report(rows: Mapping[str, Mapping[str, Any]], wanted: list[str]) -> None:
    """Prints the tables and what they come to."""
    differences = " ".join(f"{title:>10s}" for title in ("eval", "train", "stirred", "stirred"))
    titles = f"{'name':20s} side nodes seconds     cpu opaque {differences}    noise buffers state"
    print(f"{titles}  {' '.join(f'{role:30s}' for role in ROLES)}")
    done = [rows[name] for name in wanted if name in rows]
    for row in done:
        print(line(row))
    print(f"\nsites of each operator\n{'name':20s} {' '.join(ops.MUTATIONS)}")
    for row in done:
        print(counts(row))
    refused: dict[str, list[str]] = {}
    for row in done:
        for reason in row.get("without", ()):
            refused.setdefault(reason, []).append(row["name"])
    print()
    for reason, among in refused.items():
        print(f"{reason} ({', '.join(among)})")
    print(f"\n{len(done)} of {len(wanted)} measured; {sum(map(equal, done))} come in and go out bit for bit,", end=" ")
    print(f"{sum(close(row) and not equal(row) for row in done)} more within {CLOSE:.0e} where attention is rewritten;")
    print(f"the state of {sum(map(restored, done))} is restored bit for bit, updated buffers too")
    for role in ROLES:
        without = sum(role not in row.get("certified", {}) for row in done)
        print(f"{role}: certified on {sum(proven(row, role) for row in done)} of {len(done)}, {without} have no part")


def main() -> None:
    """Measures what is missing, and prints all there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="file of JSON lines that keeps the rows")
    parser.add_argument("--only", default="", help="names, with commas between them")
    parser.add_argument("--budget", type=float, default=3600, help="seconds after which no network is begun")
    parser.add_argument("--seconds", type=float, default=900, help="seconds after which a network is given up")
    parser.add_argument("--memory", type=float, default=10, help="GiB that a network may take")
    parser.add_argument("--least", type=int, default=32, help="smallest side of an image")
    parser.add_argument("--sites", type=int, default=1, help="sites certified for each role")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--again", action="store_true", help="measure once more what was refused or not certified")
    given = parser.parse_args()
    known = names()
    wanted = given.only.split(",") if given.only else known
    for name in wanted:
        if name not in known:
            parser.error(f"torchvision has no classification network '{name}'")
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, Python {platform.python_version()}")
    print(f"torch {torch.__version__}, n=1 of each of {len(wanted)} networks, budget {given.budget:.0f} s")
    rows = {row["name"]: row for row in kept(given.to)}
    end = time.monotonic() + given.budget
    for name in wanted:
        if name in rows and not (given.again and _unfinished(rows[name])):
            continue
        if time.monotonic() > end:
            print(f"the budget of {given.budget:.0f} s is spent before {name}; the same command goes on")
            break
        row = {"name": name, "refused": None}
        settings = (name, given.least, given.sites, given.threads)
        try:
            for found in apart(measured, *settings, seconds=given.seconds, gibibytes=given.memory):
                row = found
        except Stopped as error:
            row["refused"] = str(error)
        rows[name] = row
        keep(given.to, row)
        print(line(row), flush=True)
    print()
    report(rows, wanted)


def _unfinished(row: Mapping[str, Any]) -> bool:
    return bool(row["refused"]) or not all(proven(row, role) for role in row.get("certified", {}))


if __name__ == "__main__":
    main()
