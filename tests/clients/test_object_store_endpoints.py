"""Endpoints of object storages: nonsense is refused in plain words, before a library meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.support import run
from fakes.odd_s3_server import OddS3Server

from tasks.clients.endpoints import credentials_of
from tasks.clients.failures import ObjectError
from tasks.clients.object_store import Bucket
from tasks.clients.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import parse_address
from tasks.settings import Settings

KEYS = {"access_key_id": "a" * 20, "secret_access_key": "b" * 40}


@pytest.mark.parametrize(
    "endpoint",
    ["https://not a url", "http://", "http://x:99999", "http://x:abc", "https://[::1", "ftp://x", "http://a/b c", "x",
     "http://x\ny", "http://x/?a=b", "http://x#a", "http://x:0", "http://\u4f60\u597d"],
)  # fmt: skip
def test_bucket__at_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ObjectError, match=r"should be http\(s\)://host\[:port\]"):
        Bucket("bucket", Credentials(endpoint_url=endpoint, **KEYS), 5)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9000",
        "https://obs.cn-north-4.example.com",
        "http://[::1]:9000",
        "HTTPS://S3.example.com/base/",
    ],
)
def test_bucket__takes_every_address(endpoint: str) -> None:
    run(Bucket("bucket", Credentials(endpoint_url=endpoint, **KEYS), 5).close())


OBS_ALONE = {"OBS_ACCESS_KEY_ID": "a" * 20, "OBS_SECRET_ACCESS_KEY": "b" * 40}


@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_storage__with_keys_of_obs_alone_takes_s3_addresses_for_its_own(
    scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with OddS3Server({"data": {"in/1.csv": b"1"}}) as server:
        for name, value in (OBS_ALONE | {"OBS_ENDPOINT_URL": server.endpoint}).items():
            monkeypatch.setenv(name, value)

        async def work() -> list[str]:
            storage = Storage(Settings())
            try:
                return [name async for name, _, _ in storage.list(parse_address(f"{scheme}://data/in"))]
            finally:
                await storage.close()

        assert run(work()) == ["1.csv"]


@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_storage__of_obs_without_endpoint_and_region_is_refused_in_one_line(
    scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in OBS_ALONE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ObjectError, match="set OBS_ENDPOINT_URL, or OBS_REGION to a region"):
        Storage(Settings()).bucket(parse_address(f"{scheme}://data/in"))
    monkeypatch.setenv("OBS_REGION", "cn-north-4")
    found = credentials_of(scheme, {})
    assert found.endpoint_url == "https://obs.cn-north-4.myhuaweicloud.com"
