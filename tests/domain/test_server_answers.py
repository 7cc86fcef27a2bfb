"""What comes in the place of a Prefect server's version is one line that names the address and what came."""

from __future__ import annotations

import pytest

from tasks.domain.server_answers import unlike_an_api

URL = "http://h/api"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (200, "is not the API of a Prefect server: its address ends in /api."),
        (404, "is not the API of a Prefect server: its address ends in /api."),
        (302, "it answers HTTP 302 Found, to http://login/."),
        (502, "cannot be reached (HTTP 502 Bad Gateway). That is the answer of a gateway"),
        (503, "cannot be reached (HTTP 503 Service Unavailable). That is the answer of a gateway"),
        (407, "cannot be reached (HTTP 407 Proxy Authentication Required). The proxy wants"),
        (418, "answers HTTP 418 I'm a Teapot when it is asked"),
        (599, "answers HTTP 599 when it is asked"),
    ],
)
def test_answer__that_is_no_version_names_address_and_status(status: int, said: str) -> None:
    found = unlike_an_api(URL, status, "http://login/" if status == 302 else "")
    assert URL in found and said in found and "\n" not in found
