"""The searches and trainings of the study of objectives: one record for each search, appended to a file."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from json_lines import append_line, read_lines

from trainables.architecture import Architecture, MacroShape
from trainables.augmentation import BatchTransform
from trainables.data import load_dataset, make_splits
from trainables.device import device_name, settle_process
from trainables.objective import RECALIBRATION_IMAGES
from trainables.sampling import random_stream, seeded_torch
from trainables.search import Search
from trainables.settings import TrialSettings
from trainables.stock import count_multiply_adds
from trainables.supernet import build_network, count_parameters, network_with_shared_weights
from trainables.training import LabelledImages, Training, finish, judge, recalibrating
from trainables.training_settings import Recipe

SPLIT_SEED = 0


@dataclass(frozen=True)
class Setup:
    """What is studied on.

    Attributes:
        data: Section ``data`` of a configuration.
        search: Section ``search``, but for what a study varies.
        horizon: Epochs of a search.
        truth_epochs: Epochs of a training from scratch.
        truth_seeds: How many trainings of each network.
        short_epochs: Epochs of the trainings that are candidates for the objective.
        ks: Of the main study.
        lambdas: Of the main study.
        seeds: Searches at each k and lambda.
        random_networks: Networks drawn at random, beside.
        settings_seeds: Searches for each of the second study's settings.
    """

    data: dict[str, Any]
    search: dict[str, Any]
    horizon: int
    truth_epochs: int
    truth_seeds: int
    short_epochs: tuple[int, ...] = (1, 2, 4)
    ks: tuple[float, ...] = (0.01, 0.05, 0.2, 0.5)
    lambdas: tuple[float, ...] = (0.003, 0.014, 0.07)
    seeds: int = 4
    random_networks: int = 16
    settings_seeds: int = 6


SETUPS: dict[str, Setup] = {
    # With all 1,797 images and more channels every network is as good as any other.
    "digits": Setup(
        data={"name": "digits", "subset": 500, "alpha_images": 100, "selection_images": 100},
        search={
            "layers": 4,
            "reductions": [3],
            "m": 5,
            "channels": 4,
            "batch_size": 32,
            "learning_rate": 0.05,
            "pair_scale": "mean",
        },
        horizon=40,
        truth_epochs=60,
        truth_seeds=5,
        short_epochs=(3, 6, 12),
        seeds=6,
        random_networks=24,
    ),
    # As CIFAR-10 at 16 x 16 pixels, 10,000 of its training images.
    "cifar10": Setup(
        data={"name": "cifar10", "image_size": 16, "subset": 10_000},
        search={
            "layers": 6,
            "reductions": [3, 5],
            "m": 5,
            "channels": 16,
            "batch_size": 64,
            "learning_rate": 0.05,
            "pair_scale": "mean",
        },
        horizon=20,
        truth_epochs=20,
        truth_seeds=3,
        settings_seeds=3,
    ),
}

ALPHA_SETTINGS: tuple[dict[str, Any], ...] = (
    # lambda follows alpha's learning rate: what matters is how far alpha moves, over lambda.
    {"alpha_optimizer": "adam", "alpha_learning_rate": 0.003, "lambda": 0.0042},
    {"alpha_optimizer": "adam", "alpha_learning_rate": 0.03, "lambda": 0.042},
    {"alpha_optimizer": "sgd", "alpha_learning_rate": 0.01, "lambda": 0.002},
    {"alpha_optimizer": "sgd", "alpha_learning_rate": 0.1, "lambda": 0.014},
    {"alpha_optimizer": "sgd", "alpha_learning_rate": 1.0, "lambda": 0.1},
)


@dataclass(frozen=True)
class Cell:
    """One search, or one random network, of a study.

    Attributes:
        study: "objective" (k x lambda x seeds), "settings" (the second study) or "random".
        seed: Of the search, or of the draw of the network.
        settings: What differs from the setup's search settings.
    """

    study: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)


def cells(setup: Setup, study: str) -> Iterator[Cell]:
    """All cells of a study, those of one seed together, so that a study that is cut short is balanced."""
    if study == "objective":
        for seed in range(setup.seeds):
            for k, lambda_ in product(setup.ks, setup.lambdas):
                yield Cell("objective", seed, {"k": k, "lambda": lambda_})
            for number in range(seed, setup.random_networks, setup.seeds):
                yield Cell("random", number)
        return
    base = {"k": 0.1, "lambda": 0.014}
    places = product(("sum", "mean"), ("candidate", "layer"))
    variants = [{"pair_scale": scale, "batch_norm": norm} for scale, norm in places]
    variants += [{"pair_scale": "mean", **alpha} for alpha in ALPHA_SETTINGS]
    for seed in range(setup.settings_seeds):
        for variant in variants:
            yield Cell("settings", seed, {**base, **variant})


class Study:
    """Runs cells of one setup in one process."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        config = {**setup.search, "data": setup.data, "split_seed": SPLIT_SEED, "horizon": setup.horizon}
        config["objective"] = "shared-accuracy"  # All candidates are measured here.
        self.config = config
        self._base = TrialSettings.from_config(config)
        self.dataset = load_dataset(self._base.data)
        self._transform = BatchTransform(self.dataset, self._base.data, "cpu")
        splits = make_splits(self.dataset.train.labels, self._base.data, SPLIT_SEED)
        order = torch.randperm(len(splits.weights), generator=random_stream(SPLIT_SEED, "order of weights"))
        self._weights = self._training_part(splits.weights[order])
        self._selection = self._training_part(splits.selection)
        self._all = self._training_part(torch.arange(len(self.dataset.train.labels)))
        test = self.dataset.test
        self._test = LabelledImages(test.images, test.labels, torch.arange(len(test.labels)), self._transform)

    def _training_part(self, part: torch.Tensor) -> LabelledImages:
        return LabelledImages(self.dataset.train.images, self.dataset.train.labels, part, self._transform)

    def new_record(self, cell: Cell) -> dict[str, Any]:
        """What every record begins with."""
        # Where the images lie is nobody else's concern.
        data = {**self._setup.data, "name": Path(self._setup.data["name"]).name}
        setup = {**asdict(self._setup), "data": data}
        return {"cell": asdict(cell), "setup": setup, "device": device_name(torch.device("cpu"))}

    def run(self, cell: Cell) -> dict[str, Any]:
        """Search, judge by every candidate for the objective, train from scratch."""
        record = self.new_record(cell)
        if cell.study == "random":
            architecture = self.random_network(cell.seed)
            record["end"] = self.trained_alone(architecture)
        else:
            architecture = self._search(cell, record)
        record["architecture"] = architecture.operations
        record["parameters"] = count_parameters(build_network(architecture))
        record["multiply_adds"] = count_multiply_adds(architecture)
        record["truth"] = [self.truth(architecture, seed) for seed in range(self._setup.truth_seeds)]
        return record

    def _search(self, cell: Cell, record: dict[str, Any]) -> Architecture:
        config = {**self.config, **cell.settings, "seed": cell.seed}
        search = Search(TrialSettings.from_config(config), self.dataset, torch.device("cpu"))
        curve: list[float] = []
        seconds = 0.0
        while not search.finished:
            seconds += self.run_epoch(search)
            assert search.position.last_epoch is not None, "an epoch was run"
            curve.append(search.position.last_epoch.val_accuracy)
            if 2 * search.epochs == self._setup.horizon:
                record["half"] = self._candidates(search)
        record["end"] = self._candidates(search)
        record["curve"] = curve
        record["search_seconds"] = seconds
        record["effective_candidates"] = sum(search.effective_candidates()) / len(search.effective_candidates())
        record["alpha_entropy"] = search.alpha_entropy()
        return search.architecture()

    def run_epoch(self, search: Search) -> float:
        """Run one epoch of a search; returns the CPU-seconds that it took."""

        def epoch() -> None:
            search.run_batch()
            while search.in_epoch:
                search.run_batch()

        return _processor_seconds(epoch)

    def _candidates(self, search: Search) -> dict[str, Any]:
        """Every candidate for the objective, for the network that a search prefers now."""
        architecture = search.architecture()
        assert search.position.last_epoch is not None, "an epoch was run"
        found: dict[str, Any] = {
            "shared": {"accuracy": search.position.last_epoch.val_accuracy, "loss": None, "seconds": 0.0}
        }
        settings = search.settings.search
        network = network_with_shared_weights(search.supernet, architecture)
        calibrate = _processor_seconds(
            lambda: finish(recalibrating(network, self._weights, settings.batch_size, RECALIBRATION_IMAGES, seed=0))
        )
        found["recalibrated"] = self._judged(network, calibrate)
        recipe = Recipe.of_search(settings)
        for name, part in (("finetuned", 1.0), ("finetuned softly", 0.2)):
            network = network_with_shared_weights(search.supernet, architecture)
            softer = recipe.model_copy(update={"learning_rate": part * recipe.learning_rate})
            taken = _processor_seconds(Training(network, softer, self._weights, search.settings.seed, 1).run)
            found[name] = self._judged(network, taken)
        return {**found, **self.trained_alone(architecture)}

    def trained_alone(self, architecture: Architecture) -> dict[str, Any]:
        """What a network comes to that is trained alone for a short while: for each of `short_epochs`, twice."""
        found = {}
        for epochs in self._setup.short_epochs:
            for seed in (1000, 1001):
                network = self._fresh(architecture, seed)
                training = Training(network, Recipe.of_search(self._base.search), self._weights, seed, epochs)
                taken = _processor_seconds(training.run)
                found[f"trained {epochs}, seed {seed - 1000}"] = self._judged(network, taken)
        return found

    def _judged(self, network: torch.nn.Module, seconds: float) -> dict[str, Any]:
        began = time.process_time()
        judged = judge(network, self._selection, 500)
        return {
            "accuracy": judged.accuracy,
            "loss": judged.loss,
            "seconds": seconds + time.process_time() - began,
        }

    def truth(self, architecture: Architecture, seed: int) -> dict[str, Any]:
        """What a network comes to that is trained from scratch on all training images, on the test images."""
        network = self._fresh(architecture, seed)
        recipe = Recipe.of_search(self._base.search)
        taken = _processor_seconds(Training(network, recipe, self._all, seed, self._setup.truth_epochs).run)
        judged = judge(network, self._test, 500)
        return {"accuracy": judged.accuracy, "loss": judged.loss, "seconds": taken}

    def _fresh(self, architecture: Architecture, seed: int) -> torch.nn.Module:
        with seeded_torch(seed):
            return build_network(architecture)

    def random_network(self, seed: int) -> Architecture:
        """A network whose layers' operations are drawn at random."""
        search = self._base.search
        names = search.candidate_names
        channels, height, width = self.dataset.train.images.shape[1:]
        macro = MacroShape(
            (channels, height, width),
            len(self.dataset.class_names),
            search.layers,
            search.reductions,
            search.channels,
        )
        return Architecture(tuple(random.Random(seed).choices(names, k=search.layers)), macro)


def _processor_seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


_study: Study | None = None


def _begin(kind: type[Study], setup: Setup) -> None:
    global _study
    settle_process(1, 0)
    _study = kind(setup)


def _run(cell: Cell) -> dict[str, Any]:
    assert _study is not None, "the process was begun"
    return _study.run(cell)


def run_study(kind: type[Study], setup: Setup, wanted: Iterable[Cell], file: Path, jobs: int) -> None:
    """Run the cells that the file does not hold yet, each in one thread, and append their records."""
    done = {_key(record["cell"]) for record in read_lines(file)}
    missing = [cell for cell in wanted if _key(asdict(cell)) not in done]
    if not missing:
        return
    began = time.monotonic()
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (kind, setup)) as pool:
        futures = [pool.submit(_run, cell) for cell in missing]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                append_line(file, future.result())
                print(f"{number} of {len(missing)} after {time.monotonic() - began:.0f} s", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _key(cell: dict[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)
