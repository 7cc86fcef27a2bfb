"""Listing a big folder of an object storage: its order, its pages, and what is left out."""

from __future__ import annotations

import itertools

import pytest
from clients.places import credentials_of
from clients.support import run
from fakes.odd_s3_server import OddS3Server
from fakes.s3_proxy import Rule, S3Proxy
from fakes.s3_server import S3Server

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

_numbers = itertools.count()


def counted(proxy: S3Proxy, target: str) -> Rule:
    """A rule that only counts the requests whose target fits."""
    rule = proxy.add(Rule("hold", "GET", target))
    rule.release()
    return rule


def listed(server: OddS3Server | Credentials, folder: str) -> list[tuple[str, int]]:
    async def work() -> list[tuple[str, int]]:
        credentials = server
        if isinstance(server, OddS3Server):
            names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
            credentials = Credentials.model_validate({"endpoint_url": server.endpoint, **names})
        storage = Storage(Settings(), {"s3": credentials})
        try:
            return [(name, size) async for name, size, _ in storage.list(parse_address(folder))]
        finally:
            await storage.close()

    return run(work())


def test_a_folder_of_one_page_costs_one_request() -> None:
    with OddS3Server({"data": {f"in/{n % 3}/{n:03d}": b"x" for n in range(999)}}) as server:
        assert len(listed(server, "s3://data/in")) == 999
        assert len(server.lines) == 1


def test_big_sub_folders_are_listed_in_order_by_a_real_server(s3_server: S3Server) -> None:
    bucket = f"listing-{next(_numbers)}"
    s3_server.make_bucket(bucket)
    names = [f"{folder}/{n:04d}" for folder in ("a", "a.b", "b/c", "b/d e", "汉") for n in range(1500)]
    names += ["a0", "a-", "b/c0", "b/z", "0", "汉0"]
    for name in names:
        path = s3_server.folder / bucket / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    expected = [(name, 1) for name in sorted(names, key=str.encode)]
    with S3Proxy(s3_server.endpoint) as proxy:
        first, further = counted(proxy, "^(?!.*continuation)"), counted(proxy, "continuation")
        through = credentials_of(s3_server).model_copy(update={"endpoint_url": proxy.endpoint})
        assert listed(through, f"s3://{bucket}/in") == expected
        assert listed(through, f"s3://{bucket}/") == [(f"in/{name}", 1) for name, _ in expected]
    assert (first.seen, further.seen) == (2, 2 * 7)  # 7,506 keys, twice: nothing was listed from its beginning again


def test_sub_folders_of_any_name_are_listed_in_order() -> None:
    names = ["a b", "a%b", "a%20b", "a%2Fb", "a#b", "a?b", "a+b", "a'b", "a&b=c", "a\\b", "*", "😀", "é", "~a", "a..b"]
    keys = {f"in/{name}/{n:04d}": b"x" for name in names for n in range(1100)}
    keys |= {f"in/{name}{ending}": b"x" for name in names for ending in ("", "0", ".", "/\U0010ffff\U0010ffff")}
    with OddS3Server({"data": keys}) as server:
        found = listed(server, "s3://data/in")
    assert found == [(key[3:], 1) for key in sorted(keys, key=str.encode)]


def test_a_key_that_only_s3fs_can_say_among_big_sub_folders() -> None:
    keys = {f"in/{folder}/{n:04d}": b"x" for folder in "abc" for n in range(1500)} | {"in/b//odd": b"x"}
    with OddS3Server({"data": keys}) as server:
        found = listed(server, "s3://data/in")
    assert found == [(key[3:], 1) for key in sorted(keys)]


def test_placeholders_and_empty_objects_among_big_sub_folders() -> None:
    keys = {f"in/{folder}/{n:04d}": b"x" for folder in "abc" for n in range(1500)}
    keys |= {"in/": b"", "in/a": b"", "in/a.x": b"", "in/a/": b"", "in/b/": b"", "in/c/e/": b"", "in/c/e": b""}
    with OddS3Server({"data": keys}) as server:
        found = listed(server, "s3://data/in")
    expected = [key for key in sorted(keys) if not key.endswith("/")]
    assert found == [(key[3:], len(keys[key])) for key in expected]


def test_a_listing_that_fails_on_a_further_page_says_so_in_one_line() -> None:
    keys = {f"in/{folder}/{n:04d}": b"x" for folder in "abc" for n in range(2500)}
    with OddS3Server({"data": keys}) as server:
        listing = server.listing

        def refusing(bucket: str, query: dict[str, str]) -> str:
            if "continuation-token" in query:
                server.fail_next(403)
            return listing(bucket, query)

        server.listing = refusing  # type: ignore[method-assign]
        with pytest.raises(ObjectError, match="No permission"):
            listed(server, "s3://data/in")


SLASHES = {
    "in/": b"", "in/dir/": b"", "in/dir/1": b"1", "in/full-x": b"1", "in/full/": b"12", "in/full/2": b"2",
    "in/k": b"kk", "in/k/": b"12345", "in/lone/": b"12345", "in/z": b"",
}  # fmt: skip
TOLD = [("dir/1", 1), ("full-x", 1), ("full/2", 1), ("k", 2), ("lone", 5), ("z", 0)]


@pytest.mark.parametrize("way", ["one page", "several pages", "s3fs"])
def test_keys_that_end_in_a_slash_are_told_alike_whichever_way_they_are_listed(way: str) -> None:
    keys, told = dict(SLASHES), list(TOLD)
    if way == "s3fs":
        keys["in//odd"] = b"1"
        told.append(("/odd", 1))
    elif way == "several pages":
        big = {f"big/{n:04d}": b"x" for n in range(1500)}
        keys |= {f"in/{key}": data for key, data in big.items()} | {"in/big/0007/": b"", "in/big/0009/": b"12"}
        told += [(key, 1) for key in big]
    with OddS3Server({"data": keys}) as server:
        assert sorted(listed(server, "s3://data/in")) == sorted(told)


def test_a_folder_of_which_there_is_only_the_placeholder_is_empty() -> None:
    with OddS3Server({"data": {"in/": b"", "in-x": b"1"}}) as server:
        assert listed(server, "s3://data/in") == []
        assert listed(server, "s3://data/in/") == []


def test_a_placeholder_that_is_not_empty_is_called_so_when_it_is_read() -> None:
    with OddS3Server({"data": {"in/lone/": b"12345"}}) as server:

        async def work() -> None:
            names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
            credentials = Credentials.model_validate({"endpoint_url": server.endpoint, **names})
            storage = Storage(Settings(), {"s3": credentials})
            try:
                await storage.read(parse_address("s3://data/in/lone"), None, 5)
            finally:
                await storage.close()

        with pytest.raises(ObjectError, match=r"It is the placeholder of a folder: its key is in/lone/\."):
            run(work())
