"""Creation of a package's service object from its folder."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType, TracebackType

# Imported before any code of the package, so that a stub folder "model_service", which authors keep next to their code
# for local tests, never replaces the real base classes.
from model_service.model_service import SingleNodeService

from .settings import StartError
from .threads import LOOK_SECONDS, StartedThreads, ThreadFailed

SERVICE_FILE = "customize_service.py"
BASE_CLASSES = (
    "model_service.model_service.SingleNodeService",
    "model_service.pytorch_model_service.PTServingBaseService",
    "model_service.tfserving_model_service.TfServingBaseService",
    "model_service.python_model_service.XgSklServingBaseService",
    "model_service.spark_model_service.SparkServingBaseService",
    "model_service.caffe_model_service.CaffeBaseService",
)
_NO_MODEL_SUFFIXES = frozenset({".py", ".md", ".txt"})
"""Code and texts, including ``requirements.txt``."""

_log = logging.getLogger("model_server")


def load_service(folder: Path, model_name: str, threads: StartedThreads) -> SingleNodeService:
    """Import ``customize_service.py`` from ``folder`` and create its service, which loads the model.

    Returns once the threads that this starts, and that may load the model, have ended. Raises StartError; its message
    includes the exception of the package's own code, whose traceback is printed first.
    """
    with threads:
        service = _created(folder, model_name)
        _wait_for(threads, folder)
    return service


def _created(folder: Path, model_name: str) -> SingleNodeService:
    try:
        module = _import_module(folder)
    except BaseException as error:
        raise _failed(folder, f"{SERVICE_FILE} cannot be imported", error) from None
    service_class = find_service_class(module)
    model_path = find_model_path(folder)
    try:
        return service_class(model_name, str(model_path))
    except BaseException as error:
        raise _failed(folder, f"{service_class.__name__}({model_name!r}, {str(model_path)!r}) failed", error) from None


def _wait_for(threads: StartedThreads, folder: Path) -> None:
    named: threading.Thread | None = None
    try:
        while (thread := threads.loading()) is not None:
            if thread is not named:
                named = thread
                _log.info("the model is ready once the thread %r has ended, which the package has started", thread.name)
            thread.join(LOOK_SECONDS)
    except ThreadFailed as failed:
        what = f"the thread {failed.thread.name!r}, which the package has started to load the model, failed"
        raise _failed(folder, what, failed.error) from None


def find_service_class(module: ModuleType) -> type[SingleNodeService]:
    """The one class defined in ``module`` that derives from a base class. Raises StartError if it is not exactly one.

    Imported classes do not count: a base class that is itself imported into the module is not a service.
    """
    found = {
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, SingleNodeService) and value.__module__ == module.__name__
    }
    if not found:
        raise StartError(
            f"{SERVICE_FILE} defines no service: one class must derive from one of {', '.join(BASE_CLASSES)}"
        )
    if len(found) > 1:
        names = ", ".join(sorted(each.__name__ for each in found))
        raise StartError(f"{SERVICE_FILE} defines {len(found)} services ({names}): exactly one is needed")
    (service_class,) = found
    # Reported now, and not in the response to every request.
    unwritten = service_class._inference is SingleNodeService._inference
    if unwritten and service_class.inference is SingleNodeService.inference:
        raise StartError(f"{service_class.__name__}._inference(self, data) is not written: it must run the model")
    return service_class


def find_model_path(folder: Path) -> Path:
    """The only model file in ``folder`` and its sub-folders, or ``folder`` itself if there is not exactly one.

    Not model files: config.json, ``*.py``, ``*.md``, ``*.txt``, hidden files and everything below hidden folders.
    """
    only: Path | None = None
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            path = Path(parent, name)
            if name.startswith(".") or name == "config.json" or path.suffix.lower() in _NO_MODEL_SUFFIXES:
                continue
            if only is not None:
                return folder
            only = path
    return only or folder


def _import_module(folder: Path) -> ModuleType:
    path = folder / SERVICE_FILE
    if not path.is_file():
        raise StartError(f"there is no {SERVICE_FILE} in {folder}")
    # First, so that the package's own modules take precedence over the server's.
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise StartError(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    # Pickled models refer to their classes by this name.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _failed(folder: Path, what: str, error: BaseException) -> StartError:
    if isinstance(error, StartError):
        return error
    traceback.print_exception(type(error), error, traceback_of_package(folder, error.__traceback__))
    cure = "; put its package into dependencies of config.json" if isinstance(error, ModuleNotFoundError) else ""
    return StartError(f"{what}: {describe(error)}{cure}")


def traceback_of_package(folder: Path, full: TracebackType | None) -> TracebackType | None:
    """``full`` from the first frame of the package's code on: the server's own frames do not help a model author."""
    current = full
    while current is not None:
        if Path(current.tb_frame.f_code.co_filename).is_relative_to(folder):
            return current
        current = current.tb_next
    return full


def describe(error: BaseException) -> str:
    """``<Type>: <message>``, only the type for an error without a message. Never raises."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
