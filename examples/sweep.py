"""A sweep of NASIB searches on whatever Ray there is: a cluster, if this machine is a node of one, or this machine.

    python examples/sweep.py examples/digits.yaml --storage ~/sweeps --name first
    ray submit cluster.yaml examples/sweep.py -- nasib-ray/examples/digits.yaml --storage s3://bucket/sweeps
    ray job submit --working-dir . -- python examples/sweep.py examples/digits.yaml --storage s3://bucket/sweeps

Takes what `nasib-ray sweep` takes; with --address that says which Ray. The same command again goes on where the sweep
ended.
"""

from __future__ import annotations

import logging
import sys

import ray

import nasib_ray
from nasib_ray.cli import main

if __name__ == "__main__":
    if not any(part.startswith(("-h", "--help", "--address")) for part in sys.argv):
        # Every node gets the code that runs here, also one that joins later.
        ray.init(runtime_env=nasib_ray.runtime_env(), logging_level=logging.ERROR, log_to_driver=False)
    main(["sweep", *sys.argv[1:]])
