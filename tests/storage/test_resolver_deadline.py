"""A name server that never answers holds nobody up."""

import threading
import time

import httpcore
import pytest

from gauntlet_jax.storage.endpoints import CheckedNetwork, EndpointPolicy


def test_a_name_that_is_not_resolved_in_time():
    release = threading.Event()

    def never(*_, **__):
        release.wait(10)
        raise OSError

    network = CheckedNetwork(EndpointPolicy(), 1.0, never)
    began = time.monotonic()
    with pytest.raises(httpcore.ConnectTimeout, match="not resolved in time"):
        network.connect_tcp("slow.example", 443, timeout=0.2)
    assert time.monotonic() - began < 2
    release.set()
