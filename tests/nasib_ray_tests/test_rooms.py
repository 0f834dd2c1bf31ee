"""Which room may import which, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nasib_ray
import schedulers
import trainables

ROOT = Path(__file__).parents[2]
ROOMS = ("nasib_ray", "schedulers", "trainables")
MAY_IMPORT_RAY = {
    "schedulers/actor_watch.py",
    "schedulers/cluster_room.py",
    "schedulers/lost_cluster.py",
    "schedulers/messenger.py",
    "schedulers/node_watch.py",
    "schedulers/budget_scheduler.py",
    "schedulers/storage_reach.py",
    "schedulers/sweep_callback.py",
    "schedulers/sweep_run.py",
    "schedulers/trial_source.py",
    "schedulers/tune_internals.py",
    "trainables/sliced.py",
}


def imported_by(file: Path) -> set[str]:
    """The modules that a file imports, anywhere in it; written in full, as no import here is relative."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: a relative import"
            found.add(node.module or "")
    return found


def packages_imported_in(room: str) -> dict[str, set[str]]:
    """For each file of a room the top-level packages that it imports."""
    files = sorted((ROOT / room).rglob("*.py"))
    return {str(file.relative_to(ROOT)): {name.partition(".")[0] for name in imported_by(file)} for file in files}


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    script = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [("schedulers", {"nasib_ray", "trainables", "torch"}), ("trainables", {"nasib_ray", "schedulers"})],
)
def test_arrows_between_rooms_run_one_way(room: str, forbidden: set[str]) -> None:
    wrong = {file: found & forbidden for file, found in packages_imported_in(room).items() if found & forbidden}

    assert wrong == {}


def test_ray_is_imported_only_where_it_must_be() -> None:
    found = {**packages_imported_in("schedulers"), **packages_imported_in("trainables")}

    assert {file for file, packages in found.items() if "ray" in packages} == MAY_IMPORT_RAY


@pytest.mark.parametrize("room", ROOMS)
def test_importing_a_room_imports_nothing_heavy(room: str) -> None:
    assert modules_after(f"import {room}") & {"ray", "torch", "torchvision", "optuna", "pandas", "pyarrow"} == set()


def test_scheduler_alone_does_not_import_torch() -> None:
    loaded = modules_after("import schedulers; schedulers.BudgetScheduler; schedulers.TrialSource")

    assert "ray" in loaded
    assert "torch" not in loaded
    assert "trainables" not in loaded


@pytest.mark.parametrize("module", ["nasib_ray.cli", "nasib_ray.config", "nasib_ray.progress"])
def test_what_answers_at_once_imports_neither_ray_nor_torch(module: str) -> None:
    assert modules_after(f"import {module}") & {"ray", "torch", "torchvision", "optuna"} == set()


@pytest.mark.parametrize("package", [nasib_ray, schedulers, trainables], ids=lambda package: package.__name__)
def test_every_public_name_is_there(package: ModuleType) -> None:
    names = dir(package)

    assert len(names) > 3
    for name in names:
        value = getattr(package, name)
        assert name == "__version__" or value.__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_public_names_are_no_modules_whatever_was_imported_before() -> None:
    modules = "; ".join(f"import nasib_ray.{file.stem}" for file in sorted((ROOT / "nasib_ray").glob("[a-z]*.py")))
    check = "assert all(callable(getattr(nasib_ray, name)) for name in nasib_ray._HOMES)"

    modules_after(f"{modules}; {check}")
