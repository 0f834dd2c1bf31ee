"""What goes wrong in drills: a function for each fault, which brings it about and lets the sweep end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .stage import DrillFailed, Stage, signalled
from .watching import trial_processes

SCRIPTS = ("foreign", "told")
TRAINABLES = (*SCRIPTS, "nasib")

RESUMED = (40.0, 56.0)
"""CPU-seconds of a sweep whose driver dies: what is charged cautiously, and another boot, must leave something."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        play: Brings it about on a stage and returns when the sweep has ended, resumed if need be.
        trainables: What it can be played with.
        own: Whether it is played in a Ray of the driver's own, in a cluster, or in either.
        nodes: Whether the cluster must have a node for each slot.
        budget: The least and the most CPU-seconds.
        slots: How many trials at once.
        excused: Searches that it may fail: those that crash again and again.
    """

    play: Callable[[Stage], None]
    trainables: tuple[str, ...] = TRAINABLES
    own: tuple[bool, ...] = (True, False)
    nodes: bool = False
    budget: tuple[float, float] = (20.0, 36.0)
    slots: tuple[int, ...] = (1, 2, 2)
    excused: bool = False


def _ends(stage: Stage, driver: subprocess.Popen[str]) -> None:
    status = stage.finish(driver)
    if status != 0:
        raise DrillFailed(f"the driver ended with {status}: {stage.log_of(driver)[-300:]}")


# In a trial


def _of_itself(stage: Stage) -> None:
    """The Trainable does it."""
    driver = stage.driver()
    stage.until((stage.folder / "done").exists, "the fault")
    stage.mark()
    _ends(stage, driver)


def _crash_loop(stage: Stage) -> None:
    driver = stage.driver()
    stage.until(lambda: any(search.failures for search in stage.state().searches.values()), "the fault")
    stage.mark()
    _ends(stage, driver)
    failed = [search for search in stage.state().searches.values() if search.state == "failed"]
    if not all("the drill's own error" in search.why for search in failed):
        raise DrillFailed(f"the error is not told: {[search.why for search in failed]}")


def _worker(number: int) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        driver = stage.driver()
        stage.in_swing()
        stage.until(lambda: trial_processes(str(stage.folder)), "a trial's process")
        stage.mark()
        signalled(stage.random.choice(trial_processes(str(stage.folder))), number)
        _ends(stage, driver)

    return play


# To the driver, or to Ray


def _driver(number: int) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        driver = stage.driver()
        stage.in_swing()
        stage.mark()
        signalled(driver.pid, number)
        stage.finish(driver)
        _ends(stage, stage.driver())

    return play


def _ray_process(name: str) -> Callable[[Stage], None]:
    """The driver's own Ray dies under it; it must see that and leave."""

    def play(stage: Stage) -> None:
        driver = stage.driver()
        stage.in_swing()
        stage.mark()
        for process in stage.ray_processes(name):
            signalled(process, signal.SIGKILL)
        if stage.finish(driver) == 0:
            raise DrillFailed("the driver ended as if nothing had been")
        _ends(stage, stage.driver())

    return play


def _node(drained: bool) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        driver = stage.driver()
        stage.in_swing()
        node = stage.random.choice(stage.nodes)
        stage.nodes.remove(node)
        stage.mark()
        if drained:
            _drain(stage, node.node_id)
            time.sleep(5)
        stage.cluster.remove_node(node, allow_graceful=False)
        time.sleep(stage.random.uniform(0, 3))
        stage.add_node()
        _ends(stage, driver)

    return play


def _drain(stage: Stage, node: str) -> None:
    words = [
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "spot",
        "--deadline-remaining-seconds",
        "9",
    ]
    ray = Path(sys.executable).with_name("ray")
    command = [str(ray), "drain-node", "--address", stage.cluster.address, "--node-id", node, *words]
    subprocess.run(command, check=True, capture_output=True)


