"""Places of the system, by their names."""

from __future__ import annotations

import pytest

from tasks.domain.system_places import kernel_devices, key_files, system_place

MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/root rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
24 22 0:22 / /sys rw shared:7 - sysfs sysfs rw
25 22 0:5 / /dev rw master:2 shared:3 - devtmpfs udev rw
26 25 0:24 / /dev/shm rw - tmpfs tmpfs rw
27 22 0:21 /self/environ /data/innocent.bin rw - proc proc rw
28 22 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
29 22 0:31 / /a\\040b rw - fuse.sshfs host:/ rw
broken
30 22 x:y / /z rw - proc proc rw
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/proc/self/environ", "/proc"), ("/proc", "/proc"), ("/sys/class", "/sys"), ("/dev/zero", "/dev"),
        ("/dev/fd/3", "/dev"), ("/run/secrets/token", "/run/secrets"),
        ("/var/run/secrets/kubernetes.io/token", "/var/run/secrets"), ("/run/credentials/x", "/run/credentials"),
        ("/dev/shm/in/1.jpg", ""), ("/dev/shm", ""), ("/dev/shmem", "/dev"), ("/process/1.jpg", ""),
        ("/data/proc/1", ""),
        ("/devices/1.jpg", ""), ("/run/data/1.jpg", ""), ("/", ""),
    ],
)  # fmt: skip
def test_system_place__is_told_by_the_path(path: str, place: str) -> None:
    assert system_place(path) == place


def test_kernel_devices__are_those_of_its_file_systems_wherever_they_are_mounted() -> None:
    assert kernel_devices(MOUNTS) == {(0, 21), (0, 22), (0, 5), (0, 30)}


def test_key_files__are_those_that_the_environment_names_and_the_usual_ones() -> None:
    found = key_files({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "PREFECT_HOME": "/prefect"}, "/home/me")
    assert {"/token", "/prefect/profiles.toml", "/prefect/prefect.db", "/home/me/.aws/credentials"} <= {*found}
