from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainables.data_cache import DecodedData, cache_folder, open_decoded
from trainables.data_sources import Contents, Part, Source
from trainables.image_decoding import ArrayImages


def images(count: int, height: int = 4, width: int = 6, channels: int = 3, seed: int = 0) -> ArrayImages:
    shape = (count, height, width, channels)
    return ArrayImages(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def part(count: int, height: int = 4, width: int = 6, channels: int = 3, classes: int = 2) -> Part:
    return Part(images(count, height, width, channels), np.arange(count) % classes)


def source(train: Part, test: Part | None = None, identity: str = "x") -> Source:
    return Source((identity,), lambda progress: Contents(train, test, None))


def decoded(
    given: Source,
    cache: Path,
    size: tuple[int, int] | None = None,
    progress: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> DecodedData:
    return open_decoded("some/data", given, size, cache, progress)


def test_training_and_test_part_lie_behind_each_other(tmp_path: Path) -> None:
    train, test = part(10), part(4)
    data = decoded(source(train, test), tmp_path)
    assert isinstance(data.images, np.memmap)
    assert data.images.shape == (14, 3, 4, 6)
    assert data.description.train_images == 10
    assert data.labels.tolist() == [0, 1] * 5 + [0, 1] * 2
    assert data.description.class_names == ("0", "1")
    original = np.random.default_rng(0).integers(0, 256, (10, 4, 6, 3), dtype=np.uint8)
    assert np.array_equal(data.images[:10], original.transpose(0, 3, 1, 2))
    for axis, values in (
        ("mean", (original / 255).mean(axis=(0, 1, 2))),
        ("std", (original / 255).std(axis=(0, 1, 2))),
    ):
        np.testing.assert_allclose(getattr(data.description, axis), values, rtol=1e-6)


def test_without_a_test_part_a_stratified_fifth_becomes_one(tmp_path: Path) -> None:
    given = part(200, classes=4)
    data = decoded(source(given), tmp_path)
    assert data.description.train_images == 160
    assert np.bincount(data.labels[160:]).tolist() == [10] * 4
    original = np.random.default_rng(0).integers(0, 256, (200, 4, 6, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    place = {image.tobytes(): i for i, image in enumerate(original)}
    rows = [place[image.tobytes()] for image in data.images]
    assert sorted(rows) == list(range(200))
    assert [label % 4 for label in rows] == data.labels.tolist()


def test_decoding_happens_once_and_its_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    reads: list[int] = []

    def read(progress: object) -> Contents:
        reads.append(1)
        return Contents(part(150), None, None)

    given = Source(("once",), read)
    for _ in range(3):
        decoded(given, tmp_path, progress=lambda *event: told.append(event))
    assert len(reads) == 1
    assert [done for text, done, _ in told if text == "decoding images"] == [64, 128, 150]


def test_progress_is_told_fifty_times_at_most(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    decoded(source(part(10_000)), tmp_path, progress=lambda *event: told.append(event))
    done = [images for text, images, _ in told if text == "decoding images"]
    assert len(done) == 50
    assert done[-1] == 10_000


def test_what_changes_the_images_changes_the_folder(tmp_path: Path) -> None:
    decoded(source(part(10), identity="a"), tmp_path)
    decoded(source(part(10), identity="b"), tmp_path)
    decoded(source(part(10), identity="a"), tmp_path, size=(2, 3))
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert len(folders) == 3
    assert all(name.startswith("data-") for name in folders)


def test_the_fingerprint_is_that_of_the_data_not_of_their_path(tmp_path: Path) -> None:
    here = decoded(source(part(10), identity="here"), tmp_path)
    there = decoded(source(part(10), identity="there"), tmp_path)
    other = decoded(source(Part(images(10, seed=1), np.arange(10) % 2), identity="other"), tmp_path)
    relabelled = decoded(source(Part(images(10), np.arange(10) % 3), identity="relabelled"), tmp_path)
    assert here.description.fingerprint == there.description.fingerprint
    assert len({data.description.fingerprint for data in (here, other, relabelled)}) == 3


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    given = source(part(10, 4, 6), part(3, 8, 8))
    with pytest.raises(ValueError, match=r"2 sizes .* 4 x 6 \(10 images\), 8 x 8 \(3 images\); set data.image_size"):
        decoded(given, tmp_path)
    assert decoded(given, tmp_path, size=(5, 7)).images.shape == (13, 3, 5, 7)


def test_grey_beside_rgb_becomes_rgb(tmp_path: Path) -> None:
    data = decoded(source(part(10, channels=3), part(4, channels=1)), tmp_path)
    assert data.images.shape == (14, 3, 4, 6)
    assert (data.images[10:, 0] == data.images[10:, 2]).all()


def test_channels_that_cannot_be_reconciled_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"have \[2, 3\] channels"):
        decoded(source(part(10, channels=3), part(4, channels=2)), tmp_path)


def test_a_failed_decoding_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(text: str, done: int, total: int) -> None:
        if (text, done) == ("decoding images", 128):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoded(source(part(200)), tmp_path, progress=fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(decoded(source(part(200)), tmp_path).images) == 200


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    decoded(source(part(10)), tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    os.truncate(folder / "images.npy", 200)
    with pytest.raises(ValueError, match=rf"{folder.name} are damaged .* remove that folder"):
        decoded(source(part(10)), tmp_path)


def test_a_file_that_lost_its_contents_is_damage(tmp_path: Path) -> None:
    decoded(source(part(10)), tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    os.truncate(folder / "labels.npy", 0)
    with pytest.raises(ValueError, match=rf"{folder.name} are damaged .* remove that folder"):
        decoded(source(part(10)), tmp_path)


def test_a_test_part_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the test part has no images"):
        decoded(source(part(10), part(0)), tmp_path)


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to the cache .*set data\.cache"):
        decoded(source(part(10)), tmp_path / "file")


def test_images_that_do_not_fit_on_the_disk_are_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"take \d+\.\d+ GB, and .* GB are free in .* set data\.cache"):
        decoded(source(part(10)), tmp_path, size=(10_000_000, 10_000_000))


def test_the_cache_is_where_the_setting_or_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASIB_RAY_CACHE", str(tmp_path / "environment"))
    assert cache_folder(str(tmp_path / "setting")) == tmp_path / "setting"
    assert cache_folder(None) == tmp_path / "environment"
    monkeypatch.delenv("NASIB_RAY_CACHE")
    assert cache_folder(None) == Path.home() / ".cache" / "nasib-ray"


# Decodes 500 images, slowly, in a process of its own; every call of the function adds a line to a file.
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from trainables.data_cache import open_decoded
from trainables.data_sources import Contents, Part, Source
from trainables.image_decoding import ArrayImages

cache, doom = Path(sys.argv[1]), sys.argv[2]

def read(progress):
    with open(cache.parent / "calls", "a") as calls:
        calls.write("called\\n")
    pixels = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 3), dtype=np.uint8)
    return Contents(Part(ArrayImages(pixels), np.arange(500) % 5), None, None)

def progress(text, done, total):
    time.sleep(0.1)
    if doom == "killed" and (text, done) == ("decoding images", 128):
        os.kill(os.getpid(), signal.SIGKILL)

(cache.parent / f"ready-{os.getpid()}").touch()
while not doom and len(list(cache.parent.glob("ready-*"))) < 2:
    time.sleep(0.01)
data = open_decoded("slow", Source(("slow",), read), None, cache, progress)
print(json.dumps([data.description.fingerprint, int(data.images.sum(dtype=np.int64)), len(data.images)]))
"""


def start(cache: Path, doom: str = "") -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(cache), doom]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_of_two_processes_with_a_cold_cache_one_decodes(tmp_path: Path) -> None:
    processes = [start(tmp_path / "cache") for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert answers[0] == answers[1]
    assert answers[0][2] == 500
    assert (tmp_path / "calls").read_text() == "called\n"
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_a_process_killed_while_decoding_blocks_no_other(tmp_path: Path) -> None:
    killed = start(tmp_path / "cache", "killed")
    assert killed.wait(timeout=120) == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "cache").glob("*.partial")]
    next_one = start(tmp_path / "cache", "not killed")
    assert json.loads(next_one.communicate(timeout=120)[0])[2] == 500
    assert not [path.name for path in (tmp_path / "cache").glob("*.partial")]
