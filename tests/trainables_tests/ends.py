"""What searches report and keep at their ends, to be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainables.checkpoint import save_search
from trainables.manifest import MANIFEST
from trainables.nasib import NasibTrainable

REPORTED = {
    "epochs", "batches", "horizon", "clock", "p", "learning_rate", "train_loss", "architecture_loss", "val_accuracy",
    "val_accuracy_stderr", "best_val_accuracy", "objective", "objective_seconds", "architecture", "epoch_seconds",
    "epoch_fraction", "cut", "interrupted",
    "alpha_entropy", "effective_candidates", "effective_candidates_mean", "parameters", "device_name", "seed", "done",
    "should_checkpoint", "memory_bytes", "step_memory_bytes",
}  # fmt: skip


def state_of(trainable: NasibTrainable, folder: Path) -> dict[str, Any]:
    """All that a checkpoint holds, tensors by their digest, without the wall seconds and what was told from outside."""
    folder.mkdir(parents=True, exist_ok=True)
    save_search(trainable.search, folder)
    return state_in(folder)


def state_in(folder: Path) -> dict[str, Any]:
    files = json.loads((folder / MANIFEST).read_text())["files"]
    search = json.loads((folder / "search.json").read_text())
    search["totals"].pop("seconds")
    for measured in ("epoch_seconds", "objective_seconds"):
        (search["position"]["last_epoch"] or {}).pop(measured, None)
    return {"search": json.dumps(search)} | {
        name: entry["sha256"] for name, entry in files.items() if name != "search.json"
    }


def finish(trainable: NasibTrainable) -> dict[str, Any]:
    while not (report := trainable.train())["done"]:
        pass
    return dict(report)


def assert_same_end(one: NasibTrainable, other: NasibTrainable, tmp_path: Path) -> None:
    """Both searches, run to their end, report and keep the same, bit for bit."""
    reports, others = finish(one), finish(other)
    for key in REPORTED - {"epoch_seconds", "objective_seconds", "memory_bytes", "step_memory_bytes"}:
        assert reports[key] == others[key], key
    assert state_of(one, tmp_path / "one") == state_of(other, tmp_path / "other")
