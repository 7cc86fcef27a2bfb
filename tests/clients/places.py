"""Storages for tests: the same files on a local disk and in buckets of a real S3 server, behind one face."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clients.support import run
from fakes.odd_s3_server import OddS3Server
from fakes.s3_server import REGION, S3Server

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import Address, parse_address
from tasks.domain.settings import Settings

T = TypeVar("T")
KINDS = ("local", "s3", "obs")


@dataclass
class Place:
    """One folder on one kind of storage. ``server`` is None for the local disk."""

    kind: str
    root: Address
    credentials: dict[str, Credentials]
    server: S3Server | None

    def put(self, relative: str, data: bytes) -> None:
        """Store a file, without the product."""
        if self.server is None:
            path = Path(self.root.path) / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        else:
            self.server.put(self.root.bucket, f"{self.root.path}/{relative}", data)

    def get(self, relative: str) -> bytes:
        """The bytes of a file, without the product. KeyError if there is none."""
        if self.server is not None:
            return self.server.get(self.root.bucket, f"{self.root.path}/{relative}")
        try:
            return (Path(self.root.path) / relative).read_bytes()
        except FileNotFoundError:
            raise KeyError(relative) from None

    def names(self) -> list[str]:
        """Every file that is there, without the product."""
        if self.server is not None:
            prefix = f"{self.root.path}/"
            return [key.removeprefix(prefix) for key in self.server.keys(self.root.bucket, prefix)]
        root = Path(self.root.path)
        found = (str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
        return sorted(found, key=str.encode)

    def do(self, work: Callable[[Storage], Awaitable[T]], settings: Settings | None = None) -> T:
        """Work with the product's storage, which is closed afterwards."""

        async def whole() -> T:
            storage = Storage(settings or Settings(), self.credentials)
            try:
                return await work(storage)
            finally:
                await storage.close()

        return run(whole())

    def output(self, storage: Storage, scratch: str = ".scratch") -> OutputFolder:
        """The product's output folder here."""
        return OutputFolder(storage, self.root, scratch)

    def list(self, relative: str = "") -> list[tuple[str, int]]:
        """What the product lists."""

        async def work(storage: Storage) -> list[tuple[str, int]]:
            folder = self.root.child(relative) if relative else self.root
            return [(name, size) async for name, size, _ in storage.list(folder)]

        return self.do(work)


def credentials_of(server: S3Server) -> Credentials:
    """How to reach a server."""
    return Credentials(
        endpoint_url=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region=REGION,
    )


def make_place(kind: str, folder: Path, server: S3Server | None, name: str) -> Place:
    """A folder that is empty: below ``folder``, or in a bucket of its own."""
    if kind == "local":
        root = folder / "place"
        root.mkdir()
        return Place(kind, parse_address(str(root)), {}, None)
    assert server is not None
    server.make_bucket(name)
    return Place(kind, parse_address(f"{kind}://{name}/place"), {kind: credentials_of(server)}, server)


def one_line(error: ObjectError, *secrets: str) -> str:
    """The cause, after checking that it is fit for a manifest."""
    assert error.cause
    assert "\n" not in error.cause
    assert len(error.cause) < 300
    assert "?" not in error.cause
    assert re.search(r"https?://[^/\s]+/", error.cause) is None  # the endpoint at most, never an object's address
    for secret in secrets:
        assert secret not in error.cause
    assert error.__cause__ is None
    return error.cause


def odd_credentials(server: OddS3Server) -> Credentials:
    return Credentials(endpoint_url=server.endpoint, access_key_id="a", secret_access_key="b", region="us-east-1")


def local(folder: Path) -> OutputFolder:
    return OutputFolder(Storage(Settings()), parse_address(str(folder)), ".scratch")
