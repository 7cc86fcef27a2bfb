"""Temporary folders for the output of model servers, removed with the process that made them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from tasks.clients.processes.process_identity import is_gone, short_own_process

_NAME = re.compile(r"thresher-([0-9a-f]+-\d+-\d+)-\w+\Z")


def scratch_folder() -> Path:
    """A new folder in the temporary folder, for this user only (mode 700), named after this process."""
    return Path(tempfile.mkdtemp(prefix=f"thresher-{short_own_process()}-"))


def remove_left_folders() -> None:
    """Remove the folders of processes that were killed, with their wardens, before they could remove them.

    Never the folder of a running process, or of one whose state cannot be determined here: on another machine, from
    before a reboot, or in another container.
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
