"""The same sweep on real clusters of two worker nodes, one of which is lost on the way."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("rl_zoo3")
pytest.importorskip("psutil")

import psutil

from sb3_diayn.cli import main

ENV = "Pendulum-v1"
SEEDS = 4
STEPS = 1600
# Dask and Ray open sockets and files that they leave to the end of the process.
pytestmark = [
    pytest.mark.expensive,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(sys.platform == "win32", reason="the test kills a process from outside"),
]


def sweep(folder, *args):
    words = ["sweep", "--envs", ENV, "--seeds", str(SEEDS), "--n-skills", "3", "-n", str(STEPS)]
    train = ["--device", "cpu", "--no-report", "--hyperparams", "n_envs:2"]
    return main([*words, "-o", str(folder), *args, "--", *train])


def supervisor_of(folder, seed):
    """The cluster's process that waits for the run of a seed, as soon as the run is learning."""
    while not list(folder.glob(f"*/seed_{seed}/sac/*/0.monitor.csv")):
        time.sleep(0.1)
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        is_child = "sb3_diayn.cli.sweep" in words and words[-1].startswith(str(folder))
        if is_child and words[-1].endswith(f"seed_{seed}"):
            return process.parent(), process
    raise AssertionError("the run is over already: let it take longer")


def killing(folder, kill):
    """Kill within a thread what supervises seed 0, and note what became of its child."""
    notes = {}

    def run():
        supervisor, child = supervisor_of(folder, 0)
        kill(supervisor)
        with contextlib.suppress(psutil.NoSuchProcess):
            child.wait(timeout=30)
        notes["ended"] = not child.is_running()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, notes


def check_complete(folder, output):
    """Each run is there once and is a whole one, and only the lost one was started again."""
    assert "gave up" not in output
    found = sorted(folder.glob("*/*/*/*/run.json"))
    assert [file.parts[-4] for file in found] == [f"seed_{seed}" for seed in range(SEEDS)]
    for file in found:
        evaluation = json.loads((file.parent / "evaluation.json").read_text())
        assert evaluation["info"]["num_timesteps"] == STEPS
    assert len((folder / "comparison.csv").read_text().splitlines()) == 1 + SEEDS


@pytest.fixture
def ray_cluster():
    """A head without cores, and two nodes for one run each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield cluster, nodes
    cluster.shutdown()


@pytest.mark.parametrize("lost", ["worker", "node"])
def test_ray(ray_cluster, tmp_path, capfd, lost):
    cluster, nodes = ray_cluster

    def kill(supervisor):
        if lost == "worker":
            supervisor.kill()
            return
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
        (node,) = [raylets[p.pid] for p in supervisor.parents() if p.pid in raylets]
        cluster.remove_node(node, allow_graceful=False)

    thread, notes = killing(tmp_path, kill)
    assert sweep(tmp_path, "--backend", "ray", "--address", cluster.address) == 0
    thread.join()
    assert notes == {"ended": True}
    check_complete(tmp_path, capfd.readouterr().out)


@pytest.fixture
def dask_cluster():
    """A scheduler, and two workers for one run each, without a nanny that would restart them."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        words = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address]
        words += ["--no-nanny", "--nthreads", "1"]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        workers = [subprocess.Popen(words, env=env) for _ in range(2)]
        yield cluster
        for worker in workers:
            worker.kill()
            worker.wait()


def test_dask(dask_cluster, tmp_path, capfd):
    thread, notes = killing(tmp_path, lambda supervisor: supervisor.send_signal(signal.SIGKILL))
    address = dask_cluster.scheduler_address
    assert sweep(tmp_path, "--backend", "dask", "--address", address) == 0
    thread.join()
    assert notes == {"ended": True}
    check_complete(tmp_path, capfd.readouterr().out)
