from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import fs

from nasib_ray.kernel_maps import read_history
from trainables.checkpoint import load_search, save_search
from trainables.data import Dataset, ImageSet
from trainables.manifest import MANIFEST, verify_checkpoint
from trainables.search import Search
from trainables.settings import TrialSettings


def _advance(search: Search, batches: int) -> Search:
    for _ in range(batches):
        search.run_batch()
    return search


def state_of(directory: Path) -> dict[str, Any]:
    """All that a checkpoint holds, tensors by their digest, without the wall seconds."""
    manifest = json.loads((directory / MANIFEST).read_text())["files"]
    search = json.loads((directory / "search.json").read_text())
    del search["totals"]["seconds"]
    if search["position"]["last_epoch"]:
        del search["position"]["last_epoch"]["epoch_seconds"]
    # As text, for NaN differs from itself.
    return {name: entry["sha256"] for name, entry in manifest.items() if name != "search.json"} | {
        "search": json.dumps(search)
    }


def test_what_is_loaded_is_what_was_saved_and_goes_on_alike(make_search: Callable[..., Search], tmp_path: Path) -> None:
    whole = make_search(seed=4, objective="shared-accuracy")
    for cut in (3, 8, 9, 10, 14, 21):  # In each pass, at an epoch's end, and right behind it.
        _advance(whole, cut - whole.position.batches)
        saved, again = tmp_path / f"saved {cut}", tmp_path / f"again {cut}"
        saved.mkdir()
        again.mkdir()
        save_search(whole, saved)
        other = make_search(seed=4, objective="shared-accuracy")
        load_search(other, saved)
        save_search(other, again)
        assert state_of(again) == state_of(saved)
        expected, got = tmp_path / f"expected {cut}", tmp_path / f"got {cut}"
        expected.mkdir()
        got.mkdir()
        save_search(_advance(make_search(seed=4, objective="shared-accuracy"), cut + 7), expected)
        save_search(_advance(other, 7), got)
        assert state_of(got) == state_of(expected)


def test_momentum_is_saved_of_drawn_candidates_alone(make_search: Callable[..., Search], tmp_path: Path) -> None:
    search = _advance(make_search(), 1)
    save_search(search, tmp_path)
    fresh = make_search()
    load_search(fresh, tmp_path)
    assert fresh.optimizer.momentum.keys() == search.optimizer.momentum.keys()
    assert 0 < len(fresh.optimizer.momentum) < len(list(fresh.supernet.parameters()))


def test_the_architecture_file_is_a_table_that_pandas_reads(make_search: Callable[..., Search], tmp_path: Path) -> None:
    search = _advance(make_search(candidates=["conv3x5", "sepconv2x7", "identity"]), 12)
    save_search(search, tmp_path)
    with pa.memory_map(str(tmp_path / "architecture.arrow")) as source:
        table: pd.DataFrame = pa.ipc.open_file(source).read_pandas()
    assert list(table.columns) == [
        "epoch",
        "layer",
        "i",
        "j",
        "operation",
        "alpha",
        "frequency",
        "sampling_probability",
    ]
    assert table["layer"].tolist() == [1, 1, 1, 2, 2, 2]
    assert table["operation"].tolist() == ["conv3x5", "sepconv2x7", "identity"] * 2
    assert table["i"].dropna().tolist() == [3, 2] * 2
    assert table["j"].dropna().tolist() == [5, 7] * 2
    assert table["alpha"].tolist() == search.parameters.alpha.flatten().tolist()
    assert table["frequency"].tolist() == search.sampler.frequency.flatten().tolist()
    assert table.groupby("layer")["sampling_probability"].sum().tolist() == pytest.approx([1, 1])


def test_the_history_has_the_candidates_after_the_epochs_that_are_powers_of_two(
    make_search: Callable[..., Search], tmp_path: Path
) -> None:
    search = make_search(candidates=["conv3x5", "identity"], horizon=5, objective="shared-accuracy")
    expected = {}
    while not search.finished:
        search.run_batch()
        if not search.in_epoch and search.epochs in (1, 2, 4, 5):
            expected[search.epochs] = search.parameters.alpha.flatten().tolist()
    save_search(search, tmp_path)
    tables = read_history(fs.LocalFileSystem(), str(tmp_path))
    assert {epoch: table["alpha"].to_pylist() for epoch, table in tables.items()} == expected
    loaded = make_search(candidates=["conv3x5", "identity"], horizon=5, objective="shared-accuracy")
    load_search(loaded, tmp_path)
    assert [snapshot.epoch for snapshot in loaded.snapshots] == [1, 2, 4]
    assert loaded.snapshots[1].alpha.dtype == torch.float64
    assert torch.equal(loaded.snapshots[2].frequency, search.snapshots[2].frequency)


@pytest.fixture
def saved(make_search: Callable[..., Search], tmp_path: Path) -> Path:
    save_search(_advance(make_search(), 2), tmp_path)
    return tmp_path


def test_a_whole_checkpoint_verifies(saved: Path) -> None:
    verify_checkpoint(saved)
    verify_checkpoint(str(saved))


