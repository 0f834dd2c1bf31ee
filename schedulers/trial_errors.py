"""What a trial's error comes to in a line, from the text that Tune writes of it."""

from __future__ import annotations

import re
from pathlib import Path

_LONGEST_MESSAGE = 200

_SECTION = re.compile(r"^Failure # \d+ \(occurred at .*\)\n", re.MULTILINE)
_FRAME = re.compile(r'^ +File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>.+)$')
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(: .*)?$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EXIT = re.compile(r"Worker exit detail: (.+?)(?:\. |\.?$)", re.MULTILINE)

_HOME = Path(__file__).resolve().parents[1]
_OWN_ROOMS = tuple(f"{_HOME / room}/" for room in ("nasib_ray", "schedulers", "trainables"))
_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python3.", "<frozen", "_raylet.pyx")

_NODE_DIED = "its node has died"
_UNREACHABLE = "its node, or its process, cannot be reached any more"

_DEATHS = (
    ("low on memory", "Ray killed its process: its node was running out of memory"),
    ("killed by `ray.kill`", "its process was killed: its grant or the sweep's deadline was over"),
    ("node has died", _NODE_DIED),
    ("node was terminated", _NODE_DIED),
    ("actor is temporarily unavailable", _UNREACHABLE),
    (
        "connection error code 2",
        "its process died without an exception: killed (SIGKILL), out of memory, or crashed in native code",
    ),
)
"""What Ray says of processes that are gone, and what it means."""


def is_exception(text: str) -> bool:
    """Whether the newest error was raised in the trial's process, rather than being that process's death."""
    return any(map(_FRAME.match, _newest(text)))


def lost_its_node(why: str) -> bool:
    """Whether what :func:`told_error` says is that a trial has lost the node that it ran on."""
    return why in (_NODE_DIED, _UNREACHABLE)


def told_error(text: str) -> str:
    """The newest error in one line.

    Args:
        text: Tune's ``error.txt``: every failure of the trial, oldest first, each a traceback or what Ray says of a
            process that died. Empty where there is none.

    Returns:
        Of an exception: its type, its message, and where it came from in the user's own code if it did. Of a death:
        what is known of its cause.
    """
    lines = _newest(text)
    frames = [(at, match) for at, line in enumerate(lines) if (match := _FRAME.match(line))]
    if frames:
        return _told_exception(lines, frames)
    whole = "\n".join(lines)
    for sign, meaning in _DEATHS:
        if sign in whole:
            return meaning
    if match := _EXIT.search(whole):
        return f"its process died: {_short(match[1])}"
    return _short(lines[-1].strip()) if lines else "its process died"


def _newest(text: str) -> list[str]:
    """The lines of the newest failure that are not empty."""
    return [line for line in _COLOUR.sub("", _SECTION.split(text)[-1]).splitlines() if line.strip()]


def _told_exception(lines: list[str], frames: list[tuple[int, re.Match[str]]]) -> str:
    """Type, message and place of the exception that was raised last."""
    # Behind the last frame's own lines, which are indented; the message may have several lines.
    behind = lines[frames[-1][0] + 1 :]
    first = next((at for at, line in enumerate(behind) if _EXCEPTION.match(line)), len(behind) - 1)
    message = _short(" ".join(line.strip() for line in behind[max(0, first) :]) or "an exception without a name")
    for _, frame in reversed(frames):
        file = frame["file"]
        if not any(part in file for part in _LIBRARIES) and not file.startswith(_OWN_ROOMS):
            return f"{message} ({_from_here(file)}:{frame['line']}, in {frame['function']})"
    return message


def _from_here(file: str) -> str:
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."
