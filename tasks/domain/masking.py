"""Hiding secrets in texts from outside: output and responses of a model, messages of an installer or a server."""

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
"""Shorter values are not treated as secrets: hiding them would hide half of every text."""
SCATTERED_LENGTH = 8
"""From this length on, a secret is also recognized in base64, and with blanks and line ends inside."""
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
    """Hides secrets: the given ones in every form in which programs write them, and likely ones in addresses.

    A secret of several lines is also hidden line by line. Escapes and control characters are removed first, so that
    colour codes inside a secret do not keep it from being found.
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
        """Length of the longest form: a secret may begin this far before an excerpt and reach into it."""

    def lines(self, text: str) -> list[str]:
        """The lines of a text, plain and with ``***`` in place of every secret."""
        return self._shown(self._blank("\n".join(plain_lines(text)))).split("\n")

    def line(self, text: str) -> str:
        """A text as one line, plain and masked."""
        # Search for secrets before line ends become blanks: a secret may contain line ends.
        return plain_line(self._shown(self._blank("\n".join(plain_lines(text.replace("\r", "\n"))))))

    def block(self, text: str) -> str:
        """A message of several lines, plain and masked; indentation is kept."""
        return "\n".join(self.lines(text))

    def cut(self, text: str) -> int:
        """How much of a text, already plain and to be continued, may be shown now without a part of a secret."""
        blank = self._blank(text)
        cut = len(blank) - self.longest
        while 0 < cut < len(blank) and blank[cut - 1] == "\0" and blank[cut] == "\0":
            cut -= 1
        return max(cut, 0)

    def _blank(self, text: str) -> str:
        """The text with every secret replaced by NUL characters, of the same length."""
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
    """A secret as programs print it: unchanged, in a URL, in JSON, in HTML, and as Python's repr."""
    in_json = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    found = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), quote(secret, safe="!'()*")} | in_json
    found |= {one.replace("/", "\\/") for one in in_json}
    found |= {html.escape(secret), html.escape(secret, quote=False), html.escape(secret).replace("&#x27;", "&#39;")}
    found |= {repr(secret)[1:-1], ascii(secret)[1:-1]}
    return found | {_ESCAPED.sub(_other_case, one) for one in found}


def _other_case(escape: re.Match[str]) -> str:
    return escape[0][:2] + escape[0][2:].upper() if escape[0][0] == "\\" else escape[0].lower()


def _in_base64(secret: str) -> set[str]:
    """A secret in base64 at every alignment, without the characters that it shares with its neighbours."""
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
    """A message of several lines from outside, plain, without likely secrets."""
    return _NOTHING_KNOWN.block(text)


_NOTHING_KNOWN = Masker()
