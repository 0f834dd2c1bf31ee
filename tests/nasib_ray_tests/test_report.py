from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from plotly.offline import get_plotlyjs
from typer.testing import CliRunner

from nasib_ray import write_report
from nasib_ray.cli import app
from nasib_ray.config import SweepConfig
from nasib_ray.report.diagram import Skeleton, architecture_svg
from nasib_ray.report.figures import thinned
from nasib_ray.report.history import sweep_history
from nasib_ray.report.spending import held_by_kind
from nasib_ray.results import load_sweep
from tests.nasib_ray_tests.conftest import ARCHITECTURE, Driver
from trainables.candidates import superkernel_names
from trainables.settings import SearchSettings

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</script><script>alert('sweep')</script><img src=x onerror=alert(1)>&amp;"


def _config(**values: Any) -> dict[str, Any]:
    return SweepConfig(**{"budget": "180 cpu-seconds", "data": "digits", **values}).to_plain()


def _begin(driver: Driver, budget: float = 180.0, **values: Any) -> None:
    driver.begin(budget, config=_config(**values), metric="objective")


def _search(driver: Driver, name: str, k: float, lambda_: float, **settings: Any) -> None:
    fixed = {"layers": 3, "reductions": [3], "channels": 8, "m": 7, "objective": "fine-tuned-likelihood"}
    driver.search(name, k=k, **{"lambda": lambda_}, seed=1, **{**fixed, **settings})


def _written(folder: Path, tmp_path: Path) -> str:
    """The page of a sweep, without plotly.js."""
    file = tmp_path / "page.html"
    write_report(folder, file)
    page = file.read_text(encoding="utf-8")
    library = get_plotlyjs()
    assert page.count(library) == 1
    return page.replace(library, "")


def _save_maps(folder: Path, names: Sequence[str], layers: int, epochs: Sequence[int]) -> None:
    """The part of a checkpoint of a search that says what it thought of its candidates."""
    folder.mkdir(parents=True, exist_ok=True)

    def table(at: Sequence[int]) -> pa.Table:
        rows = [
            {"epoch": epoch, "layer": layer, "i": size[0], "j": size[1], "operation": name}
            | {"alpha": math.sin(number * layer) * epoch / 50, "frequency": number * epoch}
            | {"sampling_probability": 1 / (1 + number)}
            for epoch in at
            for layer in range(1, layers + 1)
            for number, name in enumerate(names)
            for size in [_size(name)]
        ]
        return pa.Table.from_pylist(rows)

    for name, at in (("history", epochs), ("architecture", epochs[-1:])):
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink:
            written = table(at)
            with pa.ipc.new_file(sink, written.schema) as writer:
                writer.write_table(written)


def _size(name: str) -> tuple[int | None, int | None]:
    found = re.search(r"(\d+)x(\d+)", name)
    return (int(found[1]), int(found[2])) if found else (None, None)


def test_history_tells_what_befell_a_trial(driver: Driver, sweep_folder: Path) -> None:
    driver.search("s_00003", k=0.2, **{"lambda": 0.01}, seed=10)
    driver.grant("s_00003", 20.0, 1, 6)
    driver.nasib_epochs("s_00003", 0.5)
    driver.write("state", trial="s_00003", state="paused", why="slice ended")
    driver.write("release", grant=driver.state.searches["s_00003"].grant, trial="s_00003", amount=0.0)
    driver.grant("s_00003", 20.0, 1, 6, "continue")
    driver.nasib_epochs("s_00003", 0.6)
    driver.rest("s_00003")
    driver.clock.advance(30.0)
    driver.grant("s_00003", 20.0, 2, 9, "endgame")
    driver.nasib_epochs("s_00003", 0.7, None)
    driver.crash("s_00003", "paused", "its process died")
    driver.write("checkpoint-lost", trial="s_00003", path="s_00003/checkpoint", epochs=0, why="not what it was")

    history = sweep_history(load_sweep(sweep_folder).records())

    told = [
        (happening.kind, happening.epoch, happening.text)
        for happening in history.happenings
        if happening.trial == "s_00003"
    ]
    assert told == [
        ("paused", 2, "paused after 2 epochs: slice ended"),
        ("horizon changed", 2, "horizon 6 -> 9 (endgame)"),
        ("promoted", 2, "goes on after 30 s (endgame)"),
        ("cut", 3, "cut within epoch 4, as its slice had no time left"),
        ("failed", 0, "failed, back to 0 epochs: its process died"),
        ("checkpoint lost", 0, "a checkpoint was damaged, 0 epochs lost: not what it was"),
    ]
    assert history.curves["s_00003"].points("val_accuracy") == [(1, 0.5), (2, 0.6), (3, 0.7)]
    assert [holding.open for holding in history.holdings if holding.trial == "s_00001"] == [True]


