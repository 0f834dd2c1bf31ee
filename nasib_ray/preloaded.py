"""What the workers of an own cluster import while they wait for work, so that no trial holds a device meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import trainables.sweep_trainable  # noqa: F401
from nasib_ray.quiet_ray import READY_FOLDER

if folder := os.environ.get(READY_FOLDER):
    Path(folder, str(os.getpid())).touch()
