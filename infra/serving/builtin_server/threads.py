"""The threads that a package starts while it is loaded: the server waits for those that load the model."""

import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Dict, Iterator, List, Optional, Tuple, Type

from .loops import loops_for_ever

LOOK_SECONDS = 0.1
_LOOKS = 3
"""A thread that waits for work at this many checks in a row is a background thread."""
_SERVING = {
    ("socketserver.py", "serve_forever"), ("base_events.py", "run_forever"), ("server.py", "run"),
    ("_server.py", "wait_for_termination"),
}  # fmt: skip
"""What server threads run (http.server and similar, asyncio, uvicorn, gRPC), by file and function."""
_WAITING = {("queue.py", "get"), ("threading.py", "wait")}


class ThreadFailed(Exception):
    """A thread that loads the model has raised ``error``."""

    def __init__(self, thread: threading.Thread, error: BaseException) -> None:
        super().__init__(thread.name)
        self.thread = thread
        self.error = error


class StartedThreads:
    """A context that records the threads started within it.

    Daemon threads are background threads. So is a thread that never ends by itself, or that waits for work: in a loop
    that only other code can end, at a queue, for an event or for connections.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: List[threading.Thread] = []
        self._threads: List[threading.Thread] = []
        self._waited: Dict[threading.Thread, int] = {}
        self._failed: List[ThreadFailed] = []
        self._over = False
        self._start: Any = None

    def __enter__(self) -> "StartedThreads":
        self._start = threading.Thread.start
        watch, start, forget = self._watch, self._start, self._forget

        def started(thread: threading.Thread) -> None:
            watch(thread)
            try:
                start(thread)
            except BaseException:
                forget(thread)
                raise

        threading.Thread.start = started  # type: ignore[method-assign, assignment]
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._over = True
        threading.Thread.start = self._start  # type: ignore[method-assign]

    def _watch(self, thread: threading.Thread) -> None:
        self._all.append(thread)
        if thread.daemon:
            return
        run = thread.run

        def watched() -> None:
            try:
                run()
            except Exception as error:
                if self._over or thread not in self._threads:
                    raise  # it does not load the model: its exception is only printed
                self._failed.append(ThreadFailed(thread, error))

        thread.run = watched  # type: ignore[method-assign]
        self._threads.append(thread)

    def _forget(self, thread: threading.Thread) -> None:
        for some in (self._all, self._threads):
            if thread in some:
                some.remove(thread)

    def loading(self) -> Optional[threading.Thread]:
        """A thread that still runs and may load the model. Raises ThreadFailed if such a thread has failed."""
        if self._failed:
            raise self._failed[0]
        for thread in list(self._threads):
            ended = not thread.is_alive() and thread.ident is not None
            if not ended and not self._is_in_background(thread):
                return thread
            self._threads.remove(thread)
        if self._failed:  # since the first check
            raise self._failed[0]
        return None

    def running(self) -> bool:
        """Whether any of them still runs, in the background or not."""
        return any(thread.is_alive() for thread in self._all)

    def _is_in_background(self, thread: threading.Thread) -> bool:
        frame = sys._current_frames().get(thread.ident or 0)
        if frame is None:
            return False
        if self._never_ends(frame):
            return True
        self._waited[thread] = self._waited.get(thread, 0) + 1 if self._waits_for_work(frame) else 0
        return self._waited[thread] >= _LOOKS

    def _is_own(self, frame: FrameType) -> bool:
        """Whether a frame is the package's own code."""
        return frame.f_code.co_filename.startswith(str(self._folder))

    def _never_ends(self, frame: FrameType) -> bool:
        return any(loops_for_ever(each) for each in _frames(frame) if self._is_own(each))

    def _waits_for_work(self, frame: FrameType) -> bool:
        names: List[Tuple[str, str]] = []
        """Calls made by the package's code, innermost first; in a thread without such code, all calls."""
        for each in _frames(frame):
            if self._is_own(each):
                break
            names.append((Path(each.f_code.co_filename).name, each.f_code.co_name))
        if names[-1:] == [("threading.py", "run")]:
            del names[-1]
        if not names:
            return False
        if any(name in _SERVING for name in names):
            return ("base_events.py", "run_until_complete") not in names or ("server.py", "run") in names
        if names[0] in (("thread.py", "_worker"), ("socket.py", "accept")):  # the first belongs to an executor
            return True
        # Waiting for a result of other code does not count.
        return names[-1] in _WAITING and all(file in ("threading.py", "queue.py") for file, _ in names)


def _frames(innermost: FrameType) -> Iterator[FrameType]:
    """The frames of a thread, innermost first, up to the wrapper in this file that starts it."""
    frame: Optional[FrameType] = innermost
    while frame is not None and frame.f_code.co_filename != __file__:
        yield frame
        frame = frame.f_back
