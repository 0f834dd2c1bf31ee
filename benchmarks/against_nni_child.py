"""One side of ``against_nni.py``: builds a supernet, warms up, and does a unit of work each time it is asked.

It is started by that benchmark, with our interpreter or with NNI's, and reads from its standard input a JSON object of
what to do and then a line for each unit. It answers each on its standard output with a JSON object. Ray is not needed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from straightforward import candidate
from torch import Tensor, nn
from torch.nn import functional

from trainables.alpha import ArchitectureParameters
from trainables.architecture import MacroShape
from trainables.momentum_sgd import MomentumSGD
from trainables.search_step import architecture_step, weight_step
from trainables.settings import SearchSettings
from trainables.supernet import MacroNetwork, Supernet, count_parameters, use_batch_statistics

IMAGE_SHAPE = (3, 32, 32)
CLASSES = 10

Batch = tuple[Tensor, Tensor]


class Line:
    """The pipe to the benchmark, which waits for a request and times what is done until the answer."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._began = (0.0, 0.0)

    def say(self, **message: Any) -> None:
        """Send an object."""
        print(json.dumps(message), file=self._answers, flush=True)

    def wait(self) -> None:
        """Return once a unit of work is asked for, its clocks running; end the process if none will be."""
        if not sys.stdin.readline():
            self._answers.close()
            os._exit(0)  # From inside Lightning's loop, which would otherwise tidy up and report an interruption.
        self._began = (time.process_time(), time.perf_counter())

    def answer(self) -> None:
        """Send what the unit took."""
        cpu, wall = time.process_time() - self._began[0], time.perf_counter() - self._began[1]
        self.say(
            cpu_seconds=cpu, wall_seconds=wall, peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        )


def batches(size: int) -> tuple[Batch, Batch]:
    """The batch of the weight steps and the one of the architecture steps: the same in every process."""
    generator = torch.Generator().manual_seed(0)

    def batch() -> Batch:
        images = torch.randn((size, *IMAGE_SHAPE), generator=generator)
        return images, torch.randint(CLASSES, (size,), generator=generator)

    return batch(), batch()


def common_versions() -> dict[str, str]:
    """Versions of what both sides stand on."""
    return {"torch": torch.__version__, "python": sys.version.split()[0]}


def serve_ours(line: Line, settings: SearchSettings) -> None:
    """Weight step and architecture step of NASIB, on pairs that are drawn uniformly for each."""
    supernet = Supernet(settings, IMAGE_SHAPE, CLASSES)
    optimizer = MomentumSGD(
        supernet.named_parameters(), settings.momentum, settings.weight_decay, settings.gradient_clip
    )
    parameters = ArchitectureParameters(settings)
    for_weights, for_alpha = batches(settings.batch_size)
    candidates = len(settings.candidate_names)

    def draw() -> Tensor:
        return torch.rand(settings.layers, candidates).topk(2).indices

    def unit(draw: Callable[[], Tensor]) -> None:
        rate, scale = settings.learning_rate, settings.pair_scale
        weight_step(supernet, optimizer, *for_weights, draw(), pair_scale=scale, learning_rate=rate)
        architecture_step(supernet, parameters, *for_alpha, draw())

    # Every candidate of every layer once, so that oneDNN has made the kernels of all shapes.
    for column in range(0, candidates, 2):
        pairs = torch.tensor([[column, (column + 1) % candidates]] * settings.layers)
        unit(lambda pairs=pairs: pairs)  # type: ignore[misc]
    line.say(ready=common_versions(), parameters=count_parameters(supernet))
    while True:
        line.wait()
        unit(draw)
        line.answer()


def build_nni_space(settings: SearchSettings) -> Any:
    """Our macro network with NNI's choice among our candidates in each layer, as the strategies want it."""
    # NNI wraps all that it finds in torch.nn, and warns of what it does not know there.
    warnings.filterwarnings("ignore", "(?s).*is found to be not a nn.Module")
    from nni.nas.nn.pytorch import LayerChoice, ModelSpace

    names = settings.candidate_names
    shape = MacroShape(IMAGE_SHAPE, CLASSES, settings.layers, settings.reductions, settings.channels)

    class ChoiceLayer(nn.Module):
        """ReLU(x + BN(op(x))), each candidate with a batch norm of its own."""

        def __init__(self, number: int, channels: int) -> None:
            super().__init__()
            self.choice = LayerChoice(
                {name: nn.Sequential(*candidate(name, channels), nn.BatchNorm2d(channels)) for name in names},
                label=f"layer{number}",
            )

        def forward(self, x: Tensor) -> Tensor:
            return functional.relu(x + self.choice(x))

    class Space(ModelSpace):  # type: ignore[misc]
        """The network of ``trainables/supernet.py`` around such layers, in the memory format of its input."""

        def __init__(self) -> None:
            super().__init__()
            self.network = MacroNetwork(shape, ChoiceLayer)
            use_batch_statistics(self)

        def forward(self, images: Tensor) -> Tensor:
            x: Tensor = self.network.stem(images)
            for number, layer in enumerate(self.network.layers, start=1):
                if str(number) in self.network.reductions:
                    x = self.network.reductions[str(number)](x)
                x = layer(x)
            logits: Tensor = self.network.head(x.mean(dim=(2, 3)))
            return logits

    return Space()