@pytest.mark.parametrize(
    "name",
    ["weights.safetensors", "momentum.safetensors", "alpha_optimizer.safetensors", "architecture.arrow", "search.json"],
)
def test_any_damage_is_found_and_named(saved: Path, name: str) -> None:
    file = saved / name
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"{name} has {len(content) - 1} bytes where its manifest says {len(content)}"):
        verify_checkpoint(saved)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{name} differs"):
        verify_checkpoint(saved)
    file.unlink()
    with pytest.raises(ValueError, match=f"lacks its file {name}"):
        verify_checkpoint(saved)


def test_a_checkpoint_that_was_not_finished_or_is_of_another_version_is_refused(saved: Path, tmp_path: Path) -> None:
    manifest = saved / MANIFEST
    text = manifest.read_text()
    manifest.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"manifest.json is damaged"):
        verify_checkpoint(saved)
    manifest.write_text("[]")
    with pytest.raises(ValueError, match=r"manifest.json is damaged"):
        verify_checkpoint(saved)
    manifest.write_text(text.replace('"version": 3', '"version": 99'))
    with pytest.raises(ValueError, match=r"version 99; this package reads .* version 3"):
        verify_checkpoint(saved)
    manifest.unlink()
    with pytest.raises(ValueError, match="is no checkpoint, or was not written to its end"):
        verify_checkpoint(saved)


def test_a_damaged_checkpoint_leaves_the_search_as_it_was(make_search: Callable[..., Search], saved: Path) -> None:
    (saved / "architecture.arrow").write_bytes(b"")
    search = make_search()
    with pytest.raises(ValueError, match=r"architecture\.arrow"):
        load_search(search, saved)
    assert search.position.batches == 0


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"candidates": "narrow"}, "candidates"),
        ({"channels": 5}, "macro"),
        ({"batch_norm": "layer"}, "batch_norm"),
        ({"batch_size": 16}, "batch_size"),
        ({"alternate": "step"}, "alternate"),
        ({"split_seed": 1}, "splits"),
    ],
)
def test_the_checkpoint_of_another_search_is_refused(
    make_search: Callable[..., Search], saved: Path, changes: dict[str, Any], what: str
) -> None:
    with pytest.raises(ValueError, match=f"checkpoint of another search: its {what} is"):
        load_search(make_search(**changes), saved)


def test_a_changed_setting_is_taken_with_a_warning(
    make_search: Callable[..., Search], saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = make_search(**{"lambda": 0.5, "k": 0.3, "horizon": 9, "slice_seconds": 5, "checkpoint_seconds": 1})
    with caplog.at_level(logging.WARNING):
        load_search(search, saved)
    assert "'lambda': (" in caplog.text
    assert "'k': (0.1, 0.3)" in caplog.text
    assert "slice_seconds" not in caplog.text
    assert "horizon" not in caplog.text
    assert search.schedule.horizon == 9


def test_a_checkpoint_may_be_moved(make_search: Callable[..., Search], saved: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "checkpoint_000001"
    shutil.copytree(saved, moved, ignore=shutil.ignore_patterns("elsewhere"))
    search = make_search()
    load_search(search, moved)
    assert search.position.batches == 2


def test_the_papers_network_steps_saves_and_restores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # 12 layers, m = 9, K = 9, batch 64, 32 x 32 RGB: each of its two passes takes a batch.
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (192, 3, 32, 32), generator=generator).to(torch.uint8)
    data = ImageSet(images, torch.arange(192) % 10)
    classes = tuple("abcdefghij")
    dataset = Dataset("synthetic", data, data, classes, (0.5,) * 3, (0.3,) * 3, "fingerprint")
    settings = TrialSettings.from_config({"horizon": 2, "data": {"alpha_images": 64, "selection_images": 64}})
    search = Search(settings, dataset, torch.device("cpu"))
    assert sum(parameter.numel() for parameter in search.supernet.parameters()) == 13_777_162
    _advance(search, 2)
    assert search.sampler.frequency.shape == (12, 81)
    assert search.sampler.frequency.sum(1).tolist() == [4] * 12
    assert (search.parameters.alpha != 0).sum(1).tolist() == [2] * 12
    save_search(search, tmp_path)
    started = time.perf_counter()
    verify_checkpoint(tmp_path)
    assert time.perf_counter() - started < 10
    restored = Search(settings, dataset, torch.device("cpu"))
    load_search(restored, tmp_path)
    expected, got = tmp_path / "expected", tmp_path / "got"
    expected.mkdir()
    got.mkdir()
    save_search(_advance(search, 1), expected)
    save_search(_advance(restored, 1), got)
    assert state_of(got) == state_of(expected)
    assert not caplog.records


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_search_steps_saves_and_goes_on(
    digits: Dataset, small_config: dict[str, Any], tmp_path: Path
) -> None:
    settings = TrialSettings.from_config({**small_config, "data": {**small_config["data"], "crop": True}})
    search = Search(settings, digits, torch.device("cuda", 0))
    _advance(search, 9)
    save_search(search, tmp_path)
    restored = Search(settings, digits, torch.device("cuda", 0))
    load_search(restored, tmp_path)
    assert torch.equal(restored.parameters.alpha, search.parameters.alpha)
    _advance(restored, len(restored.plan))
    assert restored.epochs == 1
