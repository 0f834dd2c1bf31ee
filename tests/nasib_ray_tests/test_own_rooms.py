from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def import_nasib_ray(*path: Path, before: str = "pass") -> subprocess.CompletedProcess[str]:
    """A fresh interpreter imports nasib_ray, with folders in front of Python's path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-c", f"{before}; import nasib_ray"],
        env=environment,
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        check=False,
    )


def test_own_rooms_are_taken() -> None:
    run = import_nasib_ray(ROOT)

    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("room", ["schedulers", "trainables"])
@pytest.mark.parametrize("form", ["{}/__init__.py", "{}.py"])
def test_foreign_package_is_told_by_its_path_and_not_run(tmp_path: Path, room: str, form: str) -> None:
    foreign = tmp_path / form.format(room)
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("print('I was run')")

    run = import_nasib_ray(tmp_path, ROOT)

    found = foreign.parent if foreign.name == "__init__.py" else foreign
    assert run.returncode == 1
    message = run.stderr.splitlines()[-1]
    assert message.startswith(f"ImportError: nasib_ray needs its package '{room}' at {ROOT / room}, but")
    assert f"`import {room}` finds {found}, which shadows it" in message
    assert f"take {tmp_path} off Python's path" in message
    assert run.stdout == ""


def test_foreign_package_that_was_imported_before_is_told(tmp_path: Path) -> None:
    (tmp_path / "schedulers.py").write_text("")

    loaded = import_nasib_ray(ROOT, before=f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import schedulers")
    made = import_nasib_ray(
        ROOT, before="import sys, types; sys.modules['schedulers'] = types.ModuleType('schedulers')"
    )

    assert f"finds {tmp_path / 'schedulers.py'}, which shadows it" in loaded.stderr
    assert "which has no file" in made.stderr
    assert "ImportError: nasib_ray needs its package 'schedulers'" in made.stderr


def test_rooms_of_another_clone_are_foreign(tmp_path: Path) -> None:
    (tmp_path / "schedulers").symlink_to(ROOT / "schedulers")
    (tmp_path / "trainables").mkdir()
    for file in (ROOT / "trainables").glob("*.py"):
        (tmp_path / "trainables" / file.name).write_bytes(file.read_bytes())

    run = import_nasib_ray(tmp_path, ROOT)

    # A link leads to the same package, a copy does not.
    assert f"`import trainables` finds {tmp_path / 'trainables'}" in run.stderr


def test_folder_that_is_no_package_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "schedulers").mkdir()

    run = import_nasib_ray(tmp_path, ROOT)

    assert (run.returncode, run.stderr) == (0, "")


def test_missing_room_is_told(tmp_path: Path) -> None:
    (tmp_path / "nasib_ray").mkdir()
    for file in (ROOT / "nasib_ray").glob("*.py"):
        (tmp_path / "nasib_ray" / file.name).write_bytes(file.read_bytes())

    run = import_nasib_ray(tmp_path)

    assert run.returncode == 1
    assert "ImportError: nasib_ray needs its package 'schedulers'" in run.stderr


def test_what_comes_onto_the_path_later_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "schedulers").mkdir()
    (tmp_path / "schedulers" / "__init__.py").write_text("raise RuntimeError('I was run')")
    script = f"import nasib_ray, sys; sys.path.insert(0, {str(tmp_path)!r}); import schedulers.budget"

    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (run.returncode, run.stderr) == (0, "")
