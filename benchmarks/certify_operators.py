"""Every operator on torchvision's networks, certified.

Claim: wherever an operator has sites in these networks, it keeps what it promises there, and the certificate can tell.
Environment: a CPU; printed with the versions. n = --sites of each operator in each network: the first, the middle one,
and others at random, of those that eval mode reaches and that promise something, where there are such.
Method: as in `import_torchvision.py`: the smallest input that the network accepts in both modes, no smaller than
--least, and stirred weights in float64. An operator that undoes another one is certified on what the other one leads
to as well, at sites where it promises something. Each network is measured in a process of its own.
Budget: no network is begun after --budget seconds, none takes more than --seconds or --memory GiB; what was measured is
kept in --to, one JSON object for each certificate, and not measured again, so the benchmark goes on where it ended.

    python benchmarks/certify_operators.py --to FILE.jsonl [--budget 3600] [--only resnet18] [--again]
"""

from __future__ import annotations

import argparse
import platform
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from measured_apart import Stopped, apart, keep, kept
from torch import Tensor
from torchvision_networks import SEED, certified, names, prepared, probe, reached

import graphs
import ops
from ops.stirring import stir

NETWORKS = (
    "squeezenet1_1",
    "mnasnet0_5",
    "shufflenet_v2_x1_0",
    "mobilenet_v3_small",
    "mobilenet_v2",
    "regnet_y_400mf",
    "efficientnet_b0",
    "googlenet",
    "densenet121",
    "resnet18",
    "resnext50_32x4d",
    "resnet50",
    "inception_v3",
    "swin_t",
    "convnext_tiny",
    "alexnet",
    "wide_resnet50_2",
    "vgg11_bn",
    "maxvit_t",
    "vit_b_16",
)
"""One of each family."""

VERDICTS = ("certified", "approximate", "blind", "broken", "unreached", "crashed")

_FINE = ("certified", "approximate")

_TIMES = 3
"""How often something is done for it to be undone."""


def measured(
    name: str, operators: Collection[str], least: int, sites: int, threads: int, skip: Collection[str]
) -> Iterator[dict[str, Any]]:
    """A row for each certificate in one network."""
    torch.set_num_threads(threads)
    module, images = prepared(name, least)
    genome = graphs.from_torch(module, images)
    del module
    inputs = probe(genome)
    bold = stir(genome, inputs, SEED)
    del genome
    for operator in operators:
        if operator in skip:
            continue
        trials = _trials(bold, operator, sites)
        head = {"name": name, "side": images.shape[-1], "operator": operator, "of": max(1, len(trials))}
        for parent, site in trials:
            begin = time.perf_counter()
            row = head | {"site": site.to_json(), "own": parent is bold} | _tried(parent, operator, site, inputs)
            yield row | {"seconds": time.perf_counter() - begin}
        if not trials:
            why = ops.MUTATIONS[operator].refusal(bold) or f"eval mode reaches no site of '{operator}'"
            yield head | {"why": why}


def _trials(genome: graphs.Genome, operator: str, sites: int) -> list[tuple[graphs.Genome, ops.Site]]:
    """Where an operator is tried: in the network, and where it undoes something that was done to the network."""
    mutation = ops.MUTATIONS[operator]
    there = reached(genome.graph, mutation.sites(genome))
    promising = [site for site in there if site.preserves != "approximate"]
    found = [(genome, site) for site in _spread(promising or there, sites)]
    if mutation.undoes:
        done = _done(genome, ops.MUTATIONS[mutation.undoes])
        exact = [site for site in mutation.sites(done) if site.preserves != "approximate"]
        found += [(done, site) for site in _spread(reached(done.graph, exact), sites)]
    return found


def _done(genome: graphs.Genome, mutation: ops.Mutation) -> graphs.Genome:
    """The network after an operator, some times."""
    rng = numpy.random.default_rng(SEED)
    for _ in range(_TIMES):
        # What is done changes where it can be done next.
        if places := reached(genome.graph, mutation.sites(genome)):
            genome = mutation.apply(genome, places[int(rng.integers(len(places)))], rng).genome
    return genome


