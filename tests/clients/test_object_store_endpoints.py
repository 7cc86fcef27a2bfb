"""Endpoints of object storages: nonsense is refused in plain words, before a library meets it."""

from __future__ import annotations

import pytest
from clients.support import run

from tasks.clients.failures import ObjectError
from tasks.clients.object_store import Bucket
from tasks.domain.credentials import Credentials

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
