"""A network as plain data. No torch here: ``supernet.build_network`` makes the module."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from trainables.candidates import check_name


@dataclass(frozen=True)
class MacroShape:
    """Everything about a network but its layers' operations (section 4.1).

    Attributes:
        image_shape: (channels, height, width) of an image.
        classes: Number of classes.
        layers: Number of layers.
        reductions: Numbers of the layers, from 1, before which a factorized reduction stands.
        channels: Channels behind the stem; each reduction doubles them.
    """

    image_shape: tuple[int, int, int]
    classes: int
    layers: int
    reductions: tuple[int, ...]
    channels: int

    def __post_init__(self) -> None:
        _, height, width = self.image_shape
        if min(height, width) >> len(self.reductions) < 1:
            raise ValueError(
                f"images of {height} x {width} pixels cannot be halved {len(self.reductions)} times: take fewer "
                "reductions or a larger data.image_size"
            )

    def channels_of(self, layer: int) -> int:
        """Channels of a layer, counted from 1."""
        return self.channels << sum(reduction <= layer for reduction in self.reductions)


@dataclass(frozen=True)
class Architecture:
    """What a search finds: one operation for each layer of a macro network.

    Attributes:
        operations: Names of the layers' operations, in order.
        macro: The network around them. A wider one is ``replace(macro, channels=...)``.

    Raises:
        ValueError: A name is no operation's, or there are not as many as layers.
    """

    operations: tuple[str, ...]
    macro: MacroShape

    def __post_init__(self) -> None:
        for name in self.operations:
            check_name(name)
        if len(self.operations) != self.macro.layers:
            raise ValueError(f"{len(self.operations)} operations for a network of {self.macro.layers} layers")

    def to_plain(self) -> dict[str, Any]:
        """The architecture as JSON can hold it, which ``from_plain`` reads."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_plain(cls, data: Any) -> Architecture:
        """The architecture that ``to_plain`` described, also after a round trip through JSON.

        Raises:
            ValueError: The data describe none.
        """
        try:
            macro = data["macro"]
            channels, height, width = macro["image_shape"]
            shape = MacroShape(
                image_shape=(channels, height, width),
                classes=macro["classes"],
                layers=macro["layers"],
                reductions=tuple(macro["reductions"]),
                channels=macro["channels"],
            )
            return cls(tuple(data["operations"]), shape)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an architecture: {error!r}") from error

    def to_json(self) -> str:
        """The architecture as a JSON object, which ``from_json`` reads."""
        return json.dumps(self.to_plain(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """The architecture that ``to_json`` wrote.

        Raises:
            ValueError: The text is not such an object.
        """
        try:
            return cls.from_plain(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"not an architecture in JSON: {error!r}") from error
