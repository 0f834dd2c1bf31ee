"""How a found network is trained on its own. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, InstanceOf, PlainSerializer, PlainValidator

from trainables.architecture import Architecture
from trainables.settings import DataSettings, Measure, PositiveFloat, PositiveInt, Precision, SearchSettings, Settings

TrainedOn = Literal["weights", "weights and alpha", "all"]
JudgedOn = Literal["selection", "test"]


class Recipe(Settings):
    """SGD with momentum and a cosine from the first batch to the last.

    Attributes:
        batch_size: Images of a batch.
        learning_rate: In the first batch.
        lr_min: The fraction of it that is left in the last one.
        momentum: Of the weights.
        weight_decay: L2 penalty on the weights.
        gradient_clip: Largest norm of the gradient.
        label_smoothing: Share of a label that is spread over all classes.
        drop_path: Probability with which a layer's operation is left out for an image (stochastic depth, Huang et al.
            2016); it rises on a straight line from 0 before the first layer to this in the last one.
        precision: Of convolutions and their outputs.
    """

    batch_size: int = Field(default=64, ge=2)
    learning_rate: PositiveFloat = 0.01
    lr_min: float = Field(default=0.01, ge=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-4, ge=0)
    gradient_clip: PositiveFloat = 5.0
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    precision: Precision = "float32"

    @classmethod
    def of_search(cls, search: SearchSettings) -> Recipe:
        """As the search trained the supernet: the papers train the final network with the same settings (4.1)."""
        return cls(**{name: getattr(search, name) for name in cls.model_fields if name in type(search).model_fields})


class RetrainSettings(Settings):
    """Found networks are trained like this (the section ``retrain`` of a configuration).

    What is None is as in the search.

    Attributes:
        epochs: Passes over the training images.
        channels: Channels behind the stem; each reduction doubles them.
        layers: Layers of the trained network, at least as many as were searched: the layers found are repeated, all of
            them about equally often, and reductions stay before the ones that they were before.
        batch_size: Images of a batch.
        learning_rate: In the first batch; a cosine leads to the search's ``lr_min`` of it.
        weight_decay: L2 penalty on the weights.
        label_smoothing: Share of a label that is spread over all classes.
        drop_path: Probability with which the last layer's operation is left out for an image; less in earlier ones.
    """

    epochs: PositiveInt = 100
    channels: PositiveInt | None = None
    layers: PositiveInt | None = None
    batch_size: Annotated[int, Field(ge=2)] | None = None
    learning_rate: PositiveFloat | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)

    def recipe(self, as_searched: Recipe) -> Recipe:
        """The recipe, with that of the search where nothing else is given."""
        own = {name: value for name in Recipe.model_fields if (value := getattr(self, name, None)) is not None}
        return as_searched.model_copy(update=own)

    def check_layers(self, searched: int) -> None:
        """Raise ValueError if ``layers`` is less than what was searched."""
        if self.layers is not None and self.layers < searched:
            raise ValueError(
                f"retrain.layers = {self.layers} is less than the {searched} layers that were searched: a found "
                "network can be made deeper, not shallower"
            )

    def scaled(self, architecture: Architecture) -> Architecture:
        """The network that is trained in place of a found one.

        Raises:
            ValueError: ``layers`` is less than what was searched.
        """
        macro = architecture.macro
        if self.channels is not None:
            macro = replace(macro, channels=self.channels)
        self.check_layers(macro.layers)
        layers = self.layers or macro.layers
        # Layer l of the deeper network stands for this one of those found, both counted from 0.
        found = [layer * macro.layers // layers for layer in range(layers)]
        reductions = tuple(found.index(reduction - 1) + 1 for reduction in macro.reductions)
        operations = tuple(architecture.operations[layer] for layer in found)
        return Architecture(operations, replace(macro, layers=layers, reductions=reductions))


def _architecture(value: Any) -> Architecture:
    return value if isinstance(value, Architecture) else Architecture.from_plain(value)


class TrainingSettings(Settings):
    """All that the training of one network is told: the flat configuration of a Tune trial, checked.

    Attributes:
        name: What the network is called.
        architecture: The network; as plain data in a configuration.
        recipe: How it is trained.
        data: What on.
        trained_on: The parts "weights" or "weights and alpha" of the training images, as in a search, or "all" of them.
        judged_on: The part "selection", after every epoch, or the "test" set, once: after the last one.
        ranked_by: Of what the network does on the selection part, that which is reported as the objective.
        seed: Of initial weights, order, augmentation.
        split_seed: The sweep's; the parts of the training set are drawn by it.
        deterministic: Ask CUDA for deterministic kernels.
        checkpoint_seconds: As in a search.
        horizon: Epochs of the whole training. None: not yet known; the learning rate stays where it is as long.
        slice_seconds: Wall seconds of stepping that are left from the first step after a set-up or reset. None: no end.
        compare_at: Epochs after which the training will be compared with others. It is judged after each one.
    """

    name: str = ""
    architecture: Annotated[
        InstanceOf[Architecture], PlainValidator(_architecture), PlainSerializer(Architecture.to_plain)
    ]
    recipe: Recipe = Recipe()
    data: DataSettings = DataSettings()
    trained_on: TrainedOn = "all"
    judged_on: JudgedOn = "test"
    ranked_by: Measure = "accuracy"
    seed: int = 0
    split_seed: int = 0
    deterministic: bool = False
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    horizon: PositiveInt | None = None
    slice_seconds: PositiveFloat | None = None
    compare_at: PositiveInt | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrainingSettings:
        """The settings in a trial's configuration.

        Raises:
            ValueError: A key is unknown or a value breaks a rule.
        """
        return cls.model_validate(dict(config))
