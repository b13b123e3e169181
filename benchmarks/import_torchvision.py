"""All classification networks of torchvision: in, out again, and mutated.

Claim: each of the 80 comes in with `graphs.from_torch` and leaves with `graphs.to_torch` computing the same bits in
eval mode and, at equal seed with dropout and stochastic depth on, in train mode, with equal updated buffers and the
same state_dict; and its mutations certify.
Environment: a CPU; printed with the versions. n = 1 of each network, 80 in all, each in a process of its own, so that
one network and what it became are in memory at a time.
Method: fresh weights (no download), made lively: parameters that are zero or nearly so (heads, residual and layer
scales) and the statistics of norms are drawn anew, so that nothing is equal because it is hidden. The input is square,
of the smallest side that the network accepts in both modes, and no smaller than --least. Per role (widen, deepening,
kernel) the first operator that has a site is certified at --sites of them, on stirred weights in float64.
Budget: no network is begun after --budget seconds; what was measured is kept in --to, one JSON object a line, and not
measured again, so the benchmark goes on where it ended.

    python benchmarks/import_torchvision.py --to FILE.jsonl [--budget 3600] [--only resnet18,vit_b_16] [--again]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

import graphs
import ops
from evolve.vision import torchvision_models
from graphs.errors import EvolutionError
from ops.stirring import stir

ROLES = {"widen": ("widen",), "deepening": ("insert_block", "deepen"), "kernel": ("grow_kernel",)}
"""What has to certify, and the operators that count as it, in the order in which they are tried."""

BATCH = 4
"""Examples, the fewest that a certificate takes."""

SEED = 0


def networks() -> list[str]:
    """Names of the classification networks."""
    models = torchvision_models()
    return list(models.list_models(module=models))


def measured(name: str, least: int, sites: int, threads: int) -> dict[str, Any]:
    """All that is measured of one network; what goes wrong is part of it."""
    torch.set_num_threads(threads)
    row: dict[str, Any] = {"name": name, "refused": None}
    try:
        genome = _there_and_back(name, least, row)
        _mutated(genome, sites, row)
    except EvolutionError as error:
        row["refused"] = " ".join(str(error).split())
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        row["refused"] = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}"
    return row


def _there_and_back(name: str, least: int, row: dict[str, Any]) -> graphs.Genome:
    """Imports the network, writes into `row` how the module that comes out differs, and gives the genome."""
    original, images = _prepared(name, least)
    row["side"] = images.shape[-1]
    begin = time.perf_counter()
    genome = graphs.from_torch(original, images)
    row["seconds"] = time.perf_counter() - begin
    row["nodes"] = len(genome.graph.nodes)
    row["parameters"] = graphs.parameters(genome.graph)
    row["opaque"] = [node.id for node in genome.graph.nodes.values() if node.kind == "opaque"]
    module = graphs.to_torch(genome)
    row["state"] = _same(original.state_dict(), module.state_dict())
    with torch.no_grad():
        for mode in ("eval", "train"):
            outputs = []
            for each in (original, module):
                each.train(mode == "train")
                torch.manual_seed(SEED)
                outputs.append(_named(each(images)))
            row[mode] = _difference(*outputs)
    row["buffers"] = _same(original.state_dict(), module.state_dict())
    return genome


def _prepared(name: str, least: int) -> tuple[nn.Module, Tensor]:
    """The network with lively weights, and a batch of the smallest images that it accepts in both modes."""
    models = torchvision_models()
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # two networks announce how they will draw fresh weights
        module = models.get_model(name, weights=None)
    smallest = max(least, *models.get_model_weights(name).DEFAULT.meta["min_size"])
    generator = torch.Generator().manual_seed(SEED)
    for side in (smallest, 224, 299):
        images = torch.randn((BATCH, 3, side, side), generator=generator)
        with contextlib.suppress(RuntimeError, AssertionError, ValueError), torch.no_grad():
            module.eval()(images)
            module.train()(images)
            break
    _enliven(module, generator)
    return module, images


def _enliven(module: nn.Module, generator: torch.Generator) -> None:
    """Draws anew what hides a part of the network, and the statistics that a fresh network has not got yet."""
    with torch.no_grad():
        for parameter in module.parameters():
            if float(parameter.abs().max()) < 1e-3:
                parameter.normal_(0, 0.1, generator=generator)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)


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
    return max(float((one - other).abs().max() / one.std()) for one, other in zip(expected, got, strict=True))


def _same(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> bool:
    return expected.keys() == got.keys() and all(torch.equal(tensor, got[name]) for name, tensor in expected.items())


def _mutated(genome: graphs.Genome, sites: int, row: dict[str, Any]) -> None:
    """Counts sites, and certifies one operator for each role; `row` grows as it goes."""
    found = {name: mutation.sites(genome) for name, mutation in ops.MUTATIONS.items()}
    row["sites"] = {name: len(places) for name, places in found.items()}
    row["certified"] = {}
    generator = torch.Generator().manual_seed(SEED)
    inputs = {
        node.settings["name"]: torch.randn((BATCH, *node.settings["shape"]), generator=generator, dtype=torch.float64)
        for node in genome.graph.inputs
    }
    row["why"] = _walls(genome.graph) if not found["widen"] else None
    bold = stir(genome, inputs, SEED)
    for role, operators in ROLES.items():
        name = next((name for name in operators if found.get(name)), None)
        places = found[name] if name else []
        chosen = sorted({len(places) * (2 * number + 1) // (2 * sites) for number in range(sites)}) if name else []
        row["certified"][role] = [_certified(bold, name, places[number], inputs) for number in chosen if name]


def _certified(genome: graphs.Genome, name: str, site: ops.Site, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """One mutation and what its certificate says."""
    child = ops.MUTATIONS[name].apply(genome, site, numpy.random.default_rng(SEED))
    found = ops.certify(genome, child, probe=inputs, seed=SEED)
    return {
        "operator": name,
        "site": site.to_json(),
        "promise": site.preserves,
        "stirred again": found.stirred,
        **{mode: {"verdict": each.verdict, "error": each.to_json()["error"]} for mode, each in _modes(found)},
    }


def _modes(certificate: ops.Certificate) -> Iterator[tuple[str, Any]]:
    yield "eval", certificate.eval
    yield "train", certificate.train


def _walls(graph: graphs.Graph) -> str:
    """Why no space of the network can be changed: each reason once."""
    reasons = dict.fromkeys(space.reason for space in graph.spaces if space.reason)
    return "; ".join(map(str, reasons)) or "it has no inner space"


# --- rows in a file, and as a table


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file by name; the last line may be cut, where the benchmark was killed, and is then dropped."""
    rows: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return rows
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number != len(lines) - 1:
                raise
            path.write_text("".join(f"{whole}\n" for whole in lines[:-1]))
            break
        rows[row["name"]] = row
    return rows


