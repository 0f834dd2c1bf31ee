"""`nasib-ray` on Ray clusters of several nodes that it has not started: nodes come and go, the storage is a bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

import nasib_ray
from nasib_ray import load_sweep
from schedulers.sweep_state import SweepState
from tests.nasib_ray_tests.command import DIGITS, ROOT, Command, wait_for
from tests.schedulers_tests.s3_server import S3Server, s3_server

pytestmark = [pytest.mark.ray]

NODE = {"num_cpus": 1, "object_store_memory": 10**8}
MAY_UNSHARE = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as serving:
        yield serving


@pytest.fixture(scope="module")
def cluster(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without room for trials, and two nodes of one CPU, which know where the bucket is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("NASIB_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            made.add_node(**NODE)
        yield made
        made.shutdown()


def state_of(uri: str) -> SweepState | None:
    try:
        return load_sweep(uri).state
    except (ValueError, OSError):
        return None


def at_work(uri: str, spent: float) -> bool:
    """Whether two trials are at work, one of which has saved, and so much was spent."""
    state = state_of(uri)
    if state is None or state.ledger.spent < spent:
        return False
    running = [search for search in state.searches.values() if search.state == "running"]
    return len(running) == 2 and any(search.checkpoints for search in running)


def test_a_sweep_loses_a_node_and_its_driver_and_goes_on_from_another_machine(
    cluster: Cluster, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, budget = "s3://bucket/sweeps/digits", 100.0
    often = ("--set", "searches=3", "--set", "search.checkpoint_seconds=2")
    place = ("--storage", "s3://bucket/sweeps", "--name", "digits", "--address", cluster.address)
    monkeypatch.setenv("HOME", str(tmp_path / "one"))
    first = Command(tmp_path, "sweep", DIGITS, "--budget", f"{budget} cpu-seconds", *place, *often, cwd=tmp_path)
    wait_for(lambda: at_work(uri, 0.0))
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    cluster.add_node(**NODE)
    wait_for(lambda: at_work(uri, 25.0))
    first.kill()
    before = state_of(uri)
    assert before is not None
    assert before.ledger.grants

    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    second = Command(tmp_path, "resume", uri, "--address", cluster.address, cwd=tmp_path)
    assert second.ends() == 0, second.said
    after = state_of(uri)
    assert after is not None
    assert (after.end, after.runs) == ("finished", 2)
    assert before.ledger.spent < after.ledger.spent <= budget == after.ledger.budget
    assert list(after.searches)[: len(before.searches)] == list(before.searches)
    records = load_sweep(uri).records()
    for name, search in before.searches.items():
        saved = search.checkpoints[-1].epochs if search.checkpoints else 0
        told = [one for one in records if one["event"] == "report" and one["trial"] == name and one["run"] == 2]
        assert not told or told[0]["epochs"] == saved + 1, "it goes on from its checkpoint"
    assert after.incumbent is not None

    status = Command(tmp_path, "status", uri, "--json")
    assert status.ends() == 0
    assert json.loads(status.said)["state"] == "finished"
    report = Command(tmp_path, "report", uri, "-o", str(tmp_path / "report.html"))
    assert report.ends() == 0, report.said
    assert after.incumbent.id in (tmp_path / "report.html").read_text()


def test_the_code_that_runs_is_brought_to_the_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """Not from ROOT: Ray has workers search where their driver does, and these are on the same disk."""
    script = (
        "import ray, nasib_ray, sys\n"
        "ray.init(sys.argv[1], runtime_env=nasib_ray.runtime_env(), logging_level='ERROR')\n"
        "def where():\n"
        "    import nasib_ray, schedulers, trainables\n"
        "    return [room.__file__ for room in (nasib_ray, schedulers, trainables)]\n"
        "print(*ray.get(ray.remote(num_cpus=1)(where).remote()), sep='\\n')"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, cluster.address], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    paths = [Path(line) for line in run.stdout.splitlines()[-3:]]
    assert [path.parent.name for path in paths] == ["nasib_ray", "schedulers", "trainables"]
    assert all(not path.is_relative_to(ROOT) and "py_modules" in str(path) for path in paths)
    assert Path(nasib_ray.__file__).is_relative_to(ROOT)


@pytest.mark.skipif(not MAY_UNSHARE, reason="mounts of its own need root")
def test_a_folder_that_a_node_does_not_see_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    storage = tmp_path / "sweeps"
    storage.mkdir()
    with tempfile.TemporaryDirectory(prefix="nr") as temp:
        start = f"mount -t tmpfs tmpfs {storage} && exec {sys.executable} -m ray.scripts.scripts start --block "
        start += f"--address={cluster.address} --num-cpus=1 --object-store-memory=100000000 --temp-dir={temp}"
        node = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", start],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: len([one for one in nodes_of(cluster) if one["Alive"]]) == 4)
            sweep = ("sweep", DIGITS, "--storage", str(storage), "--name", "x", "--address", cluster.address)
            refused = Command(tmp_path, *sweep, cwd=tmp_path)
            assert refused.ends() == 2
            assert f"{storage}/x is not the same on all nodes" in refused.said
            assert "s3://bucket/sweeps" in refused.said
            assert "Traceback" not in refused.said
            assert not (storage / "x" / "journal").exists()
        finally:
            node.kill()
            node.wait()


def nodes_of(cluster: Cluster) -> list[dict[str, object]]:
    if not ray.is_initialized():
        ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        return list(ray.nodes())
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    ("address", "told"),
    [("127.0.0.1:1", "there is no Ray cluster"), ("somewhere", "HOST:PORT"), ("ray://127.0.0.1:1", "ray job submit")],
)
def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path: Path, address: str, told: str) -> None:
    began = time.monotonic()
    command = Command(tmp_path, "sweep", DIGITS, "--storage", str(tmp_path), "--address", address)
    assert command.ends() == 2
    assert told in command.said
    assert "Traceback" not in command.said
    assert time.monotonic() - began < 30


GROWING = """
set -e
export RAY_AUTH_MODE=disabled RAY_FAKE_CLUSTER=1 AUTOSCALER_UPDATE_INTERVAL_S=1 RAY_enable_autoscaler_v2=0
head=fffffffffffffffffffffffffffffffffffffffffffffffffff00000
mkdir -p -m 777 /tmp/ray
mount -t tmpfs tmpfs /tmp/ray
unset RAY_TMPDIR
ip link set lo up 2>/dev/null || true
RAY_CLOUD_INSTANCE_ID=$head RAY_OVERRIDE_NODE_ID_FOR_TESTING=$head \
  $PYTHON -m ray.scripts.scripts start --head --port=6399 --num-cpus=0 --autoscaling-config=$FOLDER/growing.yaml \
  --include-dashboard=false --object-store-memory=100000000 >$FOLDER/start.log 2>&1 || {
  cat $FOLDER/start.log >&2
  exit 4
}
$PYTHON $FOLDER/watch.py >>$FOLDER/nodes.txt 2>&1 &
$PYTHON -m nasib_ray sweep $DIGITS --budget '40 cpu-seconds' --set max_concurrent=2 --set finalists=0 \
  --storage $FOLDER --name grown --address 127.0.0.1:6399
