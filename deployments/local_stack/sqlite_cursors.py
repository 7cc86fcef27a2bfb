"""A SQLAlchemy plugin that prevents a deadlock in a Prefect server on SQLite.

With ``?plugin=thresher-sqlite`` at the end of the server's ``PREFECT_API_DATABASE_CONNECTION_URL``, the cursor of a
failed statement is closed at once, in the thread of its connection.

Without it, SQLAlchemy's dialect for aiosqlite leaves the open cursor to the traceback of the error, and so to the
garbage collector. The collector may run on the server's event loop while another task waits on the same connection for
the database's lock. Finalizing the cursor takes the connection's mutex, so the event loop waits for that task, the task
for the holder of the lock, and the holder for the event loop. The server hangs until SQLite gives up after a minute
("database is locked"), and requests are refused with 503.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import CreateEnginePlugin

PLUGIN = "thresher-sqlite"
"""The plugin's name in a connection URL: the entry point in pyproject.toml."""
_T = TypeVar("_T")


def sqlite_url(database: Path) -> str:
    """Connection URL of a Prefect server's database in this file, with the plugin."""
    return sa.URL.create(
        "sqlite+aiosqlite", database=str(database.absolute()), query={"plugin": PLUGIN}
    ).render_as_string()


class SqliteCursors(CreateEnginePlugin):
    """Closes the cursor of a statement as soon as it fails."""

    def __init__(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        """Use sqlite3's own hook, ``factory``, to create the connections of an engine."""
        kwargs["connect_args"] = {**kwargs.get("connect_args", {}), "factory": _Connection}

    def update_url(self, url: sa.URL) -> sa.URL:
        """The URL unchanged: the plugin has no parameters."""
        return url


class _Cursor(sqlite3.Cursor):
    def execute(self, *statement: Any) -> _Cursor:
        return self._closed_if_it_fails(super().execute, *statement)

    def executemany(self, *statement: Any) -> _Cursor:
        return self._closed_if_it_fails(super().executemany, *statement)

    def fetchall(self) -> list[Any]:
        return self._closed_if_it_fails(super().fetchall)

    def _closed_if_it_fails(self, work: Callable[..., _T], *arguments: Any) -> _T:
        try:
            return work(*arguments)
        except BaseException:
            self.close()
            raise


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)
