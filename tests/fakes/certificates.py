"""Certificates in the files that a pool names."""

from __future__ import annotations

from pathlib import Path

from tasks.clients.cluster.dask_security import Identity


def pem_files(folder: Path, identity: Identity) -> dict[str, str]:
    """Write an identity to files of a new folder; their paths, by the names of the pool's fields."""
    folder.mkdir(mode=0o700)
    for name, text in (("certificate.pem", identity.certificate), ("key.pem", identity.key)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    return {"ca_file": certificate, "certificate_file": certificate, "key_file": key}
