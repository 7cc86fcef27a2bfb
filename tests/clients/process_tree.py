"""A command with children of every kind, each of which notes its process id in the command's output."""

from __future__ import annotations

TREE = """
import os, signal, sys, time

def note(name):
    os.write(1, f"{name} {os.getpid()}\\n".encode())

def child(name, *, setsid=False, twice=False, stubborn=False):
    there, ready = os.pipe()
    if os.fork() == 0:
        if setsid:
            os.setsid()
        if twice and os.fork():
            os._exit(0)
        if stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(name)
        os.write(ready, b".")
        time.sleep(600)
        os._exit(0)
    os.read(there, 1)  # whoever ends the command must not be faster than its children

for kind in sys.argv[1:]:
    if kind == "stay":
        note("command")
        time.sleep(600)
    elif kind.startswith("exit"):
        note("command")
        sys.exit(int(kind[4:]))
    elif kind == "stubborn-command":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif kind == "child":
        child(kind)
    elif kind == "setsid":
        child(kind, setsid=True)
    elif kind == "daemon":
        child(kind, setsid=True, twice=True)
    elif kind == "stubborn":
        child(kind, setsid=True, stubborn=True)
"""