def test_history_of_a_later_run(make_driver: Any, sweep_folder: Path) -> None:
    first = make_driver()
    first.begin()
    first.search("s_00000", k=0.1, **{"lambda": 0.01}, seed=7)
    first.grant("s_00000", 30.0, 4, 4)
    first.nasib_epochs("s_00000", 0.4)
    first.charge("s_00000", "train", 0.5)
    first.report("s_00000", None, interrupted=True, epoch_fraction=0.25)
    first.rest("s_00000")
    first.end("interrupted", "it was told to stop")
    second = make_driver()
    second.clock.advance(5000.0)
    second.write("run", slots=2)
    second.grant("s_00000", 30.0, 3, 4, "continue")
    second.nasib_epochs("s_00000", 0.5)

    history = sweep_history(load_sweep(sweep_folder).records())

    assert [(happening.kind, happening.epoch) for happening in history.happenings] == [
        ("cut", 1.25),
        ("paused", 1),
        ("resumed", 1),
    ]
    assert [run.how for run in history.runs] == ["interrupted: it was told to stop", ""]
    assert history.runs[1].start - history.runs[0].end > 4000


def test_an_epoch_that_was_done_again_counts_once(driver: Driver, sweep_folder: Path) -> None:
    driver.nasib_epochs("s_00001", 0.7)
    driver.write("failure", trial="s_00001", epochs=1, why="gone")
    driver.nasib_epochs("s_00001", 0.65)

    curve = sweep_history(load_sweep(sweep_folder).records()).curves["s_00001"]

    assert curve.points("val_accuracy") == [(1, 0.6), (2, 0.65)]


def test_what_was_held_by_kind_is_what_the_ledger_says(driver: Driver, sweep_folder: Path) -> None:
    driver.write("relabel", trial="s_00001", **{"from": "train", "to": "lost"}, amount=1.5)
    sweep = load_sweep(sweep_folder)

    held = held_by_kind(sweep.accounts()).iloc[-1].to_dict()

    assert held == pytest.approx(sweep.state.ledger.spent_by_kind)
    assert held["lost"] == 4.0


def test_thinned_keeps_both_ends() -> None:
    assert thinned(range(5), 10) == [0, 1, 2, 3, 4]
    few = thinned(range(1001), 11)
    assert few == [*range(0, 1001, 100)]


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
    _begin(driver)
    _search(driver, "s_00000", 0.1, 0.01)
    driver.grant("s_00000", 30.0, 2, 4)
    driver.nasib_epochs("s_00000", 0.5, 0.6)
    driver.rest("s_00000")
    page = _written(sweep_folder, tmp_path)

    assert "<dt>state</dt><dd>running</dd>" in page
    assert all(f"<title>layer {number}: {name}</title>" in page for number, name in enumerate(ARCHITECTURE, 1))
    assert "There is no checkpoint to read them from" in page


