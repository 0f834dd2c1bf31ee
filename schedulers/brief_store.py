"""Object stores as a driver must use them: a call that is not answered soon fails, and may be made again."""

from __future__ import annotations

from typing import Any, cast

from pyarrow import fs

ATTEMPTS = 2
"""One more than the first, for what is over at once (HTTP 503 "slow down"); whoever calls tries again anyway."""

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0


def brief(filesystem: fs.FileSystem) -> fs.FileSystem:
    """The same store, whose calls fail within about five seconds if it does not answer.

    pyarrow's S3 waits, as it comes from a URI, a minute and a half for a store that hangs; meanwhile a driver could
    neither meter nor kill. Other filesystems are returned as they are.
    """
    if isinstance(filesystem, fs.SubTreeFileSystem):
        return fs.SubTreeFileSystem(filesystem.base_path, brief(filesystem.base_fs))
    if not isinstance(filesystem, getattr(fs, "S3FileSystem", ())):
        return filesystem
    # What it was made of, as its pickle has it: there is no other way to ask.
    made_of = cast(dict[str, Any], filesystem.__reduce__()[1][0])
    return fs.S3FileSystem(
        **{
            **made_of,
            "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            "connect_timeout": CONNECT_SECONDS,
            "request_timeout": ANSWER_SECONDS,
        }
    )
