from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nasib_ray import write_report
from nasib_ray.cli import app
from nasib_ray.report.diagram import Skeleton, architecture_svg
from tests.nasib_ray_tests.conftest import ARCHITECTURE, Driver
from tests.nasib_ray_tests.reported import add_search, begin_sweep, page_of, save_maps
from trainables.candidates import superkernel_names
from trainables.settings import SearchSettings

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><script>alert('sweep')</script><img src=x onerror=alert(1)>&amp;"


def test_diagram_has_every_layer_and_wraps() -> None:
    operations = [*superkernel_names(9, 9)[::8], "avg_pool3x3", "identity", "my.package:VeryLongNameOfAnOperation"]
    svg = architecture_svg(operations, Skeleton(16, (4, 7, 10), 9, (3, 32, 32), 10))

    for number, name in enumerate(operations, 1):
        assert f"<title>layer {number}: {name}</title>" in svg
    assert "128 ch, 4x4" in svg
    assert "10 classes" in svg
    assert svg.count("reduce") == 3
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())  # type: ignore[union-attr]
    assert width <= 1120
    assert height > 400


def test_diagram_without_images_known_has_channels_only() -> None:
    svg = architecture_svg(ARCHITECTURE, Skeleton.of({"channels": 8, "reductions": [2], "m": 3}, None))

    assert ">16 ch<" in svg
    assert "classes" not in svg


