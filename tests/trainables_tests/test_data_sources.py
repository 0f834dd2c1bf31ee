from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainables.data_sources import Contents, builtin_source, own_source
from trainables.image_decoding import ImageFormat
from trainables.settings import DataSettings


def silent(text: str, done: int, total: int) -> None:
    pass


def pixels(contents: Contents, target: ImageFormat) -> NDArray[np.uint8]:
    return np.concatenate(list(contents.train.images.blocks(target)))


def test_digits_are_scaled_to_bytes() -> None:
    contents = builtin_source(DataSettings(name="digits"), Path("unused")).read(silent)
    images = pixels(contents, ImageFormat(8, 8, 1))
    assert images.shape == (1797, 1, 8, 8)
    assert (images.min(), images.max(), len(np.unique(images))) == (0, 255, 17)
    assert contents.train.labels[:10].tolist() == list(range(10))
    assert contents.test is None


def write_mnist(folder: Path) -> None:
    """A small data set in the format of the original files."""
    folder.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 2)):
        images = np.arange(count, dtype=np.uint8).repeat(28 * 28)
        labels = bytes(range(count))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_torchvision_reads_the_files_in_root(tmp_path: Path, name: str, folder: str) -> None:
    pytest.importorskip("torchvision")
    write_mnist(tmp_path / folder / "raw")
    settings = DataSettings(name=name, root=str(tmp_path), download=False)
    contents = builtin_source(settings, tmp_path / "unused").read(silent)
    assert contents.test is not None
    assert contents.train.labels.tolist() == [0, 1, 2]
    assert contents.test.labels.tolist() == [0, 1]
    assert pixels(contents, ImageFormat(28, 28, 1)).max(axis=(1, 2, 3)).tolist() == [0, 1, 2]
    assert contents.class_names is not None
    assert len(contents.class_names) == 10


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist", "svhn"])
def test_a_set_that_is_not_there_says_what_to_do(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torchvision")
    source = builtin_source(DataSettings(name=name, download=False), tmp_path)
    with pytest.raises(ValueError, match=rf"{name} is not complete in .*{name} .*set data\.root .*--data PATH"):
        source.read(silent)


def test_half_a_set_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder)
    file = folder / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:100])
    source = builtin_source(DataSettings(name="mnist", root=str(tmp_path), download=False), tmp_path)
    with pytest.raises(ValueError, match="mnist is not complete in"):
        source.read(silent)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module own_images with this function ``load`` and gives the settings that name it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(code: str, **settings: Any) -> DataSettings:
        (tmp_path / "own_images.py").write_text(f"import numpy as np\n\ndef load(settings):\n    {code}\n")
        sys.modules.pop("own_images", None)
        return DataSettings(name="own_images:load", **settings)

    yield write
    sys.modules.pop("own_images", None)


def test_an_own_function_gets_the_settings_and_returns_train_and_test(own: Any) -> None:
    settings = own(
        "n = settings.subset; return (np.ones((n, 4, 5, 2), 'u1'), range(n)), (np.zeros((1, 4, 5, 2), 'u1'), [0])",
        subset=3,
    )
    contents = own_source(settings).read(silent)
    assert contents.train.labels.tolist() == [0, 1, 2]
    assert pixels(contents, ImageFormat(4, 5, 2)).shape == (3, 2, 4, 5)
    assert contents.test is not None
    assert contents.test.labels.tolist() == [0]


def test_an_own_function_may_return_grey_images_and_no_test_part(own: Any) -> None:
    contents = own_source(own("return (np.zeros((2, 4, 5), np.uint8), [0, 1]), None")).read(silent)
    assert pixels(contents, ImageFormat(4, 5, 1)).shape == (2, 1, 4, 5)
    assert contents.test is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("return np.zeros((2, 4, 4), 'u1')", r"returned ndarray: it must return \(train, test\)"),
        ("return np.zeros((2, 4, 4), 'u1'), [0, 1]", "something else than a pair|they must be"),
        ("return (np.zeros((2, 4, 4)), [0, 1]), None", "train images float64 of shape .* must be uint8"),
        ("return (np.zeros((2, 4), 'u1'), [0, 1]), None", r"train images uint8 of shape \[2, 4\]"),
        ("return (np.zeros((2, 3, 8, 8), 'u1'), [0, 1]), None", r"looks like \[N, C, H, W\]"),
        ("return (np.zeros((2, 4, 4), 'u1'), [0, 1, 2]), None", r"labels int64 of shape \[3\] for 2 images"),
        ("return (np.zeros((2, 4, 4), 'u1'), [0., 1.]), None", "train labels float64"),
        ("return (np.zeros((2, 4, 4), 'u1'), [0, 1]), (np.zeros((1, 4, 4), 'u1'), [[0]])", "test labels int64"),
    ],
)
def test_what_an_own_function_returns_is_checked(own: Any, code: str, message: str) -> None:
    source = own_source(own(code))
    with pytest.raises(ValueError, match=message):
        source.read(silent)


def test_the_identity_of_own_data_changes_with_the_module_and_the_root(own: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "data.bin").write_bytes(b"1")
    first = own_source(own("return None", root=str(root))).identity
    assert own_source(own("return None", root=str(root / "data.bin"))).identity != first
    (root / "data.bin").write_bytes(b"22")
    second = own_source(DataSettings(name="own_images:load", root=str(root))).identity
    assert second != first
    assert own_source(own("return None, None", root=str(root))).identity != second


@pytest.mark.parametrize("name", ["no_such_package.module:load", "own_images:no_such_function"])
def test_an_own_function_that_cannot_be_imported_is_told(own: Any, name: str) -> None:
    own("return None")
    with pytest.raises(ValueError, match=rf"cannot import data\.name = '{name}'"):
        own_source(DataSettings(name=name))


def test_a_root_that_is_not_there_is_told(own: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.root = .*missing' does not exist"):
        own_source(own("return None", root=str(tmp_path / "missing")))
