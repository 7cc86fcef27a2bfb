"""External model servers that are already running: whether they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.clients.model_http.health import NOT_ALLOWED, ask_health
from tasks.clients.model_http.http_reply import NO_SUCH_HOST, NO_TLS
from tasks.domain.errors import ModelServerError, ServerAway
from tasks.domain.package import Health
from tasks.domain.paths import redact
from tasks.domain.running_address import health_base

NO_HEALTH_ADDRESS = {"HTTP 400", "HTTP 404", "HTTP 405", "HTTP 501"}
"""Answers of a server that is up but has no such address, or no GET there."""
_FINAL = ("HTTP 3", "HTTP 4", NO_SUCH_HOST, NO_TLS)
"""Prefixes of answers that waiting does not change. This includes redirects: they lead elsewhere."""
_MAY_PASS = ("HTTP 408", "HTTP 425", "HTTP 429")
_LONGEST_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 15.0


@dataclass(frozen=True)
class RunningServer:
    """One such server. ``headers`` are secret."""

    address: str
    health: Health
    request_path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def ask(self) -> str:
        """Check its health: empty if it is up, else the problem."""
        base = health_base(self.address, self.request_path)
        detail = await ask_health(base, self.health.url, self.health.timeout_seconds, self.headers)
        return "" if detail in NO_HEALTH_ADDRESS else detail

    def error(self, detail: str) -> ModelServerError:
        """The error for a server that answered ``detail``."""
        named, asked = redact(self.address), self.health.url
        if detail in NOT_ALLOWED:
            return ModelServerError(
                f"The model server {named} answered {detail} to GET {asked}: the service's headers should have what it "
                "asks for (Authorization ...), or health.url in model_config be an address that asks for nothing."
            )
        return ModelServerError(f"The model server {named} is not healthy (GET {asked}: {detail}).")

    async def there(self) -> None:
        """Wait until it is up. Raises ModelServerError for an answer that waiting does not change."""
        pause = min(_LONGEST_FIRST_PAUSE_SECONDS, self.health.period_seconds)
        while detail := await self.ask():
            if is_final(detail):
                raise self.error(detail)
            await asyncio.sleep(pause)
            pause = max(pause, min(pause * 1.3, self.health.period_seconds))


def is_final(detail: str) -> bool:
    """Whether waiting would not change this answer to a health check: the address or the service is wrong."""
    return detail.startswith(_FINAL) and not detail.startswith(_MAY_PASS)


async def first_there(
    servers: Sequence[RunningServer], timeout_seconds: float, on_wait: Callable[[str], None] = lambda cause: None
) -> list[RunningServer]:
    """The servers that are up, at least one; all are checked again until the time-out.

    ``on_wait`` is called with the problem whenever no server is up. Raises ModelServerError at once for an answer that
    waiting does not change (401, 403, a redirect, an unknown host), and ServerAway if no server is up in time.
    """
    time = asyncio.get_running_loop().time
    deadline = time() + timeout_seconds
    pause = min(_LONGEST_FIRST_PAUSE_SECONDS, servers[0].health.period_seconds)
    while True:
        detail = await asyncio.gather(*(server.ask() for server in servers))
        answers = list(zip(servers, detail, strict=True))
        for server, one in answers:
            if is_final(one):
                raise server.error(one)
        if found := [server for server, one in answers if not one]:
            return found
        on_wait(detail[0])
        if (left := deadline - time()) <= 0:
            raise ServerAway(" ".join(str(server.error(one)) for server, one in answers))
        await asyncio.sleep(min(pause, left))
        pause = max(pause, min(pause * 1.3, servers[0].health.period_seconds, _LONGEST_PAUSE_SECONDS))
