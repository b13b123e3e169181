"""A Ray of several nodes: one dies, one is missing, one is added; no job is lost and nothing waits for ever.

It runs in a process of its own, because a process can have one connection to Ray. The nodes are processes of this
machine, with sockets on the loopback interface alone; the GPU of one of them is a claim, which is enough for Ray.
"""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import json, time
from ray.cluster_utils import Cluster
from runners import open_pool
from tests.runners.misbehaving import SERVE
from tests.runners.places import job

def say(**facts):
    print(json.dumps(facts), flush=True)

def outcomes(pool, count):
    found = []
    while len(found) < count:
        found += pool.wait(1)
    return {id: outcome.failure.message for id, outcome in found}

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
heard = set()
settings = {"address": cluster.address, "perform": SERVE}
with open_pool("ray", 2, report=lambda id, _: heard.add(id), **settings) as pool:
    for id in range(4):
        pool.submit(job(id, seconds=4.0))
    while len(heard) < 2:
        assert pool.wait(0.2) == []
    cluster.remove_node(nodes[1], allow_graceful=False)
    begin = time.monotonic()
    say(after_node_death=outcomes(pool, 4), seconds=time.monotonic() - begin)
with open_pool("ray", 1, gpus_per_worker=1, start_limit=4, **settings) as pool:
    begin = time.monotonic()
    pool.submit(job(0))
    say(infeasible=outcomes(pool, 1), seconds=time.monotonic() - begin)
with open_pool("ray", 1, gpus_per_worker=1, **settings) as pool:
    pool.submit(job(1))
    pool.wait(0.5)
    begin = time.monotonic()
    cluster.add_node(num_cpus=1, num_gpus=1)
    say(after_scale_up=outcomes(pool, 1), seconds=time.monotonic() - begin)
cluster.shutdown()
"""


def test_jobs_outlive_nodes_and_give_up_on_what_never_comes(ray_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=ray_environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lost, infeasible, grown = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lost["after_node_death"] == {str(id): "done" for id in range(4)}
    assert lost["seconds"] < 60
    assert (
        "within 4 s; each worker asks Ray for 1 CPU and 1 GPU, and at the start there were 1 CPU and 0 GPU"
        in infeasible["infeasible"]["0"]
    )
    assert infeasible["seconds"] < 4 + 5
    assert grown["after_scale_up"] == {"1": "done"}
    assert grown["seconds"] < 60
    print(lost, infeasible, grown)
