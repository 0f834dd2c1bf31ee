from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nasib_ray.progress import LINE_SECONDS, Progress, final_report, status_report
from nasib_ray.results import load_sweep
from schedulers.clock import SimulatedClock


class Screen:
    """A console that writes to memory, as a pipe or a terminal of this encoding and size would show it."""

    def __init__(self, width: int = 80, terminal: bool = False, encoding: str = "utf-8", height: int = 24) -> None:
        self._bytes = io.BytesIO()
        file = io.TextIOWrapper(self._bytes, encoding=encoding, newline="\n")
        # Not "dumb", as which terminals are redrawn nowhere.
        environment = {"TERM": "xterm"}
        self.console = Console(
            file=file, width=width, height=height, force_terminal=terminal, color_system=None, _environ=environment
        )

    def text(self) -> str:
        self.console.file.flush()
        return self._bytes.getvalue().decode()

    def lines(self) -> list[str]:
        return self.text().splitlines()


def facts(text: str) -> dict[str, str]:
    """What stands behind the labels at the beginning of lines."""
    return {match[1]: match[2].strip() for match in re.finditer(r"^([a-z]+) +(.*)$", text, re.MULTILINE)}


def test_lines_tell_events_at_once_and_the_rest_at_a_rhythm(make_driver: Callable[[], Any]) -> None:
    driver, screen = make_driver(), Screen()
    progress = Progress(screen.console, "digits", driver.clock)
    progress.start()
    driver.begin()
    progress.update(driver.state, 2)
    driver.search("s_0", k=0.1, **{"lambda": 0.01})
    driver.grant("s_0", 60.0, 4, 8)
    progress.update(driver.state, 2)
    driver.nasib_epochs("s_0", 0.5)
    progress.update(driver.state, 2)
    driver.nasib_epochs("s_0", 0.6)
    progress.update(driver.state, 2)
    driver.clock.advance(LINE_SECONDS)
    progress.update(driver.state, 2)
    driver.rest("s_0", "finished", "complete")
    progress.update(driver.state, 2)
    progress.stop()

    assert screen.lines() == [
        "[0:00:00] 0.00 of 3.00 cpu-minutes spent, 0.00 granted, 3.00 left; 0/2 running; about 0:01:30 to go",
        "[0:00:00] trial s_0 begins: k 0.1, λ 0.01",
        "[0:00:01] new incumbent: trial s_0, val_accuracy 0.500 ± 0.013",
        "[0:00:12] 0.03 of 3.00 cpu-minutes spent, 0.97 granted, 2.00 left; 1/2 running; "
        "best val_accuracy 0.600 ± 0.013; about 0:17:48 to go",
        "[0:00:12] trial s_0 finished after 2 epochs: best val_accuracy 0.600",
    ]


def test_time_to_go_follows_the_rate_of_spending(make_driver: Callable[[], Any]) -> None:
    driver, screen = make_driver(), Screen()
    driver.begin(devices_per_trial=0.5)
    progress = Progress(screen.console, "digits", driver.clock)
    progress.start()
    driver.search("s_0", k=0.1)
    driver.grant("s_0", 100.0, 4, 8)
    progress.update(driver.state, 4)
    driver.charge("s_0", "train", 20.0)
    progress.update(driver.state, 4)

    first, second = [line for line in screen.lines() if "to go" in line]
    assert first.endswith("about 0:01:30 to go")  # Four slots of half a device would spend two a second.
    assert second.endswith("about 0:02:40 to go")  # One a second is what was spent.


def test_crashes_are_told_and_those_before_a_resume_are_not(driver: Any) -> None:
    screen = Screen()
    driver.write("run", slots=2)
    progress = Progress(screen.console, "digits", driver.clock)
    progress.start()
    progress.update(driver.state, 2)
    driver.crash("s_00001", "paused", "its process died")
    progress.update(driver.state, 2)
    driver.grant("s_00001", 5.0, 1, 3)
    driver.crash("s_00001", "failed", "its process died again")
    progress.update(driver.state, 2)

    _, crashed, failed = screen.lines()
    assert crashed.endswith("trial s_00001 crashed and goes on from 0 epochs: its process died")
    assert failed.endswith("trial s_00001 failed after 0 epochs: its process died again")


def test_weights_that_made_room_are_told(driver: Any, sweep_folder: Path) -> None:
    screen = Screen()
    progress = Progress(screen.console, "digits", driver.clock)
    progress.start()
    progress.update(driver.state, 2)
    driver.write("limits", max_storage_bytes=2_000_000, deadline=1_800_003_600.0)
    driver.write("checkpoint", trial="s_00001", path="s_00001/checkpoint_000001", epochs=1, iteration=1, bytes=900_000)
    driver.leave("s_00001", "paused", "slice ended")
    status_report(screen.console, load_sweep(sweep_folder))
    driver.write("weights-dropped", trial="s_00001", path="s_00001/checkpoint_000001", why="its weights made room")
    driver.write("weights-deleted", trial="s_00001", path="s_00001/checkpoint_000001", bytes=10_000)
    progress.update(driver.state, 2)
    told = "trial s_00001 cannot be resumed any more after 1 epoch: its weights made room"
    assert screen.lines()[-1].endswith(told)

    assert "900 kB of checkpoints of the 2 MB that they may take" in screen.text()
    assert "800 MB a trial at most, 50 MB of it for a batch" in screen.text()
    assert "2027-01-15T09:00:00+00:00" in screen.text(), "its deadline"
    driver.end()
    status = load_sweep(sweep_folder).status()
    assert (status["stored_bytes"], status["max_storage_bytes"]) == (10_000, 2_000_000)
    assert status["trials"][1]["state"] == "not resumable"
    assert status["trials"][1]["value"] == 0.6
    final_report(screen.console, driver.state, str(sweep_folder))
    assert re.search(r"s_00001 +not resumable", screen.text())


