"""Proxy variables: this machine's own servers are never behind them, and the one that is asked can be named."""

from __future__ import annotations

import os

import httpx
import pytest

from tasks.clients.surroundings.proxies import is_loopback, proxy_for, spare_loopback


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        for one in (name, name.lower()):
            monkeypatch.setenv(one, "")  # so that what the code sets is taken back
            monkeypatch.delenv(one)


def test_spare_loopback__without_a_proxy_changes_nothing():
    before = dict(os.environ)
    spare_loopback()
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.example, localhost"}, "a.example,localhost,127.0.0.1,::1"),
        ({"no_proxy": "a.example"}, "a.example,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_spare_loopback__keeps_what_the_user_has(monkeypatch, given, wanted):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:1")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    spare_loopback()
    spare_loopback()
    assert os.environ.get("NO_PROXY", wanted) == os.environ.get("no_proxy", wanted) == wanted
    for url in ("http://127.0.0.1:4200/api", "http://localhost:4200/api"):
        with httpx.Client() as client:
            assert client._transport_for_url(httpx.URL(url)) is client._transport


def test_spare_loopback__leaves_the_proxy_to_other_hosts(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:1")
    spare_loopback()
    assert proxy_for("http://prefect.example/api") == "HTTP_PROXY=http://proxy:1"
    assert proxy_for("http://127.0.0.1:4200/api") == ""


@pytest.mark.parametrize("value", ["http://user:hidden@proxy:1", "user:hidden@proxy:1"])
def test_proxy_for__names_the_variable_without_its_password(monkeypatch, value):
    monkeypatch.setenv("all_proxy", value)
    assert proxy_for("https://prefect.example/api") == "all_proxy=http://proxy:1"


def test_is_loopback__of_addresses():
    assert (
        is_loopback("http://127.0.0.1:4200/api") and is_loopback("http://[::1]/api") and is_loopback("http://localhost")
    )
    assert not is_loopback("http://prefect.example/api") and not is_loopback("http://[") and not is_loopback("nonsense")
