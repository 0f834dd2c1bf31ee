from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainables.data_sources import Contents, Source
from trainables.image_decoding import ImageFormat
from trainables.image_files import folder_source, parquet_source


def read(source: Source) -> Contents:
    return source.read(lambda text, done, total: None)


def write_images(folder: Path, values: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, value in enumerate(values):
        Image.fromarray(np.full((2, 3), value, dtype=np.uint8)).save(folder / f"{i:03}.png")


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 3), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(
    path: Path,
    labels: Sequence[Any],
    column: str = "img",
    names: Sequence[str] = (),
    values: Sequence[int] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": png(value), "path": None} for value in (range(len(labels)) if values is None else values)]
    table = pa.table({column: pa.array(cells), "label": pa.array(labels)})
    if names:
        features = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path)
    return path


def grey_values(contents: Contents, part: str) -> list[int]:
    images = getattr(contents, part).images
    return [int(image[0, 0, 0]) for block in images.blocks(ImageFormat(2, 3, 1)) for image in block]


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    write_images(tmp_path / "dog", [5, 6])
    write_images(tmp_path / "cat", [1, 2, 3])
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    write_images(tmp_path / ".hidden", [9])
    (tmp_path / "README.md").write_text("about")
    contents = read(folder_source(tmp_path))
    assert contents.class_names == ("cat", "dog")
    assert contents.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert grey_values(contents, "train") == [1, 2, 3, 5, 6]
    assert contents.test is None


def test_a_folder_with_train_and_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "train" / "a", [1])
    write_images(tmp_path / "train" / "b", [2, 3])
    write_images(tmp_path / "test" / "a", [4])
    write_images(tmp_path / "test" / "b", [6])
    write_images(tmp_path / "val" / "b", [5])
    contents = read(folder_source(tmp_path))
    assert contents.test is not None
    assert contents.test.labels.tolist() == [0, 1]
    assert grey_values(contents, "test") == [4, 6]
    assert "not val" in caplog.text


def test_the_identity_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    write_images(tmp_path / "a", [1])
    write_images(tmp_path / "b", [2])
    before = folder_source(tmp_path).identity
    assert folder_source(tmp_path).identity == before
    write_images(tmp_path / "b", [2, 3])
    assert folder_source(tmp_path).identity != before


def test_folders_laid_out_otherwise_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 0 folders"):
        folder_source(tmp_path)
    write_images(tmp_path / "a", [1])
    with pytest.raises(ValueError, match="has 1 folders: it must have one folder of images for each"):
        folder_source(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*b has no images"):
        folder_source(tmp_path)
    write_images(tmp_path / "b", [2])
    write_images(tmp_path / "test", [2])
    with pytest.raises(ValueError, match="none named train"):
        folder_source(tmp_path)


def test_a_class_that_only_the_test_folder_has_is_refused(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/c"):
        write_images(tmp_path / name, [1])
    with pytest.raises(ValueError, match=r"test has the classes c, which .*train lacks"):
        folder_source(tmp_path)


@pytest.mark.parametrize("column", ["img", "image"])
def test_one_parquet_file(tmp_path: Path, column: str) -> None:
    file = write_parquet(tmp_path / "train.parquet", [1, 0, 1], column, names=["frog", "ship"])
    contents = read(parquet_source(file))
    assert contents.class_names == ("frog", "ship")
    assert contents.train.labels.tolist() == [1, 0, 1]
    assert grey_values(contents, "train") == [0, 1, 2]
    assert contents.test is None


def test_shards_of_train_and_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [1], values=[30])
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [0, 1], values=[10, 20])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [0], values=[40])
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", [0], values=[50])
    contents = read(parquet_source(tmp_path))
    assert contents.train.labels.tolist() == [0, 1, 1]
    assert grey_values(contents, "train") == [10, 20, 30]
    assert grey_values(contents, "test") == [40]
    assert contents.class_names is None
    assert "validation-00000-of-00001" in caplog.text


def test_shards_of_other_names_are_all_for_training(tmp_path: Path) -> None:
    write_parquet(tmp_path / "birds-00000-of-00002.parquet", [0])
    write_parquet(tmp_path / "birds-00001-of-00002.parquet", [1])
    contents = read(parquet_source(tmp_path))
    assert contents.train.labels.tolist() == [0, 1]
    assert contents.test is None


def test_a_missing_shard_is_told(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00003.parquet", [0])
    write_parquet(tmp_path / "train-00002-of-00003.parquet", [0])
    with pytest.raises(ValueError, match=r"lacks 1 of the 00003 shards train-\*-of-00003: \[1\]"):
        parquet_source(tmp_path)


def test_test_files_alone_are_refused(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "test-a.parquet", [0, 1])
    with pytest.raises(ValueError, match=r"test\*, but none train\*"):
        parquet_source(tmp_path)
    assert read(parquet_source(file)).train.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [b"x"], "label": [0]}, "no column 'img' or 'image' .* its columns are picture, label"),
        ({"img": [b"x"], "label": [0]}, "column 'img' .* is binary: it must be a struct with a field 'bytes'"),
        ({"img": [{"bytes": b"x"}], "fine_label": [0]}, "no column 'label': its columns are img, fine_label"),
        ({"img": [{"bytes": b"x"}], "label": ["cat"]}, "column 'label' .* is string: labels must be integers"),
        ({"img": [{"bytes": b"x"}], "label": [0.5]}, "column 'label' .* is double: labels must be integers"),
        ({"img": [{"bytes": b"x"}] * 2, "label": [0, None]}, "1 rows of .* have no label"),
    ],
)
def test_parquet_with_other_columns_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=message):
        read(parquet_source(tmp_path))


def test_the_row_of_a_corrupt_image_is_named(tmp_path: Path) -> None:
    cells = [{"bytes": png(1), "path": "a"}] * 70 + [{"bytes": None, "path": "b"}]
    pq.write_table(pa.table({"img": cells, "label": [0] * 71}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"row 70 of .*x\.parquet is not an image"):
        list(read(parquet_source(tmp_path)).train.images.formats())


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match=r"x\.parquet is not a Parquet file that can be read"):
        read(parquet_source(tmp_path))


def test_metadata_of_another_form_give_no_names(tmp_path: Path) -> None:
    table = pa.table({"img": [{"bytes": png(1)}], "label": [0]}).replace_schema_metadata({"huggingface": "[1]"})
    pq.write_table(table, tmp_path / "x.parquet")
    assert read(parquet_source(tmp_path)).class_names is None
