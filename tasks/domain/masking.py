"""Secrets in texts from outside: what a model prints or answers, what an installer or a server has to say."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from itertools import compress
from urllib.parse import quote, quote_plus

from tasks.domain.plain_text import plain_line, plain_lines

SECRET_LENGTH = 4
"""Shorter values are no secrets, and would hide half of every text."""
SCATTERED_LENGTH = 8
"""From this length on a secret is recognized in base64, and with blanks and line ends in it, too."""
MASK = "***"
_NO_SECRETS = {"true", "false", "none", "null"}
_MASKED = re.compile("\0+")
_ESCAPED = re.compile(r"%[0-9A-F]{2}|\\u[0-9a-f]{4}")
_IN_URL = re.compile(r"(?<=://)([^\s/?#:@\"'<>]{0,256}):[^\s/?#@\"'<>]{1,1024}@")
_IN_QUERY = re.compile(
    r"([?&;](?:X-(?:Amz|Obs|Goog)-(?:Signature|Credential|Security-Token)|Signature|AWSAccessKeyId|AccessKeyId"
    r"|sig|token|access_token|api_key|apikey|password|secret)=)[^&;\s\"'<>]+",
    re.IGNORECASE,
)
_IN_HEADER = re.compile(r"\b(Basic|Bearer)( +)(?=[A-Za-z0-9+/=._~-]{0,64}[0-9+/=._~-])[A-Za-z0-9+/=._~-]{12,}")


class Masker:
    """Hides secrets: the given ones in each form in which programs write them, and what looks like one in addresses.

    A secret of several lines is hidden line by line, too. Escapes and controls are taken out first, so that a colour
    inside a secret does not save it.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        given = [one for one in secrets if one.lower() not in _NO_SECRETS]
        parts = {part.strip() for one in given for part in (one, *one.splitlines())}
        known = {part for part in parts if len(part) >= SECRET_LENGTH}
        forms = {form for part in known for form in _forms(part)}
        forms |= {form for one in given for form in _in_base64(one)}
        self._forms = sorted(forms | {plain_line(one) for one in forms}, key=len, reverse=True)
        squeezed = {"".join(one.split()) for one in {*given, *forms}}
        self._squeezed = sorted((one for one in squeezed if len(one) >= SCATTERED_LENGTH), key=len, reverse=True)
        self.longest = max(map(len, self._forms), default=0)
        """Signs of the longest form: so far before a part that is shown may begin one that reaches into it."""

    def lines(self, text: str) -> list[str]:
        """The lines of a text, plain and with ``***`` in place of every secret."""
        return self._shown(self._blank("\n".join(plain_lines(text)))).split("\n")

    def line(self, text: str) -> str:
        """A text as one line, plain and masked."""
        # Secrets are looked for before line ends become blanks: they may stand in one.
        return plain_line(self._shown(self._blank("\n".join(plain_lines(text.replace("\r", "\n"))))))

    def block(self, text: str) -> str:
        """A message of several lines, plain and masked; its indentation stays."""
        return "\n".join(self.lines(text))

    def cut(self, text: str) -> int:
        """How much of a text, plain already, that goes on may be shown now so that no part of a secret is."""
        blank = self._blank(text)
        cut = len(blank) - self.longest
        while 0 < cut < len(blank) and blank[cut - 1] == "\0" and blank[cut] == "\0":
            cut -= 1
        return max(cut, 0)

    def _blank(self, text: str) -> str:
        """The text with every secret as NUL characters, of the same length."""
        blanked: list[str] | None = None
        for secret in self._forms:
            found = text.find(secret)
            while found >= 0:  # also where secrets overlap
                blanked = list(text) if blanked is None else blanked
                blanked[found : found + len(secret)] = "\0" * len(secret)
                found = text.find(secret, found + 1)
        squeezed = "".join(text.split()) if self._squeezed else ""
        if len(squeezed) == len(text):
            return text if blanked is None else "".join(blanked)
        places: list[int] | None = None
        for secret in self._squeezed:
            found = squeezed.find(secret)
            while found >= 0:
                if places is None:
                    places = list(compress(range(len(text)), (not sign.isspace() for sign in text)))
                blanked = list(text) if blanked is None else blanked
                start, end = places[found], places[found + len(secret) - 1] + 1
                blanked[start:end] = "\0" * (end - start)
                found = squeezed.find(secret, found + 1)
        return text if blanked is None else "".join(blanked)

    @staticmethod
    def _shown(blanked: str) -> str:
        text = _MASKED.sub(MASK, blanked)
        if "://" in text:
            text = _IN_URL.sub(rf"\1:{MASK}@", text)
        if "=" in text:
            text = _IN_QUERY.sub(rf"\1{MASK}", text)
        return _IN_HEADER.sub(rf"\1\2{MASK}", text)


def _forms(secret: str) -> set[str]:
    """A secret as programs print it: as it is, in a URL, in JSON, in HTML, and as Python shows a text."""
    in_json = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    found = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), quote(secret, safe="!'()*")} | in_json
    found |= {one.replace("/", "\\/") for one in in_json}
    found |= {html.escape(secret), html.escape(secret, quote=False), html.escape(secret).replace("&#x27;", "&#39;")}
    found |= {repr(secret)[1:-1], ascii(secret)[1:-1]}
    return found | {_ESCAPED.sub(_other_case, one) for one in found}


def _other_case(escape: re.Match[str]) -> str:
    return escape[0][:2] + escape[0][2:].upper() if escape[0][0] == "\\" else escape[0].lower()


def _in_base64(secret: str) -> set[str]:
    """What a secret becomes in base64, wherever in the encoded text it begins, without the signs that it shares."""
    data = secret.encode("utf-8", "surrogatepass")
    if len(data) < SCATTERED_LENGTH:
        return set()
    found = set()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data)
        shared = -(-8 * before // 6)
        end = len(encoded.rstrip(b"=")) - (1 if (before + len(data)) % 3 else 0)
        found.add(encoded[shared:end].decode())
    return found | {one.replace("+", "-").replace("/", "_") for one in found}


def masked(text: str) -> str:
    """A message of several lines from outside without what looks like a secret; plain."""
    return _NOTHING_KNOWN.block(text)


_NOTHING_KNOWN = Masker()
