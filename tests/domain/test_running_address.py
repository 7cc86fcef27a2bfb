"""Addresses of model servers that already run."""

from __future__ import annotations

import pytest

from tasks.domain.running_address import asked, health_base, running_addresses

SECRET = "hunter22"


@pytest.mark.parametrize(
    ("model", "addresses"),
    [
        ("http://host", ["http://host"]),
        ("http://a:1 https://b/x\n http://c", ["http://a:1", "https://b/x", "http://c"]),
        ("http://host/a http://host/b", ["http://host/a", "http://host/b"]),
        ("http://[::1]:80/a@b", ["http://[::1]:80/a@b"]),
        ("HTTP://host/v1/x:predict?api-version=1", ["HTTP://host/v1/x:predict?api-version=1"]),
    ],
)
def test_model__may_be_one_address_or_several(model: str, addresses: list[str]) -> None:
    assert running_addresses(model) == addresses


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (f"http://user:{SECRET}@host", "use headers"),
        (f"http://{SECRET}@host:80/x", "use headers"),
        (f"http://user:{SECRET}@/x", "use headers"),
        (f"http://a http://:{SECRET}@b", "use headers"),
        ("http://a, http://b", "no commas"),
        ("http://a iris", "all be http:// or https://"),
        ("http://a s3://b/c", "all be http:// or https://"),
        ("http://", "http(s)://host"),
        ("http:///x", "http(s)://host"),
        ("http://host:0", "http(s)://host"),
        ("http://host:66000", "http(s)://host"),
        (f"http://user:{SECRET}/x@host", "http(s)://host"),
        ("http://[::1", "http(s)://host"),
        ("http://" + "a" * 70 + ".org", "http(s)://host"),
        ("http://a:80 http://A/", "http://A/ stands twice"),
        ("http://a/x http://b http://a/x/", "http://a/x/ stands twice"),
        (f"http://a?key={SECRET} http://a?key={SECRET}", "http://a stands twice"),
    ],
)
def test_model__of_a_wrong_address_is_refused_without_its_secrets(model: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        running_addresses(model)
    assert said in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "path", "found"),
    [
        ("http://h", "/", "http://h/"),
        ("http://h/", "/", "http://h/"),
        ("http://h", "/x", "http://h/x"),
        ("http://h/", "/x", "http://h/x"),
        ("http://h/v1/x:predict", "/", "http://h/v1/x:predict"),
        ("http://h/models/a/", "/", "http://h/models/a/"),
        ("http://h/models/a/", "/x?q=1", "http://h/models/a/x?q=1"),
        ("http://h/score?api-version=1", "/", "http://h/score?api-version=1"),
        ("http://h/a?k=1#part", "/x?q=1", "http://h/a/x?k=1&q=1"),
    ],
)
def test_path__of_an_address_is_kept(address: str, path: str, found: str) -> None:
    assert asked(address, path).geturl() == found


@pytest.mark.parametrize(
    ("address", "request_path", "base"),
    [
        ("http://h:8080", "/", "http://h:8080"),
        ("http://h/", "/", "http://h/"),
        ("http://h/v1/x:predict", "/", "http://h"),
        ("http://h/models/a/", "/", "http://h/models/a/"),
        ("http://h/models/a", "/predict", "http://h/models/a"),
        ("http://h/score?key=1", "/", "http://h"),
    ],
)
def test_health__is_asked_where_the_apis_are_or_at_the_top_of_the_host(
    address: str, request_path: str, base: str
) -> None:
    assert health_base(address, request_path) == base
