"""A report of a sweep as large as real ones."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from nasib_ray import write_report
from tests.nasib_ray_tests.conftest import Driver
from tests.nasib_ray_tests.reported import begin_sweep, save_maps
from trainables.candidates import superkernel_names

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _big_sweep(folder: Path, trials: int = 100, layers: int = 12, m: int = 9, epochs: int = 50) -> None:
    """A finished sweep with as many charges and reports as a real one, and the maps of its incumbent."""
    driver = Driver(folder)
    begin_sweep(driver, budget=trials * epochs * 2.0, search={"layers": layers, "m": m, "reductions": [4, 7, 10]})
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
    save_maps(folder / incumbent.id / "checkpoint", names, layers, [1, 2, 4, 8, 16, 32, 50])
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