def test_preparation_of_data_is_told_at_its_ends_and_at_a_rhythm(make_driver: Callable[[], Any]) -> None:
    driver, screen = make_driver(), Screen()
    progress = Progress(screen.console, "digits", driver.clock)
    progress.start()
    for done in range(0, 1201):
        progress.preparing("decoding", done, 1200)
        driver.clock.advance(LINE_SECONDS / 1000)
    progress.preparing("downloading", 0, 1)
    progress.preparing("downloading", 1, 1)

    assert [line.partition("] ")[2] for line in screen.lines()] == [
        "decoding: 0 of 1,200",
        "decoding: 1,001 of 1,200",
        "decoding: 1,200 of 1,200",
        "downloading",
        "downloading: done",
    ]


def test_terminal_shows_a_table_that_is_taken_down(driver: Any) -> None:
    screen, clock = Screen(terminal=True), SimulatedClock()
    progress = Progress(screen.console, "digits", clock)
    progress.start()
    assert "digits: starting Ray and the first trials" in screen.text()
    progress.preparing("decoding", 5, 10)
    assert "digits: decoding: 5 of 10" in screen.text()
    clock.advance(1.0)
    progress.update(driver.state, 2)
    drawn = screen.text()
    driver.nasib_epochs("s_00001", 0.7)
    progress.update(driver.state, 2)
    assert "best of 5 looks" not in screen.text()  # It came too early.
    clock.advance(1.0)
    progress.update(driver.state, 2)
    progress.stop()
    progress.stop()

    assert "digits: 1/2 running, 1 finished, 1 failed" in drawn
    assert "0.27 of 3.00 cpu-minutes spent, 0.40 granted, 2.33 left" in drawn
    assert "accuracy     0.900 ± 0.013 (selected, optimistic: the best of 4 looks)" in drawn
    assert "best of 5 looks" in screen.text()
    assert "\x1b[2K" in screen.text().rpartition("best of 5 looks")[2]


def test_terminal_leaves_failures_above_the_table(driver: Any) -> None:
    screen = Screen(terminal=True)
    progress = Progress(screen.console, "digits", driver.clock)
    progress.start()
    progress.update(driver.state, 2)
    progress.stop()

    assert "trial s_00002 failed after 0 epochs: ValueError: k is 0.5" in screen.text()
    assert "begins" not in screen.text()


@pytest.mark.parametrize("width", [80, 120])
def test_final_report_has_all_that_matters(driver: Any, sweep_folder: Path, width: int) -> None:
    driver.end()
    screen = Screen(width)

    final_report(screen.console, driver.state, str(sweep_folder))

    text = screen.text()
    assert max(map(len, text.splitlines()[:-5])) <= width
    first, second, third = (re.split(r"  +", line) for line in text.splitlines()[2:5])
    assert [first[0], *first[1:4], *first[-3:]] == ["s_00000", "finished", "0.1", "0.01", "0.800", "0.900", "7.5 s"]
    assert second[:2] == ["s_00001", "running"]
    assert third[:2] == ["s_00002", "failed"]
    assert "trial s_00002 failed: ValueError: k is 0.5" in text
    told = facts(text)
    assert told["incumbent"] == "trial s_00000 after 2 epochs"
    assert told["accuracy"] == "0.900 ± 0.013 (selected, optimistic: the best of 4 looks)"
    assert told["settings"].startswith("k 0.1, λ 0.01")
    assert told["architecture"] == "conv3x5, sepconv7x2, identity"
    assert re.fullmatch(r"8\.0 +4\.4 % .*", told["setup"])
    assert re.fullmatch(r"5\.0 +2\.8 % .*", told["train"])
    assert re.fullmatch(r"16\.0 +8\.9 %", told["spent"])
    assert re.fullmatch(r"180\.0 +100\.0 %", told["budget"])
    assert "idle" not in told
    assert told["results"] == str(sweep_folder)
    assert told["state"] == "finished: 2.0 cpu-seconds remain, too little for another slice"
    assert told["next"] == f"nasib-ray results {sweep_folder} --csv reports.csv"


