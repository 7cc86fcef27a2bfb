"""Confinement of a model server, or of the build of a package's environment: no access to processes outside.

Called in the new process, between fork and exec. Standard library only: the warden imports it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct

PR_CAPBSET_DROP = 24
LOOKING = {"CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38}.values()
PR_SET_NO_NEW_PRIVS = 38
# From Linux's include/uapi/linux/landlock.h; the system call numbers are the same on every architecture.
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, LANDLOCK_SCOPE_SIGNAL = 1, 2
LANDLOCK_ACCESS_FS_MAKE_BLOCK, LANDLOCK_ACCESS_FS_REFER = 1 << 11, 1 << 13
LANDLOCK_RULE_PATH_BENEATH = 1
RLIMIT_LOCKS = 10
"""Linux keeps this limit for every process and child processes inherit it, but it has had no effect since 2.4."""
MARK_BITS = 62


def confine() -> bool:
    """Deny this process and its descendants access to every process outside, of any user; whether that succeeded.

    Uses Linux's Landlock: from inside, ``/proc/<pid>/environ``, ``mem``, ``fd`` ... of an outside process cannot be
    read and no debugger can be attached to it. From Linux 6.12 on, it also cannot be sent a signal. Before that, the
    rules must restrict file access, so making block devices is refused. Root could still inspect processes through its
    capabilities, so these are dropped. No program gains more rights than this process has, through sudo for example.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in LOOKING:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        call = libc.syscall
        call.restype = ctypes.c_long
        version = call(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
        return bool(version >= 2) and _restricted(libc, _rules(call, version))
    except (OSError, AttributeError):
        return False  # not Linux


def _rules(call: ctypes._NamedFuncPointer, version: int) -> int:
    """File descriptor of the Landlock ruleset; negative if it cannot be made."""
    if version >= 6:
        scopes = struct.pack("=QQQ", 0, 0, LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL)
        return int(call(LANDLOCK_CREATE_RULESET, scopes, len(scopes), 0))
    # Linking or renaming files into another folder is refused unless the rules allow it.
    handled = struct.pack("=Q", LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_REFER)
    rules = int(call(LANDLOCK_CREATE_RULESET, handled, len(handled), 0))
    if rules >= 0:
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        allowed = struct.pack("=Qi", LANDLOCK_ACCESS_FS_REFER, root)
        if call(LANDLOCK_ADD_RULE, rules, LANDLOCK_RULE_PATH_BENEATH, allowed, 0):
            os.close(rules)
            rules = -1
        os.close(root)
    return rules


def _restricted(libc: ctypes.CDLL, rules: int) -> bool:
    if rules < 0:
        return False
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done: bool = libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return done


def mark(number: int) -> None:
    """Mark this process and its future descendants with a number, in a limit that has no effect.

    A process easily leaves its session, environment and open files; none changes this limit.
    """
    try:
        resource.setrlimit(RLIMIT_LOCKS, (number, resource.getrlimit(RLIMIT_LOCKS)[1]))
    except (OSError, ValueError):
        pass  # not Linux


def has_mark(pid: int, number: int) -> bool:
    """Whether a process is marked with this number."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            return any(line.split()[3:4] == [b"%d" % number] for line in file if line.startswith(b"Max file locks"))
    except OSError:
        return False
