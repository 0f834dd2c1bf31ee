"""JSON lines that show whether they are whole: each begins with the checksum of its remainder.

A sealed line is plain JSON, ``{"crc":"1c291ca3","number":17,...}``: "crc" is the CRC-32 of everything that follows
the comma, in eight hexadecimal digits. No torn line, and no line with up to 32 neighbouring bits changed, passes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

_BEGIN = b'{"crc":"'
_SEAL = b'%08x",'
_BODY = len(_BEGIN) + 10


def seal(fields: Mapping[str, Any]) -> bytes:
    """One sealed line, with its line feed, in ASCII.

    Args:
        fields: At least one field, none of them "crc". NaN and infinities are written as Python's json writes them.

    Raises:
        TypeError: If a value is not of JSON's types.
    """
    assert fields, "there is nothing to seal"
    assert "crc" not in fields, "crc is the seal's own field"
    body = json.dumps(fields, separators=(",", ":")).encode("ascii")[1:]
    return _BEGIN + _SEAL % zlib.crc32(body) + body + b"\n"


def is_intact(line: bytes) -> bool:
    """Whether a line (without its line feed) is just what :func:`seal` wrote."""
    return line.startswith(_BEGIN) and line[len(_BEGIN) : _BODY] == _SEAL % zlib.crc32(line[_BODY:])


def unseal(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """The fields of intact lines, "crc" among them; all at once, because that takes half the time."""
    return cast(list[dict[str, Any]], json.loads("[" + b",".join(lines).decode("ascii") + "]"))


def unseal_file(data: bytes | None) -> dict[str, Any] | None:
    """The fields of a file that is one sealed line; None if there is no file, or it is not intact."""
    if data is None or not data.endswith(b"\n") or not is_intact(data[:-1]):
        return None
    fields = unseal([data[:-1]])[0]
    del fields["crc"]
    return fields