def test_running_sweep_whose_checkpoints_are_gone(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    driver = make_driver()
    begin_sweep(driver)
    add_search(driver, "s_00000", 0.1, 0.01)
    driver.grant("s_00000", 30.0, 2, 4)
    driver.nasib_epochs("s_00000", 0.5, 0.6)
    driver.rest("s_00000")
    page = page_of(sweep_folder, tmp_path)

    assert "<dt>state</dt><dd>running</dd>" in page
    assert all(f"<title>layer {number}: {name}</title>" in page for number, name in enumerate(ARCHITECTURE, 1))
    assert "There is no checkpoint to read them from" in page


def test_sweep_before_its_first_report(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    driver = make_driver()
    begin_sweep(driver)
    page = page_of(sweep_folder, tmp_path)
    assert "There is none yet: no trial has reported a value that is ranked." in page
    assert "No trial was begun yet." in page
    add_search(driver, "s_00000", 0.1, 0.01)
    driver.grant("s_00000", 30.0, 1, None, "measure")
    page = page_of(sweep_folder, tmp_path)
    assert "No search has reported an epoch yet." in page
    assert "None of 1 searches was measured after 2 epochs or more yet." in page


def test_selected_network_is_optimistic_and_marked(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    driver = make_driver()
    begin_sweep(driver, allocator="async-halving")
    driver.write("plan", epoch_device_seconds=1.0, full_horizon=8)
    for number, (k, lambda_) in enumerate([(0.1, 0.01), (0.02, 0.02), (0.3, 0.05), (0.05, 0.004)]):
        add_search(driver, f"s_{number}", k, lambda_)
        driver.grant(f"s_{number}", 30.0, 2, 2)
        for value in (0.1, 0.2 + k):
            driver.charge(f"s_{number}", "train", 1.0)
            told = {
                "architecture": ARCHITECTURE,
                "val_accuracy": value,
                "val_accuracy_stderr": 0.01,
                "objective": -value,
            }
            driver.report(
                f"s_{number}", value, **told, effective_candidates=[9.0, 5.0, 2.0], effective_candidates_mean=5.3
            )
        driver.rest(f"s_{number}", "finished", "complete")
    save_maps(sweep_folder / "s_2" / "checkpoint", [*superkernel_names(7, 9), "identity"], 3, [1, 2])
    driver.write("search", trial="n_1", index=4, config={"name": "s_2"}, kind="select")
    driver.grant("n_1", 10.0, 1, 1, "select")
    driver.charge("n_1", "select", 3.0)
    driver.nasib_epochs("n_1", 0.93)
    driver.rest("n_1", "finished", "complete")
    page = page_of(sweep_folder, tmp_path)

    assert "selected, optimistic" in page
    assert "0.930 ± 0.013" in page
    assert "4 of 4 searches were measured after 2 epochs" in page
    data = json.loads(re.search(r'id="kernel-data">(.*?)</script>', page)[1])  # type: ignore[index]
    assert data["epochs"] == [1, 2]
    assert len(data["maps"]["alpha"]["2"]) == 3
    assert [len(row) for row in data["maps"]["alpha"]["2"][0]] == [7] * 7
    assert [row[:2] for row in data["sizeless"]["2"]] == [[1, "identity"], [2, "identity"], [3, "identity"]]
    for name in ("burn-down", "by-trial", "timeline", "curves", "contour", "importances", "map-alpha", "effective"):
        assert f'id="{name}"' in page


def test_only_one_setting_tuned_or_none(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    driver = make_driver()
    begin_sweep(driver, search={"lambda": 0.01})
    for number, k in enumerate([0.1, 0.02, 0.3, 0.05]):
        add_search(driver, f"s_{number}", k, 0.01)
        driver.grant(f"s_{number}", 30.0, 3, 3)
        driver.nasib_epochs(f"s_{number}", 0.1, k, *([0.9] if number else []))
        driver.rest(f"s_{number}", "finished", "complete")
    page = page_of(sweep_folder, tmp_path)

    assert 'id="slice"' in page
    assert "4 of 4 searches were measured after 2 epochs, more than after any others" in page
    assert 'id="contour"' not in page


def test_nothing_tuned(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    begin_sweep(make_driver(), search={"lambda": 0.01, "k": 0.1}, searches=1)

    assert "No setting of the searches was tuned" in page_of(sweep_folder, tmp_path)


def test_foreign_sweep(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    driver = make_driver()
    driver.begin(metric="loss", mode="min", trainable="Mine")
    driver.search("t_0", lr=0.1)
    driver.grant("t_0", 30.0, 2, None, "new")
    for value in (2.0, 1.0):
        driver.charge("t_0", "train", 1.0)
        driver.write(
            "report", trial="t_0", epochs=1 + int(value == 1.0), value=value, epoch_seconds=1.0, metrics={"loss": value}
        )
    page = page_of(sweep_folder, tmp_path)

    assert "settings of Mine, not by nasib-ray itself" in page
    for section in ("tuning", "network", "kernels", "trained", "checklist"):
        assert f'id="{section}"' not in page
    assert 'id="curves"' in page
    assert 'id="timeline"' in page


def test_text_of_a_sweep_is_no_html(make_driver: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    driver = Driver(folder)
    begin_sweep(driver, data=HOSTILE)
    add_search(driver, "s_0", 0.1, 0.01, note=HOSTILE)
    driver.grant("s_0", 30.0, 2, 2, HOSTILE)
    driver.charge("s_0", "train", 1.0)
    driver.report("s_0", 0.5, architecture=[HOSTILE, "conv3x3", "identity"], val_accuracy=0.5, device_name=HOSTILE)
    driver.rest("s_0", "finished", HOSTILE)
    save_maps(folder / "s_0" / "checkpoint", ["conv1x1", HOSTILE], 3, [1])
    driver.end("finished", HOSTILE)
    page = page_of(folder, tmp_path)

    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert" in page


def test_page_loads_nothing_from_elsewhere(driver: Driver, sweep_folder: Path, tmp_path: Path) -> None:
    page = page_of(sweep_folder, tmp_path)

    loaded = re.findall(r"""(?:\b(?:src|href)\s*=|@import|url\()\s*["']?([^"'\s>)]*)""", page)
    assert {target for target in loaded if not target.startswith("#")} == {"data:,"}


def test_making_it_starts_neither_ray_nor_torch(driver: Driver, sweep_folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from nasib_ray import write_report; write_report(*sys.argv[1:]);"
        "print([name for name in ('ray', 'torch') if name in sys.modules])"
    )
    arguments = [sys.executable, "-c", script, str(sweep_folder), str(tmp_path / "page.html")]
    run = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"


def test_file_is_whole_or_not_there(driver: Driver, sweep_folder: Path, tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "missing" / "page.html"):
        with pytest.raises(ValueError, match="cannot be written: give a file in a folder that is there"):
            write_report(sweep_folder, file)
    with pytest.raises(ValueError, match="There is no"):
        write_report(tmp_path / "missing", tmp_path / "page.html")
    assert [file.name for file in tmp_path.iterdir()] == [sweep_folder.name]


def _retrained(folder: Path, *test_accuracies: float, **of_controls: Sequence[float]) -> None:
    """Trainings to their end of the network that was found, one for each seed, and of those that controls found."""
    driver = Driver(folder / "retrain")
    driver.begin(metric="train_loss", mode="min", trainable="RetrainTrainable", retrain={"epochs": 2}, by_budget=False)
    macro = {"image_shape": [1, 8, 8], "classes": 10, "layers": 3, "reductions": [3], "channels": 8}
    names = ("batch_size", "learning_rate", "lr_min", "momentum", "weight_decay", "gradient_clip")
    search = SearchSettings().model_dump(mode="json")
    networks = {"s_00000": test_accuracies, **{f"control {name}": of for name, of in of_controls.items()}}
    told = [(name, seed, accuracy) for name, of in networks.items() for seed, accuracy in enumerate(of)]
    for number, (name, seed, accuracy) in enumerate(told):
        config = {
            "name": name,
            "architecture": {"operations": ARCHITECTURE, "macro": macro},
            "recipe": {key: search[key] for key in names},
            **{"data": {"name": "digits"}, "seed": seed, "split_seed": 0, "horizon": 1},
        }
        trial = f"r_{number}"
        driver.write("search", trial=trial, index=number, config=config)
        driver.grant(trial, 10.0, 1, 1)
        driver.report(trial, 0.1, test_accuracy=accuracy, parameters=1234, architecture=ARCHITECTURE)
        driver.rest(trial, "finished", "complete")
    driver.end()


def test_test_errors_of_a_retrained_sweep(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    begin_sweep(make_driver())
    _retrained(sweep_folder, 0.98, 0.96)
    page = page_of(sweep_folder, tmp_path)

    assert "3.00 ± 1.41 %" in page
    assert re.search(r"<td>s_00000</td><td class=\"number\">3\.00 ± 1\.41</td>", page)
    assert "1,234" in page
    assert "this sweep searched on digits: other data, sizes and training" in page
    assert "no controls were run" in page
    trainings = page_of(sweep_folder / "retrain", tmp_path)
    assert "networks that a sweep found, from scratch" in trainings
    assert "3.00 ± 1.41 %" in trainings
    assert "incumbent" not in trainings


@pytest.mark.parametrize(("subset", "same"), [(None, True), (1000, False)])
def test_a_part_of_the_papers_data_set_is_another_one(
    make_driver: Any, sweep_folder: Path, tmp_path: Path, subset: int | None, same: bool
) -> None:
    begin_sweep(make_driver(), data={"name": "cifar10", "subset": subset})
    _retrained(sweep_folder, 0.98, 0.96)
    page = page_of(sweep_folder, tmp_path)
    assert ("The data set is the paper&#39;s" in page or "The data set is the paper's" in page) == same
    assert ("this sweep searched on cifar10, smaller images or fewer of them" in page) != same


def test_controls_stand_beside_what_was_found(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    begin_sweep(make_driver())
    _retrained(sweep_folder, 0.98, 0.96, **{"random-search": (0.95, 0.93), "all conv3x3": (0.9, 0.9)})
    control = Driver(sweep_folder / "controls" / "random-search")
    begin_sweep(control)
    add_search(control, "c", 0.1, 0.02)
    control.grant("c", 100.0, 1, None)
    control.charge("c", "train", 86.4)
    control.end()
    page = page_of(sweep_folder, tmp_path)

    rows: dict[str, str] = {}
    for row in re.split(r"<tr[^>]*><td>", page):
        rows.setdefault(row.split("</td>")[0], row.strip())
    assert rows["control random-search"].endswith('<td class="number">0.001 CPU days</td></tr>')
    assert rows["control all conv3x3"].endswith('<td class="number"></td></tr>')
    # 100 (0.97 - 0.94) / 0.94
    assert re.search(r"<td>found</td><td class=\"number\">3\.00 \(.*\)</td><td class=\"number\">\+3\.19 \(-", page)
    assert "control networks: control random-search, control all conv3x3" in page


def test_command_writes_into_the_sweep_unless_told(driver: Driver, sweep_folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(sweep_folder)])
    assert done.exit_code == 0
    assert f"wrote {sweep_folder / 'report.html'} (4" in done.stdout
    assert "learning curves" in done.stderr
    CliRunner().invoke(app, ["report", str(sweep_folder), "-o", str(tmp_path / "other.html")])
    assert (tmp_path / "other.html").is_file()
    refused = CliRunner().invoke(app, ["report", "s3://bucket/sweep"]).exception
    assert isinstance(refused, ValueError)
    assert "-o report.html" in str(refused)
