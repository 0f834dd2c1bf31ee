from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from trainables.data import BatchTransform, Dataset, ImageSet, Splits, load_dataset, make_splits
from trainables.settings import DataSettings


def write_folder(root: Path, count: int = 30, size: tuple[int, int] = (16, 20)) -> Path:
    """Two classes of random RGB images; those of the second are dark."""
    generator = np.random.default_rng(0)
    for name, brightest in (("bright", 256), ("dark", 64)):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(generator.integers(0, brightest, (*size, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root


def load(tmp_path: Path, name: str | Path, **settings: Any) -> Dataset:
    return load_dataset(DataSettings(name=str(name), cache=str(tmp_path / "cache"), **settings))


def splits(count: int, classes: int = 10, seed: int = 0, **settings: Any) -> Splits:
    return make_splits(torch.arange(count) % classes, DataSettings(**settings), seed)


def test_digits(tmp_path: Path) -> None:
    data = load(tmp_path, "digits")
    assert data.name == "digits"
    assert data.train.images.shape == (1438, 1, 8, 8)
    assert data.test.images.shape == (359, 1, 8, 8)
    assert (data.train.images.dtype, data.train.labels.dtype) == (torch.uint8, torch.int64)
    assert data.class_names == tuple("0123456789")
    assert data.test.labels.bincount().min() >= 34
    torch.testing.assert_close(torch.tensor(data.mean), data.train.images.double().mean().div(255).float().view(1))
    drawn = make_splits(data.train.labels, DataSettings(name="digits"), 0)
    assert (len(drawn.weights), len(drawn.alpha), len(drawn.selection)) == (1006, 144, 288)


def test_a_folder_of_images_from_file_to_batch(tmp_path: Path) -> None:
    data = load(tmp_path, write_folder(tmp_path / "images"))
    assert data.class_names == ("bright", "dark")
    assert data.train.labels.bincount().tolist() == data.test.labels.bincount().mul(4).tolist() == [24, 24]
    brightness = data.train.images.float().mean(dim=(1, 2, 3))
    assert brightness[data.train.labels == 1].max() < brightness[data.train.labels == 0].min()
    transform = BatchTransform(data, DataSettings(name=data.name), "cpu")
    batch = transform(data.train.images[:8], torch.Generator().manual_seed(0))
    assert batch.shape == (8, 3, 16, 20)


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    for part, count in (("train", 40), ("test", 10)):
        cells = []
        for i in range(count):
            buffer = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), i, dtype=np.uint8)).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        pq.write_table(pa.table({"img": cells, "label": [i % 4 for i in range(count)]}), folder / f"{part}-0.parquet")
    data = load(tmp_path, folder)
    assert data.train.images[:, 1, 3, 3].tolist() == list(range(40))
    assert data.test.labels.tolist() == [i % 4 for i in range(10)]
    one_file = load(tmp_path, folder / "train-0.parquet")
    assert (len(one_file.train.labels), len(one_file.test.labels)) == (32, 8)


def test_images_are_resized_to_the_size_asked_for(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images")
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(root / "dark" / "odd.png")
    with pytest.raises(ValueError, match=r"16 x 20 \(60 images\), 9 x 9 \(1 images\); set data\.image_size"):
        load(tmp_path, root)
    assert load(tmp_path, root, image_size=12).train.images.shape[1:] == (3, 12, 12)


def test_several_trials_of_a_process_read_the_same_data(tmp_path: Path) -> None:
    first, second = load(tmp_path, "digits"), load(tmp_path, "digits")
    before = first.train.images.clone()
    transform = BatchTransform(first, DataSettings(name="digits", crop=True, cutout=True), "cpu")
    transform(first.train.images, torch.Generator().manual_seed(0))
    assert torch.equal(second.train.images, before)
    assert (first.fingerprint, first.mean) == (second.fingerprint, second.mean)


def test_a_subset_is_stratified_fixed_and_within_a_larger_one(tmp_path: Path) -> None:
    whole = load(tmp_path, "digits")
    small, large = load(tmp_path, "digits", subset=200), load(tmp_path, "digits", subset=400)
    assert len(small.train.labels) == 200
    assert small.train.labels.bincount().min() >= 19
    assert (small.fingerprint, small.mean) == (whole.fingerprint, whole.mean)
    assert torch.equal(small.test.images, whole.test.images)
    within = {image.numpy().tobytes() for image in large.train.images}
    assert all(image.numpy().tobytes() in within for image in small.train.images)
    assert load(tmp_path, "digits", subset=1438).train.images.shape == whole.train.images.shape
    with pytest.raises(ValueError, match=r"data\.subset = 1439 is more than the 1438 training images"):
        load(tmp_path, "digits", subset=1439)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "cifar-10",
            {},
            "'cifar-10' is no built-in data set, and there is no /.*cifar-10: give one of digits, cifar10",
        ),
        ("missing/folder", {}, "there is no /.*missing/folder"),
        ("digits.zip", {}, "is a file, but not a Parquet file"),
        ("somewhere", {"root": "/data"}, r"data\.root = '/data' has no meaning for data\.name = 'somewhere'"),
    ],
)
def test_a_name_that_means_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any], message: str
) -> None:
    (tmp_path / "digits.zip").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, name, **settings)


