"""Ten thousand certified mutations of random networks, and what went wrong with any of them.

Claim: no child is invalid, no promise is broken, no certificate is blind, and what is new learns.
Environment: a CPU, one thread; printed with the versions. n mutations, printed.
Method: the networks are those of `tests.strategies`, one a seed, of 2 to 14 nodes and what brings them together; each
operator that has a site in one makes a child at a site drawn at random, on every other network with a batch of data to
take statistics from. The laws are those of `tests.laws.test_mutations`. A fault is one of these:

    invalid     the child's graph does not check, its module does not run in one of the modes, or a gradient of a
                training step is missing or not finite
    broken      the certificate, or the outputs in float32, differ from the parent's where that was promised
    blind       the certificate shows nothing, on stirred weights neither
    unreached   the mutation changed nothing that an output depends on
    unlearned   of the parameters that an exact mutation adds to a network without dead values or parameters, none gets
                a gradient in two steps
    unlike      replaying the record gives another child, or the parent was changed

A network that proves nothing is not mutated but counted: it does not run, has no finite gradients, or has an output of
which an element is the same for all examples. One line for each fault, with the seed that draws it again; ends with 1
if there is any.

    python -m benchmarks.property_run [--mutations 10000] [--first 0]
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

import numpy
import torch

from graphs.check import check
from graphs.execution import execute
from graphs.genome import Genome
from graphs.modules import to_torch
from ops import MUTATIONS, Child, certify
from ops.differences import unit
from tests.laws import test_mutations as laws
from tests.strategies import inputs, lively, sketch


def network(seed: int) -> Genome:
    """The random network of a seed."""
    rng = Random(seed)  # noqa: S311
    return lively(sketch(rng.randint(2, 14), rng), seed)


def shortcoming(genome: Genome) -> str | None:
    """Why nothing can be shown on a network; None if there is no reason."""
    examples = inputs(genome.graph, 16, dtype=torch.float32)
    try:
        for training in (False, True):
            to_torch(genome).train(training)(**examples)
        laws.trained(genome, 2)
    except (RuntimeError, AssertionError) as error:
        return "no finite gradients" if isinstance(error, AssertionError) else "does not run"
    for training in (False, True):
        run = execute(genome.graph, genome.weights, examples, training=training)
        if any(unit(run.values[head.node]) is None for head in genome.graph.heads):
            return "has a constant output"
    return None


def children(parent: Genome, seed: int) -> Iterator[Child]:
    """A child by each operator that has a site."""
    draws = numpy.random.default_rng(seed)
    single = len(parent.graph.inputs) == 1
    batch = inputs(parent.graph, 16, 3, torch.float32)["x"] if seed % 2 and single else None
    for mutation in MUTATIONS.values():
        sites = mutation.sites(parent)
        if sites:
            yield mutation.apply(parent, sites[int(draws.integers(len(sites)))], draws, batch)


def runs(parent: Genome, child: Child) -> None:
    """Checks the child's graph, and runs and trains its module."""
    check(child.genome.graph)
    for training in (False, True):
        to_torch(child.genome).train(training)(**inputs(child.genome.graph, 4, dtype=torch.float32))
    laws.trained(child.genome, 1)


def keeps(parent: Genome, child: Child) -> None:
    """Compares in float32."""
    laws.check_float32(parent, child.genome, laws.modes(child), 1e-5)


def learns(parent: Genome, child: Child) -> None:
    """Trains what is new."""
    if child.record.operator in laws.EXACT and laws.alive(parent):
        assert laws.learns(parent, child)


def replays(parent: Genome, child: Child) -> None:
    """Makes the child again, and looks at the parent."""
    laws.check_replay(parent, child)
    laws.check_ids(parent.graph, child.genome.graph, child.record.born)
    assert parent.digest == laws.files.digest(parent)


LAWS: dict[str, Callable[[Genome, Child], None]] = {
    "invalid": runs,
    "broken": keeps,
    "unlearned": learns,
    "unlike": replays,
}
"""Fault, and what raises an error where it is there; certificates apart."""


def faults(parent: Genome, child: Child, counts: Counter[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with a child, each with what shows it."""
    for fault, law in LAWS.items():
        try:
            law(parent, child)
        except Exception as error:
            yield fault, repr(error)
    certificate = certify(parent, child)
    counts["stirred"] += certificate.stirred
    verdicts = {certificate.eval.verdict, certificate.train.verdict}
    for fault in ("broken", "blind"):
        if fault in verdicts:
            yield fault, repr(certificate)
    if verdicts == {"unreached"}:
        yield "unreached", repr(certificate)


def main() -> int:
    """Mutates until the number is reached, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first network")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, 1 thread, torch {torch.__version__}")
    begin = time.monotonic()
    counts, found = Counter[str](), Counter[str]()
    made, operators = 0, Counter[str]()
    for seed in itertools.count(given.first):
        if made >= given.mutations:
            break
        parent = network(seed)
        reason = shortcoming(parent)
        if reason is not None:
            counts[f"left out: {reason}"] += 1
            continue
        counts["networks"] += 1
        for child in children(parent, seed):
            made += 1
            if made % 500 == 0:
                print(f"{made} mutations, seed {seed}, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
            operators[child.record.operator] += 1
            for fault, detail in faults(parent, child, counts):
                found[fault] += 1
                place = child.record.to_json()["site"]
                print(f"{fault}: seed {seed}, {child.record.operator} at {place}: {detail}", flush=True)
    print(f"{made} mutations by {len(operators)} operators (least {min(operators.values())}), seeds from {given.first}")
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    print(f"faults: {dict(found) or 'none'}; {time.monotonic() - begin:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
