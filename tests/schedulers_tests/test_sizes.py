from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schedulers.sizes import format_least_size, format_size, parse_size


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("20 GB", 20_000_000_000),
        ("500MB", 500_000_000),
        ("1.5 TB", 1_500_000_000_000),
        ("3 gib", 3 * 1024**3),
        (" .5 KiB ", 512),
        ("7 B", 7),
        ("1234", 1234),
        (1234, 1234),
        ("9007199254740993", 9_007_199_254_740_993),
    ],
)
def test_sizes_are_read_as_people_write_them(written: str | int, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("20", None), ("20 gigs", "unknown unit 'gigs'"), ("1.5", "no unit"), ("0 GB", "less than one byte"),
        ("-1 GB", "is no size"), (0, "less than one byte"), (True, "True is no size"), (1.5, "1.5 is no size"),
        ("", "is no size"), ("GB", "is no size"), ("nan GB", "is no size"), ([1], "is no size"),
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused_with_the_rule(written: Any, said: str | None) -> None:
    if said is None:
        assert parse_size(written) == 20
        return
    with pytest.raises(ValueError, match=said) as caught:
        parse_size(written)
    assert '"20 GB"' in str(caught.value)


@given(st.integers(1, 10**16))
@example(2010)
def test_the_least_size_that_would_do_does(size: int) -> None:
    assert size <= parse_size(format_least_size(size)) <= 1.011 * size


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (999_600, "1 MB"), (415e6, "415 MB"), (5e15, "5,000 TB")]
)
def test_sizes_are_shown_with_three_digits(size: float, text: str) -> None:
    assert format_size(size) == text
