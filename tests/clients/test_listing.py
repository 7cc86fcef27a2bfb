"""Listing a big folder of an object storage: its order, what is asked for, and how often somebody waits for it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest
from clients.places import credentials_of
from clients.support import run
from fakes.odd_s3_server import OddS3Server
from fakes.s3_proxy import Rule, S3Proxy
from fakes.s3_server import S3Server
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.listing import PAGES_AHEAD, PARTS_AT_ONCE, Listing, Page, StartAfterIgnored
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings


@pytest.fixture(autouse=True)
def _servers_that_list_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRESHER_SORTED_STORAGE_HOSTS", "127.0.0.1")


IDLE_TURNS = 30
"""Turns of the loop after which nobody will ask for anything more until an answer comes."""


class Paged:
    """Keys that are told page by page. All who wait are answered at the same time: that is one round trip."""

    def __init__(self, keys: list[str], page_keys: int) -> None:
        self.keys = sorted(keys)
        self.page_keys = page_keys
        self.asked: list[tuple[str, str]] = []
        """Folder, and the key behind which a page begins."""
        self.open = 0
        self.round_trips = 0
        self.fails_at = ""
        self._waiting: list[asyncio.Future[None]] = []

    async def ask(self, folder: str, after: str | None) -> AsyncGenerator[Page]:
        self.open += 1
        try:
            found = [key for key in self.keys if key.startswith(folder) and key > (after or "")]
            for start in range(0, max(1, len(found)), self.page_keys):
                page = found[start : start + self.page_keys]
                self.asked.append((folder, found[start - 1] if start else after or ""))
                self._waiting.append(asyncio.get_running_loop().create_future())
                await self._waiting[-1]
                if self.fails_at and self.fails_at in page:
                    raise ValueError(self.fails_at)
                if page:
                    yield page, [len(key) for key in page], [hash(key) for key in page]
        finally:
            self.open -= 1

    async def settle(self, *, answer: bool = True) -> bool:
        """Wait until nothing moves any more; answer those who wait. False if nobody does."""
        for _ in range(IDLE_TURNS):
            await asyncio.sleep(0)
        waiting, self._waiting = self._waiting, []
        if not answer:
            self._waiting = waiting
            return bool(waiting)
        for one in waiting:
            if not one.done():
                one.set_result(None)
        self.round_trips += bool(waiting)
        return bool(waiting)

    def listing(self, folder: str = "") -> Listing:
        return Listing(self.ask, folder, self.page_keys)

    def answered(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What comes of ``work`` while everybody who asks is answered."""

        async def both() -> Any:
            doing = asyncio.create_task(work())
            while not doing.done():
                await self.settle()
            return await doing

        return run(both())

    def all_of(self, folder: str = "") -> list[tuple[str, int, int]]:
        """A whole listing."""

        async def work() -> list[tuple[str, int, int]]:
            return [one async for page in self.listing(folder).pages() for one in page]

        found: list[tuple[str, int, int]] = self.answered(work)
        return found


def tree(folders: int, files: int, top: str = "in/") -> list[str]:
    return [f"{top}{folder:03d}/{file:05d}" for folder in range(folders) for file in range(files)]


keys = st.lists(st.text("ab/.0", min_size=1, max_size=7).filter(lambda key: "//" not in f"/{key}/"), unique=True)


