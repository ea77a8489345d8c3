"""A server that speaks S3's interface, on a loopback port."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from moto.moto_server.threaded_moto_server import ThreadedMotoServer

#: What a client needs to find it and be let in, beside AWS_ENDPOINT_URL.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "charloom",
    "AWS_SECRET_ACCESS_KEY": "charloom",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def server() -> Iterator[str]:
    """The address of a server without a bucket."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        running.stop()


def new_bucket(endpoint: str) -> str:
    """The URL of a new, empty bucket."""
    name = f"charloom-{uuid4().hex}"
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    with urllib.request.urlopen(request):
        return f"s3://{name}"