def test_splits_are_disjoint_stratified_and_cover_everything() -> None:
    drawn = splits(5000)
    assert (len(drawn.weights), len(drawn.alpha), len(drawn.selection)) == (3500, 500, 1000)
    everything = torch.cat([drawn.weights, drawn.alpha, drawn.selection])
    assert everything.sort().values.tolist() == list(range(5000))
    for part, per_class in ((drawn.weights, 350), (drawn.alpha, 50), (drawn.selection, 100)):
        assert part.dtype == torch.int64
        assert torch.equal(part, part.sort().values)
        assert (part % 10).bincount().tolist() == [per_class] * 10


def test_splits_are_drawn_by_the_seed() -> None:
    assert torch.equal(splits(500, seed=1).alpha, splits(500, seed=1).alpha)
    assert not torch.equal(splits(500, seed=1).alpha, splits(500, seed=2).alpha)


@pytest.mark.parametrize(
    ("count", "settings", "expected"),
    [
        (50_000, {}, (40_000, 5_000, 5_000)),
        (6_000, {}, (4_400, 600, 1_000)),
        (1_000, {}, (700, 100, 200)),
        (1_000, {"alpha_images": 50, "selection_images": 0.4}, (550, 50, 400)),
        (50_000, {"alpha_images": 0.5, "selection_images": 1_000}, (24_000, 25_000, 1_000)),
    ],
)
def test_sizes_of_the_splits(count: int, settings: dict[str, Any], expected: tuple[int, int, int]) -> None:
    drawn = splits(count, **settings)
    assert (len(drawn.weights), len(drawn.alpha), len(drawn.selection)) == expected


@pytest.mark.parametrize(
    ("count", "settings", "message"),
    [
        (100, {"alpha_images": 50, "selection_images": 20}, "leaves 30 for the weights, which need at least 40"),
        (100, {"alpha_images": 90, "selection_images": 20}, "alpha takes 90 and selection 20: that leaves 0"),
        (100, {"alpha_images": 1}, "alpha gets 1 and selection 20; each needs at least 2"),
        (20, {}, r"leaves 14 for the weights, which need at least 40 \(4 for each of 10 classes\)"),
    ],
)
def test_splits_that_leave_too_little_are_refused(count: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        splits(count, **settings)


def test_a_class_that_would_not_be_trained_is_named() -> None:
    labels = torch.tensor([0] * 996 + [1] * 2 + [2] * 2)
    with pytest.raises(ValueError, match="of class 1 alpha and selection take all 2 training images"):
        make_splits(labels, DataSettings(alpha_images=0.4, selection_images=0.4), seed=0)


def test_an_image_set_is_plain_data() -> None:
    part = ImageSet(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(AttributeError):
        part.images = torch.ones(1)  # type: ignore[misc]


def test_cifar10_is_decoded_once_and_then_opened_at_once(tmp_path: Path) -> None:
    path = os.environ.get("NASIB_RAY_CIFAR10")
    if not path:
        pytest.skip("set NASIB_RAY_CIFAR10 to a folder of CIFAR-10 in Parquet")
    data = load(tmp_path, path)
    assert data.train.images.shape == (50_000, 3, 32, 32)
    assert data.test.labels.bincount().tolist() == [1_000] * 10
    assert data.class_names[0] == "airplane"
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.001)
    start = time.perf_counter()
    load(tmp_path, path)
    assert time.perf_counter() - start < 0.2
