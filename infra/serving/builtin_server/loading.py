"""Creation of a package's service object from its folder."""

import inspect
import logging
import threading
import traceback
from pathlib import Path
from types import ModuleType, TracebackType
from typing import List, NamedTuple, Optional, Type

from model_service.model_service import SingleNodeService
from model_service.tfserving_model_service import TfServingBaseService

from .families import FAMILIES, family_of
from .model_path import find_model_path
from .settings import Settings, StartError
from .surroundings import HOME, import_module, prepare_imports
from .threads import LOOK_SECONDS, StartedThreads, ThreadFailed

SERVICE_FILE = "customize_service.py"
Service = Type[SingleNodeService]

_log = logging.getLogger("model_server")


class Loaded(NamedTuple):
    """A service that is ready, and how it is talked to."""

    service: SingleNodeService
    as_text: bool
    """JSON is handed to it as text, and its lists are wrapped."""


def load_service(settings: Settings, threads: StartedThreads) -> Loaded:
    """Import ``customize_service.py`` from the package's folder and create its service, which loads the model.

    Returns once the threads that this starts, and that may load the model, have ended. Raises StartError; its message
    includes the exception of the package's own code, whose traceback is printed first.
    """
    with threads:
        loaded = _created(settings)
        _wait_for(threads, settings.folder)
    return loaded


def _created(settings: Settings) -> Loaded:
    folder = settings.folder
    path = folder / SERVICE_FILE
    if not path.is_file():
        raise StartError("there is no %s in %s" % (SERVICE_FILE, folder))
    try:
        prepare_imports(folder)
        module = import_module(folder, path)
    except BaseException as error:
        raise _failed(folder, "%s cannot be imported" % SERVICE_FILE, error) from None
    service_class = find_service_class(module, folder)
    family = family_of(settings.model_type, service_class)
    _check_inference(service_class)
    model_path = str(find_model_path(folder, family))
    arguments = _arguments(service_class, settings.model_name, model_path)
    try:
        service = service_class(*arguments)
        for name, value in (("model_name", settings.model_name), ("model_path", model_path)):
            if not hasattr(service, name):  # its __init__ does not call that of the base class
                setattr(service, name, value)
        if isinstance(service, TfServingBaseService) and not _overrides(service_class, TfServingBaseService):
            service.load()
    except BaseException as error:
        call = "%s(%s)" % (service_class.__name__, ", ".join(repr(each) for each in arguments))
        raise _failed(folder, "%s failed" % call, error) from None
    return Loaded(service, family is not None and family.as_text)


def _wait_for(threads: StartedThreads, folder: Path) -> None:
    named: Optional[threading.Thread] = None
    try:
        while True:
            thread = threads.loading()
            if thread is None:
                return
            if thread is not named:
                named = thread
                _log.info("the model is ready once the thread %r has ended, which the package has started", thread.name)
            thread.join(LOOK_SECONDS)
    except ThreadFailed as failed:
        what = "the thread %r, which the package has started to load the model, failed" % failed.thread.name
        raise _failed(folder, what, failed.error) from None


def find_service_class(module: ModuleType, folder: Path) -> Service:
    """The one class of the package below a base class that has no sub-class there. Raises StartError without such one.

    A class that ``customize_service.py`` imports from another module of the package counts if it defines none itself.
    """
    found: List[Service] = [
        value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, SingleNodeService)
    ]
    own = [each for each in found if each.__module__ == module.__name__]
    candidates = set(own or [each for each in found if _is_inside(each, folder)])
    leaves = {one for one in candidates if not any(other is not one and issubclass(other, one) for other in candidates)}
    if not leaves:
        bases = [SingleNodeService, *(family.base for family in FAMILIES)]
        names = ", ".join("%s.%s" % (base.__module__, base.__name__) for base in bases)
        raise StartError("%s defines no service: one class must derive from one of %s" % (SERVICE_FILE, names))
    if len(leaves) > 1:
        names = ", ".join(sorted(each.__name__ for each in leaves))
        raise StartError("%s defines %d services (%s): exactly one is needed" % (SERVICE_FILE, len(leaves), names))
    return leaves.pop()


def _is_inside(service_class: Service, folder: Path) -> bool:
    try:
        return _is_below(inspect.getfile(service_class), folder)
    except TypeError:
        return False


def _check_inference(service_class: Service) -> None:
    """Report a service that cannot answer now, and not in the response to every request."""
    if service_class._inference is SingleNodeService._inference and not _overrides(service_class, SingleNodeService):
        raise StartError("%s._inference(self, data) is not written: it must run the model" % service_class.__name__)


def _overrides(service_class: Service, base: Service) -> bool:
    return service_class._inference is not base._inference or service_class.inference is not base.inference


def _arguments(service_class: Service, model_name: str, model_path: str) -> List[str]:
    """What the constructor takes: ``model_name`` and ``model_path``, or ``model_path`` alone, or nothing."""
    try:
        parameters = list(inspect.signature(service_class).parameters.values())
    except (TypeError, ValueError):
        return [model_name, model_path]
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return [model_name, model_path]
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    needed = [each for each in places if each.default is each.empty]
    if not places:
        return []
    if len(places) == 1 or (len(needed) == 1 and needed[0].name == "model_path"):
        return [model_path]
    return [model_name, model_path]


def _failed(folder: Path, what: str, error: BaseException) -> StartError:
    if isinstance(error, StartError):
        return error
    traceback.print_exception(type(error), error, traceback_of_package(folder, error.__traceback__))
    return StartError("%s: %s%s" % (what, describe(error), _cure(error)))


def _cure(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "; put its package into dependencies of config.json"
    if isinstance(error, FileNotFoundError) and HOME in str(error):
        return "; %s is the package's folder on the original platform only: use self.model_path or __file__" % HOME
    return ""


def _is_below(path: str, folder: Path) -> bool:
    return path.startswith(str(folder) + "/")


def traceback_of_package(folder: Path, full: Optional[TracebackType]) -> Optional[TracebackType]:
    """``full`` from the first frame of the package's code on: the server's own frames do not help a model author."""
    current = full
    while current is not None:
        if _is_below(current.tb_frame.f_code.co_filename, folder):
            return current
        current = current.tb_next
    return full


def describe(error: BaseException) -> str:
    """``<Type>: <message>``, only the type for an error without a message. Never raises."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    return "%s: %s" % (type(error).__name__, message) if message else type(error).__name__