@given(keys, st.lists(st.sampled_from("ab/"), max_size=3), st.integers(3, 5))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_listing__has_every_key_once_and_in_order(found: list[str], above: list[str], page_keys: int) -> None:
    folder = "/".join(above).replace("//", "").strip("/")
    folder = f"{folder}/" if folder else ""
    # Many keys of a few folders, so that folders get parts of their own.
    made = {f"{folder}{key}{ending}" for key in found for ending in ("", "/x", "/y", "/y/z", ".x", "0")} | set(found)
    storage = Paged([*made], page_keys)
    assert storage.all_of(folder) == [(key, len(key), hash(key)) for key in storage.keys if key.startswith(folder)]
    assert storage.open == 0
    pages = -(-len([key for key in made if key.startswith(folder)]) // page_keys)
    assert len(storage.asked) <= max(1, 6 * pages)


@pytest.mark.parametrize("files", [0, 1, 9])
def test_listing__of_one_page_asks_once(files: int) -> None:
    storage = Paged(tree(1, files), 10)
    assert len(storage.all_of("in/")) == files
    assert storage.asked == [("in/", "")]


def test_listing__asks_for_nothing_more_before_the_first_page_is_used_up() -> None:
    storage = Paged(tree(5, 100), 10)

    async def work() -> None:
        async with aclosing(storage.listing("in/").pages()) as pages:
            assert len(await anext(pages)) == 10
            assert not await storage.settle(answer=False)

    storage.answered(work)
    assert (storage.asked, storage.open) == ([("in/", "")], 0)


def test_listing__of_a_flat_folder_asks_page_by_page() -> None:
    storage = Paged(tree(1, 500, top=""), 10)
    assert len(storage.all_of("000/")) == 500
    assert (len(storage.asked), storage.round_trips) == (50, 50)


@pytest.mark.parametrize("top", ["in/", "in/deep/er/"])
def test_listing__of_big_sub_folders_waits_for_them_at_the_same_time(top: str) -> None:
    storage = Paged(tree(40, 100, top), 10)
    assert len(storage.all_of("in/")) == 4000
    # 400 pages, and one more where each sub-folder ends.
    assert len(storage.asked) <= 400 + 40 + 2 + top.count("/")
    assert storage.round_trips <= 400 / 4


def test_listing__of_small_sub_folders_asks_as_often_as_page_by_page() -> None:
    storage = Paged(tree(400, 7), 10)
    assert len(storage.all_of("in/")) == 2800
    assert len(storage.asked) == 280


def test_listing__reads_ahead_within_bounds() -> None:
    storage = Paged(tree(60, 5_000), 10)

    async def work() -> None:
        async with aclosing(storage.listing("in/").pages()) as pages:
            for _ in range(2):
                taking = asyncio.ensure_future(anext(pages))
                while await storage.settle():
                    pass
                assert taking.done()
            assert storage.open <= PARTS_AT_ONCE + 1
            assert 2 * PAGES_AHEAD - PARTS_AT_ONCE < len(storage.asked) <= 2 * PAGES_AHEAD + 3 * PARTS_AT_ONCE

    run(work())
    assert storage.open == 0


def test_listing__tells_of_a_fault_where_it_is() -> None:
    storage = Paged(tree(10, 100), 10)
    storage.fails_at = "in/004/00050"
    told: list[str] = []

    async def work() -> None:
        async with aclosing(storage.listing("in/").pages()) as pages:
            async for page in pages:
                told.extend(key for key, _, _ in page)

    with pytest.raises(ValueError, match="in/004/00050"):
        storage.answered(work)
    assert told == [key for key in storage.keys if key < storage.fails_at]
    assert storage.open == 0


def test_listing__that_is_cancelled_asks_for_nothing_more() -> None:
    storage = Paged(tree(40, 100), 10)

    async def all_pages() -> None:
        async for _ in storage.listing("in/").pages():
            pass

    async def work() -> None:
        listing = asyncio.create_task(all_pages())
        for _ in range(5):
            await storage.settle()
        assert storage.open > 1
        listing.cancel()
        await asyncio.gather(listing, return_exceptions=True)
        assert listing.cancelled() and storage.open == 0
        assert {one for one in asyncio.all_tasks() if one is not asyncio.current_task()} == set()

    asyncio.run(work())


def test_listing__finds_out_that_a_storage_begins_where_it_likes() -> None:
    storage = Paged(tree(10, 100), 10)
    ask = storage.ask
    storage.ask = lambda folder, after: ask(folder, None)  # type: ignore[method-assign]
    with pytest.raises(StartAfterIgnored):
        storage.all_of("in/")


# --- with servers


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
        first, behind = counted(proxy, "^(?!.*(start-after|continuation))"), counted(proxy, "start-after")
        through = credentials_of(s3_server).model_copy(update={"endpoint_url": proxy.endpoint})
        assert listed(through, f"s3://{bucket}/in") == expected
        assert listed(through, f"s3://{bucket}/") == [(f"in/{name}", 1) for name, _ in expected]
    assert first.seen == 2  # it begins where it is told, so nothing was listed from its beginning again
    assert behind.seen >= 8


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


def test_a_storage_that_begins_where_it_likes_is_listed_page_by_page() -> None:
    keys = {f"in/{folder}/{n:04d}": b"x" for folder in "abc" for n in range(2500)}
    with OddS3Server({"data": keys}) as server:
        listing = server.listing
        server.listing = lambda bucket, query: listing(  # type: ignore[method-assign]
            bucket, {name: value for name, value in query.items() if name != "start-after"}
        )
        assert listed(server, "s3://data/in") == [(key[3:], 1) for key in sorted(keys)]


def test_a_listing_that_fails_behind_says_so_in_one_line() -> None:
    keys = {f"in/{folder}/{n:04d}": b"x" for folder in "abc" for n in range(2500)}
    with OddS3Server({"data": keys}) as server:
        listing = server.listing

        def refusing(bucket: str, query: dict[str, str]) -> str:
            if "start-after" in query:
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


@pytest.mark.parametrize("way", ["one page", "in parallel", "page by page", "s3fs"])
def test_keys_that_end_in_a_slash_are_told_alike_whichever_way_they_are_listed(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, told = dict(SLASHES), list(TOLD)
    if way == "s3fs":
        keys["in//odd"] = b"1"
        told.append(("/odd", 1))
    elif way != "one page":
        big = {f"big/{n:04d}": b"x" for n in range(1500)}
        keys |= {f"in/{key}": data for key, data in big.items()} | {"in/big/0007/": b"", "in/big/0009/": b"12"}
        told += [(key, 1) for key in big]
    if way == "page by page":
        monkeypatch.delenv("THRESHER_SORTED_STORAGE_HOSTS")
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
