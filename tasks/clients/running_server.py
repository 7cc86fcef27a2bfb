"""Model servers that run already, elsewhere: whether they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.clients.health import ask_health
from tasks.clients.http_reply import NO_SUCH_HOST, NO_TLS
from tasks.domain.errors import ModelServerError, ServerAway
from tasks.domain.package import Health
from tasks.domain.paths import redact
from tasks.domain.running_address import health_base

NO_HEALTH_ADDRESS = {"HTTP 400", "HTTP 404", "HTTP 405", "HTTP 501"}
"""Said by a server that knows no such address, or no GET there: it is there."""
NOT_ALLOWED = ("HTTP 401", "HTTP 403")
_FINAL = ("HTTP 3", "HTTP 4", NO_SUCH_HOST, NO_TLS)
"""How an answer begins that waiting does not change: redirects, too, lead elsewhere."""
_MAY_PASS = ("HTTP 408", "HTTP 425", "HTTP 429")
_LONGEST_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 15.0


@dataclass(frozen=True)
class RunningServer:
    """One of them. ``headers`` are secret."""

    address: str
    health: Health
    request_path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def ask(self) -> str:
        """Ask for its health: empty if it is there, else what is wrong."""
        base = health_base(self.address, self.request_path)
        said = await ask_health(base, self.health.url, self.health.timeout_seconds, self.headers)
        return "" if said in NO_HEALTH_ADDRESS else said

    def error(self, said: str) -> ModelServerError:
        """What is told of a server that has ``said`` this."""
        named, asked = redact(self.address), self.health.url
        if said in NOT_ALLOWED:
            return ModelServerError(
                f"The model server {named} answered {said} to GET {asked}: the service's headers should have what it "
                "asks for (Authorization ...), or health.url in model_config be an address that asks for nothing."
            )
        return ModelServerError(f"The model server {named} is not healthy (GET {asked}: {said}).")

    async def there(self) -> None:
        """Wait until it is there. Raises ModelServerError if it has an answer that waiting does not change."""
        pause = min(_LONGEST_FIRST_PAUSE_SECONDS, self.health.period_seconds)
        while said := await self.ask():
            if is_final(said):
                raise self.error(said)
            await asyncio.sleep(pause)
            pause = max(pause, min(pause * 1.3, self.health.period_seconds))


def is_final(said: str) -> bool:
    """Whether waiting does not change what was found of a server's health: its address or the service is wrong."""
    return said.startswith(_FINAL) and not said.startswith(_MAY_PASS)


async def first_there(
    servers: Sequence[RunningServer], timeout_seconds: float, on_wait: Callable[[str], None] = lambda cause: None
) -> list[RunningServer]:
    """Those that are there, one at least; asked again until the time is up.

    ``on_wait`` is told what is wrong whenever none is there. Raises ModelServerError: at once if one of them says what
    waiting does not change (401, 403, a redirect, a name that no host has), and ServerAway if none is there in time.
    """
    time = asyncio.get_running_loop().time
    deadline = time() + timeout_seconds
    pause = min(_LONGEST_FIRST_PAUSE_SECONDS, servers[0].health.period_seconds)
    while True:
        said = await asyncio.gather(*(server.ask() for server in servers))
        answers = list(zip(servers, said, strict=True))
        for server, one in answers:
            if is_final(one):
                raise server.error(one)
        if found := [server for server, one in answers if not one]:
            return found
        on_wait(said[0])
        if (left := deadline - time()) <= 0:
            raise ServerAway(" ".join(str(server.error(one)) for server, one in answers))
        await asyncio.sleep(min(pause, left))
        pause = max(pause, min(pause * 1.3, servers[0].health.period_seconds, _LONGEST_PAUSE_SECONDS))
