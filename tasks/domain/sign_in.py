"""Signing in to the user interface with a link that works once."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

LINK_SECONDS = 12 * 3600.0
"""An unused link expires after this time."""
MAX_LINKS = 16
"""Beyond this, the oldest link is dropped for a new one."""


class Links:
    """Links that were issued and not used yet; each is an unguessable text."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def give(self, link: str) -> None:
        """Issue a new link, valid for one use."""
        while len(self._until) >= MAX_LINKS:
            del self._until[next(iter(self._until))]
        self._until[link] = self._clock() + LINK_SECONDS

    def use(self, link: str) -> bool:
        """Use up a link; whether it was valid."""
        return self._clock() < self._until.pop(link, 0.0)


_SCRIPT = """
const link = location.hash.slice(1), place = 'prefect-password', said = document.getElementById('said');
history.replaceState(null, '', location.pathname);
const signedIn = () => location.replace('/');
fetch('/sign-in', {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({link})})
  .then(async answer => {
    if (answer.ok) { localStorage.setItem(place, (await answer.json()).password); signedIn(); }
    else if (localStorage.getItem(place)) signedIn();
    else said.textContent = 'This link was used before, or is too old. `thresher up`, called again, prints another.';
  })
  .catch(() => { said.textContent = 'The server does not answer.'; });
"""
"""The link is in the URL's fragment, which a browser never sends. The key in the local storage is Prefect's own."""
PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Thresher</title>"
    f"<p id=said>Signing in ...<noscript>Signing in needs JavaScript.</noscript></p><script>{_SCRIPT}</script></html>"
)
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
PAGE_POLICY = f"default-src 'none'; script-src 'sha256-{_HASH}'; connect-src 'self'; frame-ancestors 'none'"
