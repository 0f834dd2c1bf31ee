from __future__ import annotations

from dataclasses import replace

import pytest

from trainables.architecture import Architecture, MacroShape

MACRO = MacroShape(image_shape=(3, 32, 32), classes=10, layers=3, reductions=(2, 3), channels=16)


def test_json_keeps_everything() -> None:
    architecture = Architecture(("conv3x5", "identity", "package.module:Class"), MACRO)
    assert Architecture.from_json(architecture.to_json()) == architecture


def test_channels_double_with_each_reduction() -> None:
    assert [MACRO.channels_of(layer) for layer in (1, 2, 3)] == [16, 32, 64]
    assert [replace(MACRO, channels=36).channels_of(layer) for layer in (1, 2, 3)] == [36, 72, 144]


def test_wrong_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="2 operations for a network of 3 layers"):
        Architecture(("identity", "identity"), MACRO)
    with pytest.raises(ValueError, match="no operation is called 'convolution'"):
        Architecture(("identity", "identity", "convolution"), MACRO)
    for text in ("{", "[]", "{}", '{"macro": {"image_shape": [1, 2]}}'):
        with pytest.raises(ValueError, match=r"not an architecture|unpack"):
            Architecture.from_json(text)