@pytest.mark.parametrize(
    ("settings", "again"),
    [
        ({"config": {}}, f"nasib-ray resume '/folder with spaces/{'digits' * 20}'"),
        ({"retrain": {}}, "the same nasib-ray retrain again"),
        ({}, "its own script again, which goes on with it"),
    ],
)
def test_interrupted_sweep_is_told_how_to_go_on(
    make_driver: Callable[[], Any], settings: dict[str, Any], again: str
) -> None:
    driver, screen = make_driver(), Screen()
    driver.begin(**settings)
    driver.end("interrupted", "it was told to stop")

    final_report(screen.console, driver.state, "/folder with spaces/" + "digits" * 20)

    assert facts(screen.text())["next"] == again


def test_long_architecture_is_whole_in_the_final_report(make_driver: Callable[[], Any]) -> None:
    driver, screen = make_driver(), Screen()
    driver.begin()
    driver.search("s_0", k=0.1)
    driver.grant("s_0", 20.0, 1, 1)
    operations = [f"sepconv9x{layer}" for layer in range(12)]
    driver.report("s_0", 0.5, architecture=operations)

    final_report(screen.console, driver.state, "digits")

    assert re.findall(r"sepconv9x\d+", screen.text()) == operations


def test_status_of_a_running_sweep_of_somebody_elses(make_driver: Callable[[], Any], sweep_folder: Path) -> None:
    driver, screen = make_driver(), Screen()
    driver.begin(metric="mean_validation_loss", mode="min", device="gpu")
    for index, (lr, losses) in enumerate({0.1: (0.5, 0.25), 0.02: (0.125, 0.75)}.items()):
        driver.search(f"m_{index}", lr=lr, layers=3)
        driver.grant(f"m_{index}", 20.0, 2, None)
        for loss in losses:
            driver.report(f"m_{index}", loss)

    status_report(screen.console, load_sweep(sweep_folder))

    text = screen.text()
    assert "0.00 of 3.00 gpu-minutes spent, 0.67 granted, 2.33 left; 2 running" in text
    assert re.search(r"trial +state +lr +epochs +value +best +spent", text)
    # The lowest loss is the best one.
    assert text.index("m_1") < text.index("m_0")
    assert re.search(r"m_1 +running +0\.02 +2 +0\.75 +0\.125 +0\.0 s", text)
    told = facts(text)
    assert told["value"].startswith("mean_validation_loss 0.125 (selected, optimistic")
    assert told["settings"] == "lr 0.02"
    assert told["state"] == "running"


def test_status_before_anything_is_known(make_driver: Callable[[], Any], sweep_folder: Path) -> None:
    make_driver()
    screen = Screen()

    status_report(screen.console, load_sweep(sweep_folder))

    assert facts(screen.text())["state"] == "running"


@pytest.mark.parametrize("terminal", [False, True])
def test_console_without_unicode_gets_ascii(driver: Any, terminal: bool) -> None:
    screen = Screen(40, terminal, encoding="ascii")
    progress = Progress(screen.console, "digits", driver.clock)
    progress.start()
    progress.update(driver.state, 2)
    progress.stop()
    final_report(screen.console, driver.state, "digits")

    assert "+/- 0.013" in screen.text()
    assert "lambda" in screen.text()


def test_only_the_best_trials_and_the_running_ones_are_shown(make_driver: Callable[[], Any]) -> None:
    driver, screen = make_driver(), Screen(terminal=True, height=60)
    driver.begin()
    for index in range(12):
        driver.search(f"s_{index:02}", k=0.1)
        driver.grant(f"s_{index:02}", 2.0, 1, 1)
        driver.nasib_epochs(f"s_{index:02}", 0.9 - index / 100)
        if index != 11:
            driver.rest(f"s_{index:02}")
    progress = Progress(screen.console, "digits", driver.clock)
    progress.start()
    progress.update(driver.state, 1)
    progress.stop()

    table = screen.text().rpartition("trial")[2]
    assert re.findall(r"^s_\d\d", table, re.MULTILINE) == [*(f"s_{index:02}" for index in range(8)), "s_11"]
    assert "and 3 more" in table


def test_what_a_damaged_checkpoint_cost_is_told_once_while_it_runs_and_always_at_the_end(
    make_driver: Callable[[], Any],
) -> None:
    driver, screen, end = make_driver(), Screen(200), Screen(200)
    driver.begin()
    driver.search("s_0", k=0.1, **{"lambda": 0.01})
    driver.grant("s_0", 60.0, 4, 8)
    driver.nasib_epochs("s_0", 0.5, 0.6, 0.7)
    driver.rest("s_0")
    gone = {"trial": "s_0", "path": "s_0/checkpoint", "epochs": 1, "device_seconds": 2.25, "why": "it is empty"}
    told = "its newest checkpoint was damaged, 2 epochs and 2.2 cpu-seconds are lost (it is empty)"
    driver.write("run", slots=2)
    # A run that goes on with a sweep finds it before it has shown anything.
    driver.write("checkpoint-lost", **gone)
    progress = Progress(screen.console, "digits", driver.clock)
    progress.update(driver.state, 2)
    progress.update(driver.state, 2)
    assert screen.text().count("damaged") == 1
    assert f"trial s_0 goes back to 1 epoch: {told}" in screen.text()
    final_report(end.console, driver.state, "here")
    assert f"trial s_0: {told}" in end.text()
