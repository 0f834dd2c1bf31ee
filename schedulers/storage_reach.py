"""Whether every node of a cluster sees the folder that a sweep is kept in."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import ray
from pyarrow import fs
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

logger = logging.getLogger(__name__)

_LONGEST_LOOK_SECONDS = 60.0
"""A node may have to start a process first, and to fetch what that runs in."""

_NAMED_AT_MOST = 3


def check_reach(filesystem: fs.FileSystem, folder: str) -> None:
    """Make sure that trials on every live node can save where the sweep is kept.

    Args:
        filesystem: Where it is kept, and ``folder`` the folder there, which exists.

    Raises:
        ValueError: If a node does not see what the driver has written there; names the nodes, and what would do.
        OSError: If the driver cannot write there.
    """
    home = ray.get_runtime_context().get_node_id()
    others = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    others.pop(home, None)
    if not others:
        return
    marker = f"{folder}/.seen-by-all-nodes-{uuid.uuid4().hex}"
    with filesystem.open_output_stream(marker) as stream:
        stream.write(b"\n")
    try:
        problems = _look_from(others, filesystem, marker)
    finally:
        filesystem.delete_file(marker)
    if not problems:
        return
    named = sorted(problems)[:_NAMED_AT_MOST]
    more = f" and {len(problems) - len(named)} more" if len(problems) > len(named) else ""
    scheme = "" if isinstance(filesystem, fs.LocalFileSystem) else f"{filesystem.type_name}://"
    raise ValueError(
        f"{scheme}{folder} is not the same on all nodes: {problems[named[0]]} on {', '.join(named)}{more} "
        f"({len(problems)} of {len(others) + 1} nodes). On more than one node keep sweeps in a folder of a file system "
        "that all of them mount at the same place, such as NFS, or in an object store, as in --storage s3://bucket/sweeps"
    )


def _look_from(nodes: dict[str, str], filesystem: fs.FileSystem, marker: str) -> dict[str, str]:
    """Why a file cannot be seen, by the address of each node from which it cannot."""

    # Within a function it is sent as it is: nodes need not have this package.
    def look(filesystem: Any, marker: str) -> str:
        try:
            return "" if filesystem.get_file_info(marker).is_file else "what the driver writes there is not seen"
        except OSError as error:
            return f"it cannot be read ({error})"

    remote = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            filesystem, marker
        ): address
        for node, address in nodes.items()
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_LONGEST_LOOK_SECONDS)
    for answer in silent:
        logger.warning(
            "node %s has not said within %.0f s whether it sees the storage", asked[answer], _LONGEST_LOOK_SECONDS
        )
        ray.cancel(answer, force=True)
    problems = {}
    for answer in answered:
        try:
            said = ray.get(answer)
        except ray.exceptions.RayError as error:
            # It may have left meanwhile, as spot nodes do.
            logger.warning("node %s could not say whether it sees the storage: %s", asked[answer], error)
            continue
        if said:
            problems[asked[answer]] = said
    return problems
