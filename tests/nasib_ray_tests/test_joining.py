from __future__ import annotations

import pytest

from nasib_ray.joining import check_lasting


def test_results_in_the_copy_of_a_jobs_folder_are_refused() -> None:
    copied = "/tmp/ray/session_2026/runtime_resources/working_dir_files/_ray_pkg_0123/results"
    with pytest.raises(ValueError, match="absolute path, or a URI"):
        check_lasting(copied)
    check_lasting("/shared/sweeps")
    check_lasting("s3://bucket/sweeps")
