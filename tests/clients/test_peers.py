"""Whose the other end of a connection is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tasks.clients.processes.peers import listening_account, peer_account

OTHER = 65534
CONNECT = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])));"


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as one:
        one.bind((request.param, 0))
        one.listen()
        yield one


def connect(listener: socket.socket, then: str, user: int | None) -> subprocess.Popen[bytes]:
    host, port = listener.getsockname()[:2]
    # As another account nothing but the standard library can be expected to be readable.
    command = ["/usr/bin/env", "python3"] if user else [sys.executable]
    return subprocess.Popen(
        [*command, "-I", "-c", CONNECT + then, host, str(port)], stdin=subprocess.PIPE, user=user, cwd="/"
    )


def test_peer__is_known_by_the_kernel(listener: socket.socket) -> None:
    with connect(listener, "sys.stdin.read()", None) as client:
        accepted, peer = listener.accept()
        with accepted:
            assert peer_account(peer[:2], listener.getsockname()[:2]) == os.geteuid()
            assert peer_account((peer[0], peer[1] ^ 1), listener.getsockname()[:2]) is None
        assert client.stdin is not None
        client.stdin.close()
    assert listening_account(listener.getsockname()[:2]) == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another account")
def test_peer__of_another_account_is_that_account(listener: socket.socket) -> None:
    with connect(listener, "sys.stdin.read()", OTHER) as client:
        accepted, peer = listener.accept()
        with accepted:
            assert peer_account(peer[:2], listener.getsockname()[:2]) == OTHER
        assert client.stdin is not None
        client.stdin.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another account")
@pytest.mark.parametrize("then", ["s.sendall(b'x')", "s.sendall(b'x'); s.shutdown(1)"])
def test_peer__that_has_sent_and_gone_is_nobody(listener: socket.socket, then: str) -> None:
    """The kernel gives root's id to a connection without an owner: that must not pass for root."""
    client = connect(listener, then, OTHER)
    accepted, peer = listener.accept()
    with accepted, client:
        client.communicate()
        assert peer_account(peer[:2], listener.getsockname()[:2]) is None


def test_listener__of_a_port_where_nobody_listens_is_nobody() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert listening_account(bound.getsockname()) is None