def _spread(sites: list[ops.Site], count: int) -> list[ops.Site]:
    """The first one, the one in the middle, and others at random."""
    rng = numpy.random.default_rng(SEED)
    order = dict.fromkeys([0, len(sites) // 2, *rng.permutation(len(sites)).tolist()])
    return [sites[number] for number in list(order)[:count] if number < len(sites)]


def _tried(parent: graphs.Genome, operator: str, site: ops.Site, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    try:
        return certified(parent, operator, site, inputs)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
        return {"verdict": "crashed", "error": f"{type(error).__name__} at {where}: {' '.join(str(error).split())}"}


# --- the table


def report(rows: list[dict[str, Any]], wanted: Collection[str]) -> None:
    """Prints for each network what came of each operator, and all that is not as promised."""
    print(f"{'name':20s} side operators {' '.join(f'{verdict:>11s}' for verdict in VERDICTS)}  without a site")
    latest = {_key(row): row for row in rows}
    done = [row for row in latest.values() if row["name"] in wanted]
    for name in wanted:
        mine = [row for row in done if row["name"] == name]
        if not mine:
            continue
        found = {row["operator"] for row in mine if "verdict" in row}
        tally = Counter(row["verdict"] for row in mine if "verdict" in row)
        without = [row["operator"] for row in mine if "verdict" not in row]
        numbers = " ".join(f"{tally[verdict]:11d}" for verdict in VERDICTS)
        print(f"{name:20s} {mine[0]['side']:4d} {len(found):9d} {numbers}  {' '.join(without)}")
    for row in done:
        if row.get("verdict", "certified") not in _FINE:
            detail = row.get("error") or {mode: row[mode] for mode in ("eval", "train")}
            print(f"{row['verdict']}: {row['name']} {row['operator']} {row['site']} {detail}")
    print(f"{'operator':26s} {' '.join(f'{verdict:>11s}' for verdict in VERDICTS)}  networks with sites")
    for operator in ops.MUTATIONS:
        mine = [row for row in done if row["operator"] == operator and "verdict" in row]
        tally = Counter(row["verdict"] for row in mine)
        numbers = " ".join(f"{tally[verdict]:11d}" for verdict in VERDICTS)
        print(f"{operator:26s} {numbers}  {len({row['name'] for row in mine})}")
    refused: dict[str, list[str]] = {}
    for row in done:
        if "why" in row:
            refused.setdefault(row["why"], []).append(row["name"])
    for why, among in refused.items():
        print(f"{why} ({', '.join(among)})")


def main() -> None:
    """Measures what is missing, and prints all there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="file of JSON lines that keeps the rows")
    parser.add_argument("--only", default="", help="names of networks, with commas between them")
    parser.add_argument("--operators", default="", help="names of operators, with commas between them")
    parser.add_argument("--budget", type=float, default=3600, help="seconds after which no network is begun")
    parser.add_argument("--seconds", type=float, default=1800, help="seconds after which a network is given up")
    parser.add_argument("--memory", type=float, default=10, help="GiB that a network may take")
    parser.add_argument("--least", type=int, default=32, help="smallest side of an image")
    parser.add_argument("--sites", type=int, default=3, help="sites certified for each operator")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--again", action="store_true", help="measure once more where something was not as promised")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else list(NETWORKS)
    operators = given.operators.split(",") if given.operators else list(ops.MUTATIONS)
    for name, known in (*((name, names()) for name in wanted), *((name, [*ops.MUTATIONS]) for name in operators)):
        if name not in known:
            parser.error(f"there is no '{name}'")
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, Python {platform.python_version()}")
    print(f"torch {torch.__version__}, n={given.sites} of each operator in {len(wanted)} networks")
    rows = kept(given.to)
    end = time.monotonic() + given.budget
    for name in wanted:
        skip = _finished(rows, name, given.again)
        if not set(operators) - skip:
            continue
        if time.monotonic() > end:
            print(f"the budget of {given.budget:.0f} s is spent before {name}; the same command goes on")
            break
        settings = (name, operators, given.least, given.sites, given.threads, skip)
        try:
            for row in apart(measured, *settings, seconds=given.seconds, gibibytes=given.memory):
                rows.append(row)
                keep(given.to, row)
                print(f"{name} {row['operator']} {row.get('verdict', 'no site')}", flush=True)
        except Stopped as error:
            print(f"{name}: {error}", flush=True)
    print()
    report(rows, wanted)


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row is about."""
    return (row["name"], row["operator"], str(row.get("own")), str(row.get("site")))


def _finished(rows: list[dict[str, Any]], name: str, again: bool) -> set[str]:
    """The operators that need not be measured in a network: all their sites are, and what came of it may stay."""
    found: dict[str, dict[tuple[str, ...], dict[str, Any]]] = {}
    for row in rows:
        if row["name"] == name:
            found.setdefault(row["operator"], {})[_key(row)] = row
    return {
        operator
        for operator, mine in found.items()
        if len(mine) >= next(iter(mine.values()))["of"]
        and not (again and any(row.get("verdict", "certified") not in _FINE for row in mine.values()))
    }


if __name__ == "__main__":
    main()
