"""A process that lasts as long as a model's container. Run as a script: model_container.py says what it is asked to do.

It pulls the image if it is not there, starts the container, prints what the container prints, and passes connections to
127.0.0.1:$PORT on to the container's port. When it gets SIGTERM, as from its warden once the run has ended in any way,
it removes the container. If the container ends first, its exit status is that of this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

HOST = "127.0.0.1"
OWNER_LABEL = "thresher.owner"
PULL_SECONDS = 3600
_PIECE = 64 << 10


class _Refused(Exception):
    """Docker cannot do what is asked; the message is one line."""


def main() -> int:
    """Run the container until it ends or a signal comes; the exit status."""
    asked = json.loads(os.environ.pop("CONTAINER"))
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    made = ""
    client: Any = None
    try:
        client = docker.APIClient(asked["address"], version="auto", timeout=PULL_SECONDS)
        _remove_left(client)
        made = _create(client, asked)
        client.start(made)
        threading.Thread(target=_print_output, args=(asked, made), daemon=True).start()
        return asyncio.run(_serve(client, asked, made))
    except _Refused as error:
        sys.stderr.write(f"model container: {error}\n")
        return 1
    except (DockerException, OSError) as error:
        said = getattr(error, "explanation", None) or str(error)
        sys.stderr.write(f"model container: Docker at {asked['address']} refuses: {' '.join(str(said).split())}\n")
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if made:
            with suppress(DockerException, OSError):
                client.remove_container(made, force=True, v=True)
        sys.stdout.flush()


def _leave(*_: object) -> None:
    sys.exit(0)


def _create(client: Any, asked: dict[str, Any]) -> str:
    wanted = asked["container"]
    wanted["Labels"][OWNER_LABEL] = socket.gethostname()
    try:
        return str(client.create_container_from_config(wanted)["Id"])
    except (ImageNotFound, NotFound):
        _pull(client, asked["image"])
    return str(client.create_container_from_config(wanted)["Id"])


def _pull(client: Any, image: str) -> None:
    sys.stderr.write(f"model container: pulls {image}\n")
    name, at, digest = image.partition("@")
    repository, colon, tag = name.rpartition(":")
    if at or not colon or "/" in tag:  # a registry's port is no tag
        repository, tag = name, digest or "latest"
    try:
        for line in client.pull(repository, tag=tag, stream=True, decode=True):
            if "error" in line:
                raise _Refused(f"the image {image} cannot be pulled: {line['error']}")
    except APIError as error:
        raise _Refused(f"the image {image} cannot be pulled: {error.explanation or error}") from None


def _remove_left(client: Any) -> None:
    """Remove containers whose run's own container is gone: it was killed, and could not do so."""
    alive: dict[str, bool] = {socket.gethostname(): True}
    for found in client.containers(all=True, filters={"label": [OWNER_LABEL]}):
        owner = found["Labels"][OWNER_LABEL]
        if owner not in alive:
            try:
                alive[owner] = bool(client.inspect_container(owner)["State"]["Running"])
            except NotFound:
                alive[owner] = False
        if not alive[owner]:
            with suppress(APIError):  # another run removes it, too
                client.remove_container(found["Id"], force=True, v=True)


def _print_output(asked: dict[str, Any], made: str) -> None:
    client = docker.APIClient(asked["address"], version="auto", timeout=None)
    with suppress(DockerException, OSError, ValueError):
        for piece in client.logs(made, stream=True, follow=True, stdout=True, stderr=True):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


async def _serve(client: Any, asked: dict[str, Any], made: str) -> int:
    """Pass connections on until the container ends; its exit status, 0 after a signal."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[int] = loop.create_future()

    def end(status: int) -> None:
        if not over.done():
            over.set_result(status)

    def wait() -> None:  # not in the loop's own threads, which it would wait for
        try:
            status = int(client.wait(made, timeout=None)["StatusCode"])
        except (DockerException, OSError):
            status = 1
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(end, status)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, 0)
    networks = client.inspect_container(made)["NetworkSettings"]["Networks"]
    address = networks.get(asked["network"], {}).get("IPAddress", "")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(address, asked["port"])
        except OSError:  # not yet: the caller's connection breaks, as it would at the container itself
            writer.transport.abort()
            return
        await _both_ways((reader, writer), there)

    server = await asyncio.start_server(accept, HOST, int(os.environ["PORT"]))
    threading.Thread(target=wait, daemon=True).start()
    status = await over
    server.close()
    return status


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _both_ways(here: _End, there: _End) -> None:
    try:
        await asyncio.gather(_pass(here[0], there[1]), _pass(there[0], here[1]))
    except OSError:
        pass
    finally:
        for _, writer in (here, there):
            writer.transport.abort()


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(_PIECE):
        target.write(piece)
        await target.drain()
    target.write_eof()


if __name__ == "__main__":
    status = main()
    os._exit(status)  # a thread may still wait for Docker
