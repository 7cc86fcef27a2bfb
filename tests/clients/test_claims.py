"""At most one process registers or deletes a version of a model."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from clients.places import Place
from clients.support import run

from tasks.clients.packages.claims import CLAIMS, STALE_SECONDS, claimed
from tasks.clients.storage.storage import Storage, open_storage
from tasks.domain.errors import CallError, SpecificationError
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

REFUSED = "digits 1 is being registered or deleted by another process at this moment"


async def taken(storage: Storage, root: str, version: str = "1") -> None:
    async with claimed(storage, parse_address(root), "my-models", "digits", version) as claim:
        await claim.check()


def test_claim__is_held_by_one_at_a_time(place: Place) -> None:
    root = f"{place.root}/store"

    async def both() -> None:
        async with open_storage(Settings(), place.credentials, 1) as storage:
            async with claimed(storage, parse_address(root), "my-models", "digits", "1"):
                await taken(storage, root, "2")
                with pytest.raises(SpecificationError, match=REFUSED):
                    await taken(storage, root)
            await taken(storage, root)

    run(both())


def test_claim__of_a_process_that_was_killed_is_taken_over(place: Place) -> None:
    if place.kind == "local":
        pytest.skip("the kernel releases a lock")
    mark = {"mark": "other", "at": 0.0}

    async def take(at: float) -> None:

        place.put(f"store/{CLAIMS}/my-models/digits/1", json.dumps({**mark, "at": time.time() - at}).encode())
        async with open_storage(Settings(), place.credentials, 1) as storage:
            await taken(storage, f"{place.root}/store")

    with pytest.raises(SpecificationError, match=REFUSED):
        run(take(STALE_SECONDS / 2))
    run(take(STALE_SECONDS + 1))
    assert [name for name in place.names() if CLAIMS in name] == []


def test_claim__that_another_has_taken_at_the_same_moment_is_lost(place: Place) -> None:
    if place.kind == "local":
        pytest.skip("a lock has one holder")
    key = f"store/{CLAIMS}/my-models/digits/1"

    async def lose() -> None:
        async with (
            open_storage(Settings(), place.credentials, 1) as storage,
            claimed(storage, parse_address(f"{place.root}/store"), "my-models", "digits", "1") as claim,
        ):
            there = json.loads(place.get(key))
            place.put(key, json.dumps({**there, "mark": "other"}).encode())
            with pytest.raises(SpecificationError, match=REFUSED):
                await claim.check()

    run(lose())
    assert json.loads(place.get(key))["mark"] == "other"


def test_claim__in_a_folder_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")

    async def take() -> None:
        async with open_storage(Settings(), {}, 1) as storage:
            await taken(storage, str(tmp_path / "store"))

    with pytest.raises(CallError, match="THRESHER_MODEL_STORE = "):
        run(take())