def proven(row: Mapping[str, Any], role: str) -> bool:
    """Whether the role was certified everywhere it was tried, at one site or more."""
    tried = row.get("certified", {}).get(role, [])
    fine = {"pass", "unreached", "approximate"}
    return bool(tried) and all(each["eval"]["verdict"] == "pass" and each["train"]["verdict"] in fine for each in tried)


def faithful(row: Mapping[str, Any]) -> bool:
    """Whether what came out is what went in, bit for bit."""
    return row.get("eval") == row.get("train") == 0.0 and bool(row.get("state")) and bool(row.get("buffers"))


def figure(difference: float | None) -> str:
    """A difference of outputs for the table."""
    return "other form" if difference is None else "equal" if difference == 0 else f"{difference:.0e}"


def line(row: Mapping[str, Any]) -> str:
    """The row of one network."""
    if "buffers" not in row:
        return f"{row['name']:20s} refused: {row['refused']}"
    verdicts = " ".join(f"{_verdicts(row, role):22s}" for role in ROLES)
    counts = " ".join(f"{name}:{number}" for name, number in row.get("sites", {}).items())
    facts = f"{row['side']:4d} {row['nodes']:5d} {row['seconds']:7.2f} {len(row['opaque']):6d}"
    same = f"{figure(row['eval']):>10s} {figure(row['train']):>10s} {row['buffers']!s:>7s} {row['state']!s:>5s}"
    text = f"{row['name']:20s} {facts} {same}  {verdicts} {counts}".rstrip()
    reasons = [reason for reason in (row["refused"], row.get("why")) if reason]
    return "\n".join([text, *(f"{'':20s} refused: {reason}" for reason in reasons)])


def _verdicts(row: Mapping[str, Any], role: str) -> str:
    tried = row.get("certified", {}).get(role)
    if not tried:
        return "no site" if tried == [] else "-"
    found = dict.fromkeys(
        "/".join(dict.fromkeys((each["eval"]["verdict"], each["train"]["verdict"]))) for each in tried
    )
    return ",".join(found)


def report(rows: Mapping[str, Mapping[str, Any]], names: list[str]) -> None:
    """Prints the table and what it comes to."""
    titles = f"{'name':20s} side nodes seconds opaque {'eval':>10s} {'train':>10s} buffers state"
    print(f"{titles}  {' '.join(f'{role:22s}' for role in ROLES)} sites")
    done = [rows[name] for name in names if name in rows]
    for row in done:
        print(line(row))
    print(f"{len(done)} of {len(names)} measured; {sum(map(faithful, done))} come in and go out bit for bit")
    for role in ROLES:
        print(f"{role}: certified on {sum(proven(row, role) for row in done)} of {len(done)}")


def main() -> None:
    """Measures what is missing, and prints all there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="file of JSON lines that keeps the rows")
    parser.add_argument("--only", default="", help="names, with commas between them")
    parser.add_argument("--budget", type=float, default=3600, help="seconds after which no network is begun")
    parser.add_argument("--least", type=int, default=32, help="smallest side of an image")
    parser.add_argument("--sites", type=int, default=1, help="sites certified for each role")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--again", action="store_true", help="measure what was refused once more")
    given = parser.parse_args()
    known = networks()
    names = given.only.split(",") if given.only else known
    for name in names:
        if name not in known:
            parser.error(f"torchvision has no classification network '{name}'")
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, Python {platform.python_version()}")
    print(f"torch {torch.__version__}, n=1 of each of {len(names)} networks, budget {given.budget:.0f} s")
    rows = kept(given.to)
    end = time.monotonic() + given.budget
    for name in names:
        if name in rows and not (given.again and rows[name]["refused"]):
            continue
        if time.monotonic() > end:
            print(f"the budget of {given.budget:.0f} s is spent before {name}; the same command goes on")
            break
        rows[name] = _alone(name, given.least, given.sites, given.threads)
        with given.to.open("a") as file:
            file.write(json.dumps(rows[name]) + "\n")
        print(line(rows[name]), flush=True)
    print()
    report(rows, names)


def _alone(name: str, *settings: int) -> dict[str, Any]:
    """`measured` in a process of its own, whose memory ends with it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measured, name, *settings).result()
        except BrokenProcessPool:
            return {"name": name, "refused": "its process was killed, most likely for want of memory"}


if __name__ == "__main__":
    main()