def run_all_candidates(network: MacroNetwork, batch_size: int, memory_format: torch.memory_format) -> None:
    """Run the candidates of a layer of each width once forward and backward, so that oneDNN has made their kernels.

    A step of ProxylessNAS runs few of them backward, and would make kernels for many steps to come.
    """
    shape = network.shape
    for number in sorted({1, *shape.reductions}):
        halvings = sum(reduction <= number for reduction in shape.reductions)
        size = (batch_size, shape.channels_of(number), *(side >> halvings for side in shape.image_shape[1:]))
        x = torch.randn(size).contiguous(memory_format=memory_format).requires_grad_()
        choice: Any = network.layers[number - 1].choice
        for name in choice.names:
            y = choice[name](x)
            y.backward(torch.ones_like(y))
    network.zero_grad()


def serve_nni(line: Line, settings: SearchSettings, strategy_name: str, channels_last: bool) -> None:
    """NNI's own strategy, started as an experiment starts it, in Lightning's own loop, which waits before each batch.

    What is timed is from Lightning's hook before a training step to the one behind it: the step, without its loader.
    """
    space = build_nni_space(settings)  # Before NNI is imported otherwise, as it silences warnings of that.
    import nni
    import pytorch_lightning
    from nni.nas.evaluator.pytorch import Lightning, LightningModule, Trainer
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.space import RawFormatModelSpace
    from nni.nas.strategy import DARTS, Proxyless

    class Recipe(LightningModule):  # type: ignore[misc]
        """Cross-entropy and SGD as of a NASIB search, without metrics or logs."""

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            images, labels = batch
            return functional.cross_entropy(self.model(images), labels)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(
                self.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
            )

    class Asked(pytorch_lightning.Callback):  # type: ignore[misc]
        """Makes the loop wait before every batch but the first, which is the last of the warm-up."""

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx:
                line.wait()

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx:
                line.answer()
                return
            versions = {"nni": nni.__version__, "pytorch_lightning": pytorch_lightning.__version__}
            line.say(ready=versions | common_versions(), parameters=parameters)

    class Endless:
        """A loader that gives one batch for ever."""

        def __init__(self, batch: Batch) -> None:
            self.batch = batch

        def __iter__(self) -> Iterator[Batch]:
            while True:
                yield self.batch

    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    space.to(memory_format=memory_format)
    parameters = count_parameters(space)  # Without alpha, which the strategy adds.
    for_weights, for_alpha = (
        (images.contiguous(memory_format=memory_format), labels) for images, labels in batches(settings.batch_size)
    )
    if strategy_name == "proxyless":
        run_all_candidates(space.network, settings.batch_size, memory_format)
    evaluator = Lightning(
        Recipe(),
        Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Asked()],
        ),
        train_dataloaders=Endless(for_weights),
        val_dataloaders=Endless(for_alpha),
    )
    strategy = {"proxyless": Proxyless, "darts": DARTS}[strategy_name](gradient_clip_val=settings.gradient_clip)
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    strategy.run()


def for_want_of_memory(error: BaseException) -> bool:
    """Whether memory was what failed; NNI wraps PyTorch's error in another one."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return True
    return error.__context__ is not None and for_want_of_memory(error.__context__)


def main() -> None:
    """Do what standard input says."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # NNI and Lightning print.
    line = Line(answers)
    told = json.loads(sys.stdin.readline())
    resource.setrlimit(resource.RLIMIT_DATA, (int(told["memory_gib"] * 2**30),) * 2)
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    settings = SearchSettings(channels=told["channels"], batch_size=told["batch"])
    try:
        if told["side"] == "ours":
            serve_ours(line, settings)
        else:
            serve_nni(line, settings, told["side"], told["channels_last"])
    except Exception as error:
        memory = for_want_of_memory(error)
        line.say(failed="memory" if memory else repr(error))
        if not memory:
            raise


if __name__ == "__main__":
    main()
