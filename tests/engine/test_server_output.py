from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.runs import make_run

from tasks.clients.logs.log_store import KEPT_DAYS
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.masking import Masker
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings
from tasks.engine.server_output import PART_BYTES, FullText, ServerOutputs


def kept(tmp_path: Path, lines: list[str], times: int = 1) -> dict[str, str]:
    (tmp_path / "out").mkdir(exist_ok=True)

    async def write() -> None:
        storage = Storage(Settings(), {})
        for _ in range(times):
            full = FullText(OutputFolder(storage, parse_address(str(tmp_path / "out")), ".scratch"), "logs", 3)
            await full.add(lines)
            await full.close()
        await storage.close()

    asyncio.run(write())
    return {path.name: path.read_text() for path in sorted((tmp_path / "out" / "logs").glob("*"))}


def test_full_text__is_one_file_an_instance(tmp_path: Path) -> None:
    assert kept(tmp_path, ["one", "", "two"]) == {"instance-3.log": "one\n\ntwo\n"}


def test_full_text__of_a_run_that_is_tried_again_stands_beside_the_first(tmp_path: Path) -> None:
    assert kept(tmp_path, ["one"], times=3) == {
        "instance-3.log": "one\n",
        "instance-3_1.log": "one\n",
        "instance-3_2.log": "one\n",
    }


def test_full_text__goes_on_in_parts(tmp_path: Path) -> None:
    async def write() -> None:
        (tmp_path / "out").mkdir()
        storage = Storage(Settings(), {})
        full = FullText(OutputFolder(storage, parse_address(str(tmp_path / "out")), ".scratch"), "logs", 0)
        line = "x" * (PART_BYTES // 2)
        for _ in range(3):
            await full.add([line])
        await full.close()
        await storage.close()

    asyncio.run(write())
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out" / "logs").glob("*")}
    assert sizes == {"instance-0.log": PART_BYTES + 2, "instance-0_1.log": PART_BYTES // 2 + 1}


def test_full_text__that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where a folder should be")

    async def write() -> None:
        storage = Storage(Settings(), {})
        full = FullText(OutputFolder(storage, parse_address(str(tmp_path / "out")), ".scratch"), "logs", 0)
        await full.add(["one"])
        await full.close()
        await storage.close()

    asyncio.run(write())


def test_server_outputs__clear_the_log_store_when_they_begin(tmp_path: Path) -> None:
    too_old = datetime.now(UTC) - timedelta(days=KEPT_DAYS, minutes=1)
    old = tmp_path / "logs" / "other" / "stream" / f"{int(too_old.timestamp() * 1000):013d}-000000.jsonl"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x")

    async def work() -> None:
        settings = Settings(log_store=str(tmp_path / "logs"))
        storage = Storage(settings, {})
        run = make_run("http://127.0.0.1:1", str(tmp_path / "out"), runtime_log_output=True)
        outputs = ServerOutputs(run, settings, storage, OutputFolder(storage, run.output_address, ".scratch"), print)
        outputs.follow(0, tmp_path / "log", Masker())
        async with asyncio.timeout(60):
            while old.exists():
                await asyncio.sleep(0.01)
        await outputs.close()
        await storage.close()

    asyncio.run(work())