echo ended >>$FOLDER/nodes.txt
for _ in $(seq 60); do tail -1 $FOLDER/nodes.txt | grep -q '^0$' && exit 0; sleep 1; done
exit 3
"""

WATCH = """
import ray, time
ray.init("127.0.0.1:6399", logging_level="ERROR", log_to_driver=False)
while True:
    print(sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes()), flush=True)
    time.sleep(0.5)
"""

CONFIG = {
    "cluster_name": "growing",
    "max_workers": 3,
    "idle_timeout_minutes": 0.1,
    "upscaling_speed": 10,
    "provider": {
        "type": "fake_multinode",
        "gcs_address": "127.0.0.1:6399",
        "launch_multiple": True,
        "head_node_id": "f" * 51 + "00000",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "auth": {"ssh_user": "nobody"},
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": 100_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 3,
        },
    },
    "head_node_type": "ray.head.default",
    "docker": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
    **{name: [] for name in ("setup_commands", "head_setup_commands", "worker_setup_commands")},
    **{name: [] for name in ("head_start_ray_commands", "worker_start_ray_commands")},
}


@pytest.mark.skipif(not MAY_UNSHARE, reason="a /tmp/ray and processes of its own need root")
def test_a_cluster_grows_for_a_sweep_and_shrinks_behind_it(tmp_path: Path) -> None:
    """Ray's own autoscaler, with nodes that are processes of this machine; nothing has room at first."""
    (tmp_path / "growing.yaml").write_text(json.dumps(CONFIG))
    (tmp_path / "watch.py").write_text(WATCH)
    told = {"PYTHON": sys.executable, "FOLDER": str(tmp_path), "DIGITS": DIGITS, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "bash", "-c", GROWING],
        env={**os.environ, **told, "NASIB_RAY_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=170,
    )
    nodes = tmp_path / "nodes.txt"
    counted = nodes.read_text() if nodes.exists() else "no counts of nodes"
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}\n{counted}"
    counts = [line for line in counted.splitlines() if line.isdigit() or line == "ended"]
    assert "no live node has room for a trial, which holds 1 CPU" in run.stdout + run.stderr
    ended = counts.index("ended")
    # The autoscaler may start one more while the first ones are on their way.
    assert counts[0] == "0"
    assert "2" in counts[:ended], "as many as were asked for"
    state = load_sweep(tmp_path / "grown").state
    assert state.end == "finished"
    assert state.ledger.spent <= state.ledger.budget
