"""A real server of the S3 protocol on this machine, which can go away and come back with all that it holds."""

from __future__ import annotations

import logging
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from moto.server import ThreadedMotoServer

BUCKET = "bucket"


class S3Server:
    """Serves one bucket from a thread of this process, on a port that was free."""

    def __init__(self) -> None:
        self._server: ThreadedMotoServer | None = None
        self.port = 0
        self.start()
        request = urllib.request.Request(f"http://{self.address}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def uri(self, path: str) -> str:
        """A URI with the server's address in it."""
        return f"s3://{BUCKET}/{path}?endpoint_override={self.address}&scheme=http"

    def start(self) -> None:
        """Serve (again): what was stored is kept by the process."""
        assert self._server is None, "it is serving"
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        """Refuse connections from now on; a second call does nothing."""
        if self._server is not None:
            self._server.stop()
            self._server = None


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server, and the environment in which whatever asks for s3://... finds it, in processes started here too."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3Server()
    found = {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://{server.address}",
    }
    with mock.patch.dict(os.environ, found):
        yield server
    server.stop()
