"""obstore's errors, translated into messages for the user."""

from __future__ import annotations

import re

from obstore.exceptions import PermissionDeniedError

from tasks.clients.storage.failures import Missing, ObjectError, RequestRefused, Unreachable
from tasks.clients.surroundings.proxies import proxy_for
from tasks.clients.surroundings.surroundings import blamed
from tasks.domain.unexpected import PANICS

_CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")
_STATUS = re.compile(r"status code: (\d{3} ?[A-Za-z ]*)")
_HOST = re.compile(r"Error performing [A-Z]+ (https?://[^\s/?]+)")
_CAUSES = (
    ("ConnectionRefused", "connection refused"),
    ("dns error", "there is no such host"),
    ("InvalidCertificate", "its certificate is not trusted here; SSL_CERT_FILE names a file of those that are"),
    ("InvalidContentType", "it does not speak TLS; its address begins with http://, perhaps"),
    ("InvalidMessage", "it does not speak TLS; its address begins with http://, perhaps"),
    ("ProxyAuthRequired", "the proxy wants a user's name and a password (HTTP 407)"),
    ("TunnelUnsuccessful", "the proxy refuses to connect to it"),
    ("NetworkUnreachable", "there is no way to its network"),
    ("HostUnreachable", "there is no way to its host"),
    ("ConnectionReset", "it closes the connection; its address begins with https://, perhaps"),
    ("IncompleteMessage", "it closes the connection"),
)
"""Words in the debug output of a failed connection, and their meanings."""
_NOT_S3 = ("ETag Header missing", "Got invalid")
"""Words in obstore's errors about a response that is not valid S3."""


def no_s3(where: str) -> str:
    """The message for an endpoint that answers, but not as S3 does."""
    storage = f"The storage {where}" if where else "The storage"
    return f"{storage} does not answer as S3 does: its endpoint is that of another service, or of a page to sign in."


def explain(error: BaseException, where: str = "", key: str = "") -> ObjectError:
    """obstore's error in one line, without debug output: the server's code and status.

    ``where`` is the storage's endpoint; ``key`` describes the key that was used and where it is set.
    """
    text = str(error)
    # obstore has no fields for the server's code and status, nor classes for most failures: they are in its text only.
    code, status = _CODE.search(text), _STATUS.search(text)
    answered = RequestRefused if status and status[1].startswith(("400", "401", "403")) else ObjectError
    detail = ", ".join(filter(None, (f"HTTP {status[1].strip()}" if status else "", code[1] if code else "")))
    if isinstance(error, FileNotFoundError) or (code and code[1] in ("NoSuchBucket", "NoSuchKey")):
        what = "There is no such bucket" if code and code[1] == "NoSuchBucket" else "There is no such object"
        return Missing(f"{what} ({detail}).")
    if isinstance(error, PermissionDeniedError) or (status and status[1].startswith(("401", "403"))):
        return answered(f"No permission ({detail}){f' with the {key}' if key else ''}.")
    if type(error).__name__ in PANICS:
        return ObjectError("The storage's library has failed: check endpoint, region and keys.")
    host = match[1] if (match := _HOST.search(text)) else ""
    asked = f"({host})" if host and host not in where else ""
    through = f"through the proxy {named}" if (named := proxy_for(host or where)) else ""
    storage = " ".join(filter(None, ("The storage", where, asked, through)))
    if "kind: Timeout" not in text and ("Connect" in text or "error sending request" in text):
        cause = next((f": {meaning}" for word, meaning in _CAUSES if word in text), "")
        return Unreachable(f"{storage} cannot be reached{cause}.{blamed(where)}")
    if "timed out" in text.lower() or "Timeout" in text:
        return Unreachable(f"{storage} did not answer in time.")
    if "redirect without LOCATION" in text:
        return ObjectError(f"{storage} sends requests elsewhere: the region or the endpoint is another one.")
    if any(word in text for word in _NOT_S3):
        return ObjectError(no_s3(where))
    if detail:
        return answered(f"{storage} answers {detail}.")
    return ObjectError(text.split("\n", 1)[0].split(": Error performing", 1)[0][:200])