def test_sweep_before_its_first_report(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    driver = make_driver()
    _begin(driver)
    page = _written(sweep_folder, tmp_path)
    assert "There is none yet: no trial has reported a value that is ranked." in page
    assert "No trial was begun yet." in page
    _search(driver, "s_00000", 0.1, 0.01)
    driver.grant("s_00000", 30.0, 1, None, "measure")
    page = _written(sweep_folder, tmp_path)
    assert "No search has reported an epoch yet." in page
    assert "None of 1 searches was measured after 2 epochs or more yet." in page


def test_selected_network_is_optimistic_and_marked(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    driver = make_driver()
    _begin(driver, allocator="async-halving")
    driver.write("plan", epoch_device_seconds=1.0, full_horizon=8)
    for number, (k, lambda_) in enumerate([(0.1, 0.01), (0.02, 0.02), (0.3, 0.05), (0.05, 0.004)]):
        _search(driver, f"s_{number}", k, lambda_)
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
    _save_maps(sweep_folder / "s_2" / "checkpoint", [*superkernel_names(7, 9), "identity"], 3, [1, 2])
    driver.write("search", trial="n_1", index=4, config={"name": "s_2"}, kind="select")
    driver.grant("n_1", 10.0, 1, 1, "select")
    driver.charge("n_1", "select", 3.0)
    driver.nasib_epochs("n_1", 0.93)
    driver.rest("n_1", "finished", "complete")
    page = _written(sweep_folder, tmp_path)

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
    _begin(driver, search={"lambda": 0.01})
    for number, k in enumerate([0.1, 0.02, 0.3, 0.05]):
        _search(driver, f"s_{number}", k, 0.01)
        driver.grant(f"s_{number}", 30.0, 3, 3)
        driver.nasib_epochs(f"s_{number}", 0.1, k, *([0.9] if number else []))
        driver.rest(f"s_{number}", "finished", "complete")
    page = _written(sweep_folder, tmp_path)

    assert 'id="slice"' in page
    assert "4 of 4 searches were measured after 2 epochs, more than after any others" in page
    assert 'id="contour"' not in page


def test_nothing_tuned(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    _begin(make_driver(), search={"lambda": 0.01, "k": 0.1}, searches=1)

    assert "No setting of the searches was tuned" in _written(sweep_folder, tmp_path)


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
    page = _written(sweep_folder, tmp_path)

    assert "settings of Mine, not by nasib-ray itself" in page
    for section in ("tuning", "network", "kernels", "trained", "checklist"):
        assert f'id="{section}"' not in page
    assert 'id="curves"' in page
    assert 'id="timeline"' in page


def test_text_of_a_sweep_is_no_html(make_driver: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    driver = Driver(folder)
    _begin(driver, data=HOSTILE)
    _search(driver, "s_0", 0.1, 0.01, note=HOSTILE)
    driver.grant("s_0", 30.0, 2, 2, HOSTILE)
    driver.charge("s_0", "train", 1.0)
    driver.report("s_0", 0.5, architecture=[HOSTILE, "conv3x3", "identity"], val_accuracy=0.5, device_name=HOSTILE)
    driver.rest("s_0", "finished", HOSTILE)
    _save_maps(folder / "s_0" / "checkpoint", ["conv1x1", HOSTILE], 3, [1])
    driver.end("finished", HOSTILE)
    page = _written(folder, tmp_path)

    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert" in page


def test_page_loads_nothing_from_elsewhere(driver: Driver, sweep_folder: Path, tmp_path: Path) -> None:
    page = _written(sweep_folder, tmp_path)

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
    _begin(make_driver())
    _retrained(sweep_folder, 0.98, 0.96)
    page = _written(sweep_folder, tmp_path)

    assert "3.00 ± 1.41 %" in page
    assert re.search(r"<td>s_00000</td><td class=\"number\">3\.00 ± 1\.41</td>", page)
    assert "1,234" in page
    assert "this sweep searched on digits: other data, sizes and training" in page
    assert "no controls were run" in page
    trainings = _written(sweep_folder / "retrain", tmp_path)
    assert "networks that a sweep found, from scratch" in trainings
    assert "3.00 ± 1.41 %" in trainings
    assert "incumbent" not in trainings


def test_controls_stand_beside_what_was_found(make_driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    _begin(make_driver())
    _retrained(sweep_folder, 0.98, 0.96, **{"random-search": (0.95, 0.93), "all conv3x3": (0.9, 0.9)})
    control = Driver(sweep_folder / "controls" / "random-search")
    _begin(control)
    _search(control, "c", 0.1, 0.02)
    control.grant("c", 100.0, 1, None)
    control.charge("c", "train", 86.4)
    control.end()
    page = _written(sweep_folder, tmp_path)

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


def _big_sweep(folder: Path, trials: int = 100, layers: int = 12, m: int = 9, epochs: int = 50) -> None:
    """A finished sweep with as many charges and reports as a real one, and the maps of its incumbent."""
    driver = Driver(folder)
    _begin(driver, budget=trials * epochs * 2.0, search={"layers": layers, "m": m, "reductions": [4, 7, 10]})
    driver.write("plan", epoch_device_seconds=1.0, full_horizon=epochs)
    names = superkernel_names(m, 9)

    def note(event: str, **fields: Any) -> None:
        driver.state.apply(driver.journal.append({"event": event, **fields}))

    rungs = [epochs // 4, epochs // 2, epochs]
    for number in range(trials):
        name = f"s_{number:05}"
        k, lambda_ = 0.01 * 50 ** ((number * 37 % trials) / trials), 0.002 * 50 ** ((number * 61 % trials) / trials)
        note(
            "search",
            trial=name,
            index=number,
            config={
                "k": k,
                "lambda": lambda_,
                "layers": layers,
                "m": m,
                "channels": 16,
                "reductions": [4, 7, 10],
                "seed": number,
                "objective": "fine-tuned-likelihood",
            },
        )
        done = 0
        for slice_number, rung in enumerate(rungs[: 1 + (number % 2) + (number % 4 == 3)]):
            driver.clock.advance(2.0)
            grant = f"{name}-{slice_number}"
            note(
                "grant",
                grant=grant,
                trial=name,
                amount=(rung - done) * 1.2 + 1,
                epochs=rung - done,
                horizon=epochs,
                why="continue" if done else "new",
            )
            for epoch in range(done + 1, rung + 1):
                driver.clock.advance(0.9)
                note("charge", grant=grant, trial=name, kind="train", amount=0.9)
                quality = (1 - math.exp(-epoch / 9)) * (0.95 - abs(math.log10(k / 0.06)) / 9)
                value = -1 + quality if epoch == rung else None
                metrics = {
                    "val_accuracy": quality,
                    "val_accuracy_stderr": 0.01,
                    "objective": value,
                    "epochs": epoch,
                    "architecture": [names[(layer * 7 + number) % len(names)] for layer in range(layers)],
                    "effective_candidates": [81 ** (1 - epoch / (epochs + layer)) for layer in range(layers)],
                    "effective_candidates_mean": 81 ** (1 - epoch / (epochs + 5)),
                    "device_name": "CPU",
                }
                note("report", trial=name, epochs=epoch, value=value, epoch_seconds=0.9, metrics=metrics)
            note("checkpoint", trial=name, path=f"{name}/checkpoint", epochs=rung, iteration=rung)
            note("release", grant=grant, trial=name, amount=0.0)
            note("state", trial=name, state="finished" if rung == epochs else "paused", why="slice ended")
            done = rung
    incumbent = driver.state.incumbent
    assert incumbent is not None
    _save_maps(folder / incumbent.id / "checkpoint", names, layers, [1, 2, 4, 8, 16, 32, 50])
    driver.end()


def test_hundred_trials_of_twelve_layers(tmp_path: Path) -> None:
    folder, file = tmp_path / "sweep", tmp_path / "page.html"
    _big_sweep(folder)
    started = time.monotonic()
    write_report(folder, file)

    assert time.monotonic() - started < 20
    assert file.stat().st_size < 8_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_draws_every_figure(tmp_path: Path) -> None:
    folder, file = tmp_path / "sweep", tmp_path / "page.html"
    _big_sweep(folder, trials=20, epochs=8)
    write_report(folder, file)
    # As a reader would move the slider to the first epoch.
    moved = (
        "<script>setTimeout(() => { const epoch = document.getElementById('epoch'); epoch.value = 0;"
        "epoch.dispatchEvent(new Event('input')); setTimeout(() => { document.title = 'alpha '"
        " + document.getElementById('map-alpha').data[0].z[0][1]; }, 1000); }, 1000);</script></body>"
    )
    file.write_text(file.read_text(encoding="utf-8").replace("</body>", moved), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options = [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
    run = subprocess.run([*command, *options, file.as_uri()], capture_output=True, text=True, check=True, timeout=120)

    drawn = run.stdout.count('class="plotly-graph-div js-plotly-plot"')
    assert drawn == run.stdout.count("Plotly.newPlot(") == 10
    # The first of several svg elements of a figure.
    assert run.stdout.count('class="main-svg"') >= drawn
    assert f"<title>alpha {float(f'{math.sin(1) / 50:.4g}')}</title>" in run.stdout
    assert '<output id="epoch-told">epoch 1</output>' in run.stdout
    assert [line for line in run.stderr.splitlines() if "CONSOLE" in line] == []
