"""Joining a Ray cluster that is there already, and bringing this code to its nodes."""

from __future__ import annotations

import logging
import re
import socket
from pathlib import Path
from typing import Any

import ray

from nasib_ray.own_rooms import ROOMS
from schedulers.tune_internals import head_address

_ANSWER_SECONDS = 5.0
_RAY_WORKING_DIR = "working_dir_files"


def runtime_env() -> dict[str, Any]:
    """The runtime environment in which every node of a cluster runs this very nasib-ray, installed there or not.

    The packages are brought by Ray, also to nodes that join later; what they need (torch and the like) must be
    installed on the nodes.

    Example:
        >>> ray.init(runtime_env=nasib_ray.runtime_env())  # doctest: +SKIP
    """
    home = Path(__file__).resolve().parents[1]
    return {"py_modules": [str(home / room) for room in ("nasib_ray", *ROOMS)]}


def check_lasting(storage: str) -> None:
    """Make sure that results are not kept where Ray unpacks the working folder of a job, as it deletes that.

    Args:
        storage: The folder, absolute, or URI under which they are to be kept.

    Raises:
        ValueError: If they are.
    """
    if _RAY_WORKING_DIR in Path(storage).parts:
        raise ValueError(
            f"the storage {storage} lies in the copy of the working folder that Ray has made for this job, and deletes "
            "behind it: give an absolute path, or a URI such as s3://bucket/sweeps"
        )


def join_cluster(address: str) -> None:
    """Connect this process to a Ray cluster.

    Args:
        address: ``auto``: the one on this machine; or HOST:PORT of its head, seen from one of its nodes.

    Raises:
        ValueError: If there is none.
    """
    if "://" in address:
        raise ValueError(
            f"--address {address} is no address of a cluster's head: a driver must run on a node of the cluster, so "
            "start it there by `ray submit` or `ray job submit`, with --address auto"
        )
    if address != "auto" and not re.fullmatch(r".+:\d{1,5}", address):
        raise ValueError(f"--address {address} is no address of a cluster's head: give auto, local, or HOST:PORT")
    try:
        host, _, port = head_address(address).rpartition(":")
        # Ray itself would go on trying for many minutes.
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
        ray.init(address=address, runtime_env=runtime_env(), logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ValueError(
            f"there is no Ray cluster at {address!r} that this machine is a node of ({error}): start one by `ray start "
            "--head`, or leave --address (and RAY_ADDRESS) out, and one of this machine alone is started"
        ) from error
