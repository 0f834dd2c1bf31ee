from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_ray() -> Iterator[None]:
    """No Ray that runs here is found by these tests, and theirs are found by none: the address of the latest one that
    was started is kept in Ray's folder, and `ray.init()` joins it."""
    # Not below pytest's folder, as paths of sockets may have no more than 107 characters.
    folder = tempfile.mkdtemp(prefix="nr", dir="/tmp" if os.path.isdir("/tmp") else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
    shutil.rmtree(folder, ignore_errors=True)
