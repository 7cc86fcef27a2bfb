"""``thresher pools``: resource pools on the Prefect server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from deployments.terminal.output import AsJson, print_json, print_result, print_rows, print_text, quietly

if TYPE_CHECKING:
    from deployments.set_up.pools import PoolState

app = App(
    name="pools",
    help_format="markdown",
    help="Resource pools: apply their files to the Prefect server, list them, show one.",
)


@app.command
@quietly
def apply(folder: Path | None = None, /, *, as_json: AsJson = False) -> None:
    """Create or change the pools of a folder's files on the Prefect server, and what belongs to them.

    That is the form that deploys services, and the automations that find runs whose process has vanished.

    Parameters
    ----------
    folder
        The folder of pool files (*.yaml); default: THRESHER_POOLS, else the project's infra/pools.
    """
    from deployments.set_up.pools import apply_pools

    _print(apply_pools(folder), as_json)


@app.command(name="list")
@quietly
def list_pools(*, as_json: AsJson = False) -> None:
    """List the resource pools of the Prefect server: kind, access, status, limit of runs, flavors, contact."""
    from deployments.set_up import pools

    _print(pools.list_pools(), as_json)


@app.command
@quietly
def show(name: str, /, *, as_json: AsJson = False) -> None:
    """Show one resource pool: its flavors with CPU, memory, accelerators and price, its workers, its page.

    Parameters
    ----------
    name
        The pool's name.
    """
    from deployments.set_up.pools import show_pool

    pool = show_pool(name)
    if as_json:
        print_json(pool.model_dump(mode="json"))
        return
    limit = "no limit" if pool.max_runs is None else f"at most {pool.max_runs}"
    facts = [
        ("name", pool.name), ("kind", pool.kind), ("access", pool.access), ("contact", pool.contact),
        ("status", pool.status), ("runs", limit), ("workers", ", ".join(pool.workers) or "none"), ("page", pool.page),
    ]  # fmt: skip
    print_rows(facts)
    print_text("\n")
    print_rows(
        [
            ("flavor", "cpu", "memory_gb", "accelerators", "price_per_hour"),
            *((one.name, f"{one.cpu:g}", f"{one.memory_gb:g}", one.accelerators, one.price_per_hour)
              for one in pool.flavors),
        ]
    )  # fmt: skip


def _print(found: list[PoolState], as_json: bool) -> None:
    rows = [
        (one.name, one.kind, one.access, one.status, "" if one.max_runs is None else f"max {one.max_runs} runs",
         ", ".join(flavor.name for flavor in one.flavors), one.contact)
        for one in found
    ]  # fmt: skip
    print_result(found, rows, as_json=as_json)
