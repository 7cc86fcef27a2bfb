"""Runs a module with an environment that no other process of the same user ever sees.

Run as ``python -P private_process.py MODULE ARGUMENT...`` with the environment on standard input, as ``NAME=VALUE``
entries that each end with NUL. A program's initial environment is in ``/proc/<pid>/environ`` until the program hides
its memory, so keys are passed this way, after that.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def main(module: str, *arguments: str) -> None:
    """Run ``module`` as the main module, with these command-line arguments."""
    sys.path.insert(0, str(ROOT))
    from tasks.clients.processes.process_privacy import hide_memory

    hide_memory()
    with open(0, "rb", closefd=False) as given:
        block = given.read()
    for one in block.split(b"\0")[:-1]:
        name, _, value = one.partition(b"=")
        os.environb[name] = value
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
