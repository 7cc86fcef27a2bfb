"""Folders in which a process keeps for a while what model servers print, and that do not outlive it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from tasks.clients.process_identity import is_gone, short_own_process

_NAME = re.compile(r"thresher-([0-9a-f]+-\d+-\d+)-\w+\Z")


def scratch_folder() -> Path:
    """A new one in the temporary folder, for this user only (mode 700); its name says whose it is."""
    return Path(tempfile.mkdtemp(prefix=f"thresher-{short_own_process()}-"))


def remove_left_folders() -> None:
    """Remove those whose process has ended without removing them: it was killed, and so was its warden.

    Never one of a process that runs, nor of one of which that cannot be told here: on another machine, since another
    start of this one, in another container.
    """
    place = tempfile.gettempdir()
    try:
        with os.scandir(place) as entries:
            found = [entry for entry in entries if (named := _NAME.match(entry.name)) and is_gone(named[1])]
            own = [one for one in found if one.is_dir(follow_symlinks=False) and one.stat().st_uid == os.geteuid()]
    except OSError:
        return
    for entry in own:
        shutil.rmtree(entry.path, ignore_errors=True)
