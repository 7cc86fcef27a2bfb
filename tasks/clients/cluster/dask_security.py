"""Access to the Dask scheduler and workers of a run: only for holders of the run's own certificate, over TLS.

Without it, any client that reaches a Dask port could run code there. A self-signed certificate is made for each run. It
is kept in memory only: files would be readable by the model servers, which run as the same user.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from distributed.security import Security

CERTIFICATE = "THRESHER_DASK_CERTIFICATE"
KEY = "THRESHER_DASK_KEY"
_ROLES = ("client", "scheduler", "worker")
_DAYS = 365
"""Longer than any run; the key is gone when the run ends."""
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str = field(repr=False)

    def variables(self) -> dict[str, str]:
        """The environment variables that pass it to a scheduler or worker of the run."""
        return {CERTIFICATE: self.certificate, KEY: self.key}


def made_identity() -> Identity:
    """A new identity; takes about a millisecond (elliptic curve)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "thresher-run")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    kinds = serialization
    return Identity(
        certificate.public_bytes(kinds.Encoding.PEM).decode(),
        key.private_bytes(kinds.Encoding.PEM, kinds.PrivateFormat.PKCS8, kinds.NoEncryption()).decode(),
    )


def security_of(identity: Identity) -> Security:
    """Mutual TLS with this certificate, for this process as client, scheduler and worker."""
    paths = {"cert": _in_memory(identity.certificate), "key": _in_memory(identity.key)}
    roles = {f"tls_{role}_{part}": path for role in _ROLES for part, path in paths.items()}
    return Security(require_encryption=True, tls_ca_file=paths["cert"], **roles)  # type: ignore[no-untyped-call]


@cache
def _in_memory(text: str) -> str:
    """A path, valid in this process only, that holds the text; the text itself if the system has no memfd.

    (Given a text instead of a path, Dask writes it to a file in the temporary folder before it reads it.)
    """
    if not hasattr(os, "memfd_create"):
        return text
    held = os.memfd_create("thresher")
    os.write(held, text.encode())
    return f"/proc/self/fd/{held}"


def take_identity() -> Identity | None:
    """Read the identity from the environment variables and remove them; None without them."""
    certificate, key = os.environ.pop(CERTIFICATE, ""), os.environ.pop(KEY, "")
    return Identity(certificate, key) if certificate and key else None


def configuration(identity: Identity) -> dict[str, Any]:
    """The Dask configuration that makes its own commands use this identity."""
    certificate, key = _in_memory(identity.certificate), _in_memory(identity.key)
    found: dict[str, Any] = {"require-encryption": True, "tls.ca-file": certificate}
    for role in _ROLES:
        found |= {f"tls.{role}.cert": certificate, f"tls.{role}.key": key}
    return {f"distributed.comm.{name}": value for name, value in found.items()}
