"""Places of a machine that are not user data: the kernel's files, devices, and the secrets of the flow itself.

Input manifests and links are untrusted input. The files that they name are sent to a model, and its responses are in
result files, so they must never lead to these places.
"""

from __future__ import annotations

from collections.abc import Mapping

_FOLDERS = ("/proc", "/sys", "/dev", "/run/secrets", "/var/run/secrets", "/run/credentials")
_WITHIN = tuple(f"{folder}/" for folder in _FOLDERS)
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - files of users, in memory
KERNEL_FILE_SYSTEMS = frozenset({
    "proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "bpf", "configfs",
    "pstore", "efivarfs", "mqueue", "binfmt_misc", "fusectl", "selinuxfs", "nsfs", "rpc_pipefs", "nfsd",
})  # fmt: skip
"""Types of file systems whose files the kernel generates, wherever they are mounted."""
_KEY_FILES = (
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "PREFECT_PROFILES_PATH",
)  # fmt: skip
"""Variables that name a file with keys."""
_AWS = (".aws/credentials", ".aws/config")
_PREFECT = ("profiles.toml", "prefect.db", "prefect.db-wal", "prefect.db-shm")
"""Prefect's login and, in a server's database, all Secret blocks."""


def system_place(path: str) -> str:
    """The system place that holds an absolute, normalized local path; empty for other paths."""
    if path.startswith(_WITHIN) or path in _FOLDERS:
        if path == _SHARED_MEMORY or path.startswith(f"{_SHARED_MEMORY}/"):
            return ""
        return next(one for one in _FOLDERS if path == one or path.startswith(f"{one}/"))
    return ""


def refusal(place: str) -> str:
    """Why a path into such a place is refused, without the full stop."""
    return f"It leads to {place}, which belongs to the system and is neither read nor written"


def key_files(environment: Mapping[str, str], home: str) -> list[str]:
    """The files with the flow's own keys, from its environment and the usual locations."""
    prefect = environment.get("PREFECT_HOME") or f"{home}/.prefect"
    return [
        *(named for name in _KEY_FILES if (named := environment.get(name))),
        *(f"{home}/{name}" for name in _AWS),
        *(f"{prefect}/{name}" for name in _PREFECT),
    ]


def kernel_devices(mounts: str) -> set[tuple[int, int]]:
    """Device numbers (major, minor) of the kernel's file systems in the text of ``/proc/self/mountinfo``."""
    found = set()
    for line in mounts.splitlines():
        mount, _, system = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) > 2 and system.partition(" ")[0] in KERNEL_FILE_SYSTEMS:
            major, _, minor = fields[2].partition(":")
            if major.isdigit() and minor.isdigit():
                found.add((int(major), int(minor)))
    return found