def _no_node_left(stage: Stage) -> None:
    """All nodes go, and the driver with them; others are there when it goes on."""
    driver = stage.driver()
    stage.in_swing()
    stage.mark()
    for node in stage.nodes:
        stage.cluster.remove_node(node, allow_graceful=False)
    stage.nodes.clear()
    time.sleep(stage.random.uniform(0, 4))
    signalled(driver.pid, signal.SIGKILL)
    stage.finish(driver)
    stage.add_node()
    _ends(stage, stage.driver())


# To the disk


def _disk_full(stage: Stage) -> None:
    size = 8_000_000 if not stage.nasib else 40_000_000
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "drill", str(stage.storage)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        driver = stage.driver()
        stage.in_swing()
        stage.mark()
        filler = stage.storage / "filler"
        _fill(filler, stage.random.choice([0, 2000, 60_000]))
        time.sleep(stage.random.uniform(3, 10))
        filler.unlink()
        if stage.finish(driver) != 0:
            _ends(stage, stage.driver())
        shutil.copytree(stage.sweep, stage.folder / "kept")
    finally:
        subprocess.run(["umount", "-l", str(stage.storage)], check=False)
    shutil.move(stage.folder / "kept", stage.sweep)


def _fill(file: Path, spared: int) -> None:
    """Take all the room but so many bytes."""
    with open(file, "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(1 << 16))
        except OSError:
            pass
        stream.truncate(max(0, stream.tell() - spared))


def _storage_away(stage: Stage) -> None:
    """The storage path is gone for a while, as a network disk is; what is made there meanwhile is hidden afterwards."""
    driver = stage.driver()
    stage.in_swing()
    stage.mark()
    away = stage.folder / "away"
    stage.storage.rename(away)
    time.sleep(stage.random.uniform(2, 10))
    if stage.storage.exists():
        stage.storage.rename(stage.folder / "made-meanwhile")
    away.rename(stage.storage)
    if stage.finish(driver) != 0:
        _ends(stage, stage.driver())


def _damaged(stage: Stage) -> None:
    """The driver is killed, and the newest checkpoint of one search is cut or changed before it goes on."""
    driver = stage.driver()
    stage.in_swing(saved=2)
    signalled(driver.pid, signal.SIGKILL)
    stage.finish(driver)
    stage.mark()
    known = [search for search in stage.state().searches.values() if search.checkpoints and search.unfinished]
    if known:
        newest = stage.sweep / stage.random.choice(known).checkpoints[-1].path
        _damage(stage, newest)
    _ends(stage, stage.driver())


def _damage(stage: Stage, checkpoint: Path) -> None:
    files = sorted(file for file in checkpoint.iterdir() if file.stat().st_size > 0 and not file.name.startswith("."))
    file = stage.random.choice(files if stage.nasib else [file for file in files if file.name == "weights"])
    match stage.random.choice(["cut", "changed", "gone"] if stage.nasib else ["cut", "gone"]):
        case "cut":
            os.truncate(file, file.stat().st_size // 2)
        case "changed":
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 0x10
            file.write_bytes(data)
        case "gone":
            file.unlink()


# To the resumption


def _elsewhere(stage: Stage) -> None:
    """It goes on with another number of slots, and on faster or slower devices."""
    driver = stage.driver()
    stage.in_swing()
    stage.mark()
    signalled(driver.pid, stage.random.choice([signal.SIGKILL, signal.SIGINT]))
    stage.finish(driver)
    if stage.cluster is None:
        stage.slots = stage.random.choice([slots for slots in (1, 2, 3) if slots != stage.slots])
    elif stage.random.random() < 0.5:
        stage.add_node()
    else:
        stage.cluster.remove_node(stage.nodes.pop(), allow_graceful=True)
    _ends(stage, stage.driver(seconds=stage.random.choice([0.2, 0.8])))


def _two_resumes(stage: Stage) -> None:
    driver = stage.driver()
    stage.in_swing()
    stage.mark()
    signalled(driver.pid, signal.SIGKILL)
    stage.finish(driver)
    first = stage.driver()
    time.sleep(stage.random.uniform(0, 1))
    second = stage.driver()
    statuses = [stage.finish(first), stage.finish(second)]
    if sorted(status == 0 for status in statuses) != [False, True]:
        raise DrillFailed(f"the two resumes ended with {statuses}")


def _deadline(stage: Stage) -> None:
    at = time.time() + stage.random.uniform(14, 18)
    driver = stage.driver(terms={"deadline": at})
    stage.moment = at
    stage.finish(driver)
    stage.before = stage.state()
    views = stage.views()
    late = max((view.at(moment) for view in views for moment in view.times if moment > at + 0.2), default=0.0)
    if late:
        raise DrillFailed(f"{late:g} devices were held after the deadline")
    stage.moment = time.time()
    _ends(stage, stage.driver())


def _few_seconds(stage: Stage) -> None:
    """It buys a result, or is refused with the smallest budget that would do; and that one does."""
    driver = stage.driver()
    status = stage.finish(driver)
    stage.mark()
    if any(search.curve for search in stage.state().searches.values()):
        if status != 0:
            raise DrillFailed("there is a result, but the driver failed")
        return
    said = stage.state().end_why or stage.log_of(driver)
    named = re.search(r"([\d.]+) cpu-(second|minute)s? (would|might) do", said)
    if status == 0 or named is None:
        raise DrillFailed(f"no result, and no budget is named: {said[-200:]}")
    enough = float(named[1]) * (60 if named[2] == "minute" else 1)
    stage.begin_again(enough)
    _ends(stage, stage.driver())
    if not any(search.curve for search in stage.state().searches.values()):
        raise DrillFailed(f"{enough} CPU-seconds, which were named, bought no result")


FAULTS: Mapping[str, Fault] = {
    "step-slow": Fault(_of_itself, SCRIPTS),
    "step-hangs": Fault(_of_itself, SCRIPTS),
    # Before anything is known a grant is as large as may be: two, or nothing is left.
    "setup-hangs": Fault(_of_itself, SCRIPTS, budget=(95.0, 110.0), slots=(2,)),
    "save-slow": Fault(_of_itself, SCRIPTS),
    "crash-loop": Fault(_crash_loop, SCRIPTS, excused=True),
    "worker-killed": Fault(_worker(signal.SIGKILL)),
    "worker-terminated": Fault(_worker(signal.SIGTERM), ("told", "nasib")),
    "driver-killed": Fault(_driver(signal.SIGKILL), budget=RESUMED),
    "driver-interrupted": Fault(_driver(signal.SIGINT), budget=RESUMED),
    "driver-terminated": Fault(_driver(signal.SIGTERM), budget=RESUMED),
    "raylet-killed": Fault(_ray_process("raylet"), own=(True,), budget=RESUMED),
    "gcs-killed": Fault(_ray_process("gcs_server"), own=(True,), budget=RESUMED),
    "node-removed": Fault(_node(drained=False), own=(False,), nodes=True),
    "node-drained": Fault(_node(drained=True), own=(False,), nodes=True),
    "no-node-left": Fault(_no_node_left, own=(False,), nodes=True, budget=RESUMED),
    "disk-full": Fault(_disk_full),
    "storage-away": Fault(_storage_away),
    "checkpoint-damaged": Fault(_damaged, budget=RESUMED),
    "elsewhere": Fault(_elsewhere, nodes=True, budget=RESUMED),
    "two-resumes": Fault(_two_resumes, budget=RESUMED),
    "deadline": Fault(_deadline, SCRIPTS, budget=(40.0, 50.0)),
    "few-seconds": Fault(_few_seconds, SCRIPTS, budget=(1.0, 8.0)),
}
