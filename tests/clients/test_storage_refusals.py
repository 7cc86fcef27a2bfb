"""Credentials of storages, and storages that refuse, fail or do not answer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from clients.places import credentials_of, odd_credentials, one_line
from clients.support import run, variables
from fakes.odd_s3_server import OddS3Server
from fakes.s3_server import S3Server

from tasks.clients.storage.failures import Missing, ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

# --- credentials and failures of the storage


@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_credentials__stand_in_the_environment(s3_server: S3Server, bucket: str, scheme: str) -> None:
    s3_server.put(bucket, "key", b"here")
    nothing = dict.fromkeys([*s3_server.environment("AWS"), *s3_server.environment("OBS")])
    with variables(**nothing), variables(**s3_server.environment("OBS" if scheme == "obs" else "AWS")):

        async def work() -> bytes:
            return await Storage(Settings()).read(parse_address(f"{scheme}://{bucket}/key"))

        assert run(work()) == b"here"


def test_credentials__of_obs_fall_back_to_those_of_s3(s3_server: S3Server, bucket: str) -> None:
    s3_server.put(bucket, "key", b"here")
    nothing = dict.fromkeys(s3_server.environment("OBS"))
    with variables(**nothing), variables(**s3_server.environment("AWS")):

        async def work() -> bytes:
            return await Storage(Settings()).read(parse_address(f"obs://{bucket}/key"))

        assert run(work()) == b"here"


def test_credentials__of_both_schemes_are_kept_apart(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    with S3Server(tmp_path / "second") as second:
        s3_server.put(bucket, "key", b"in s3")
        second.put(bucket, "key", b"in obs")
        both = {"s3": credentials_of(s3_server), "obs": credentials_of(second)}

        async def work() -> list[bytes]:
            storage = Storage(Settings(), both)
            return [await storage.read(parse_address(f"{scheme}://{bucket}/key")) for scheme in both]

        assert run(work()) == [b"in s3", b"in obs"]


async def failures(storage: Storage, root: str) -> list[ObjectError]:
    """What each verb says."""
    address = parse_address(f"{root}/key")
    output = OutputFolder(storage, parse_address(root), ".scratch")

    async def list_all() -> None:
        async for _ in storage.list(parse_address(root)):
            pass

    async def stream_all() -> None:
        async for _ in storage.stream(address):
            pass

    async def write_all() -> None:
        async with output.stream("large") as writer:
            for _ in range(3):
                await writer.write(bytes(8 << 20))

    errors = []
    for work in (
        storage.read(address), storage.size(address), storage.is_file(address), list_all(), stream_all(),
        storage.top(parse_address(root)), output.write("key", b"x"), write_all(), output.delete_files(["key"]),
        storage.delete(parse_address(root)),
    ):  # fmt: skip
        with pytest.raises(ObjectError) as raised:
            await work
        errors.append(raised.value)
    return errors


def test_denied__is_told_in_one_line_without_secrets(s3_server: S3Server, bucket: str) -> None:
    wrong = credentials_of(s3_server).model_copy(update={"secret_access_key": "wrong-secret"})
    credentials = Credentials.model_validate(wrong.model_dump() | {"secret_access_key": "wrong-secret"})

    async def work() -> list[ObjectError]:
        return await failures(Storage(Settings(), {"s3": credentials}), f"s3://{bucket}/in")

    for error in run(work()):
        said = one_line(error, "wrong-secret", s3_server.access_key, s3_server.secret_key)
        assert said.startswith("No permission (HTTP 403")
        assert not isinstance(error, Missing)


def test_missing_bucket__is_told_in_one_line(s3_server: S3Server) -> None:
    async def work() -> list[ObjectError]:
        storage = Storage(Settings(), {"s3": credentials_of(s3_server)})
        errors = []
        for verb in (storage.read, storage.size):
            with pytest.raises(ObjectError) as raised:
                await verb(parse_address("s3://no-such-bucket/key"))
            errors.append(raised.value)
        with pytest.raises(ObjectError) as raised:
            async for _ in storage.list(parse_address("s3://no-such-bucket/in")):
                pass
        return [*errors, raised.value]

    for error in run(work()):
        one_line(error, s3_server.access_key)
        assert isinstance(error, Missing)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_refused__is_told_in_one_line() -> None:
    endpoint = f"http://127.0.0.1:{closed_port()}"
    credentials = Credentials(endpoint_url=endpoint, access_key_id="the-access-key", secret_access_key="the-secret")

    async def work() -> ObjectError:
        with pytest.raises(ObjectError) as raised:
            await Storage(Settings(storage_retry_seconds=2), {"s3": credentials}).read(parse_address("s3://bucket/key"))
        return raised.value

    said = one_line(run(work()), "the-access-key", "the-secret")
    assert said == f"The storage {endpoint} cannot be reached: connection refused."


@pytest.mark.slow
def test_silent_storage__is_given_up_after_the_time_set(bucket: str) -> None:
    with OddS3Server({bucket: {"key": b"x"}}) as server:
        server.delay_seconds = 2

        async def work() -> ObjectError:
            storage = Storage(
                Settings(download_timeout_seconds=0.3, storage_retry_seconds=1), {"s3": odd_credentials(server)}
            )
            with pytest.raises(ObjectError) as raised:
                await storage.read(parse_address(f"s3://{bucket}/key"))
            return raised.value

        one_line(run(work()))


@pytest.mark.parametrize("status", [500, 503, 0])
def test_faltering_storage__is_asked_again(bucket: str, status: int) -> None:
    with OddS3Server({bucket: {"key": b"here"}}) as server:
        server.fail_next(status, times=2)

        async def work() -> bytes:
            return await Storage(Settings(), {"s3": odd_credentials(server)}).read(parse_address(f"s3://{bucket}/key"))

        assert run(work()) == b"here"
        assert len(server.lines) == 3
