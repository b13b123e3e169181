"""Processes of ours keep the memory of dropped tensors."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch

{setup}

def step():
    return [torch.ones(4_000_000) for _ in range(4)]

step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Prints how many pages fault in ten steps that each need 64 MB."""

SETUPS = {
    "none": "",
    "worker": "from runners.entry import SERVE, resolve\nresolve(SERVE)",
    "command": "from evolve import __main__\n__main__.run = lambda arguments: 0\n"
    "try:\n    __main__.main()\nexcept SystemExit:\n    pass",
}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize("process", ["worker", "command"])
def test_steps_of_our_processes_use_the_same_memory_again(process: str) -> None:
    def faults(setup: str) -> int:
        code = FAULTS.format(setup=SETUPS[setup])
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
        return int(done.stdout)

    # Some 160,000 pages fault usually, or 300 huge ones, where the kernel makes tensors of those.
    assert faults(process) < max(faults("none") / 10, 1000)
