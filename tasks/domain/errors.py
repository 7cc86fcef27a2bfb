"""Every error that Thresher raises, as one tree.

::

    ThresherError
    ├── SpecificationError   the specification or the call is wrong; holds every problem found (exit code 2)
    │   └── CallError            the call, or what the environment sets, is wrong; the specification may be right
    ├── RunError             the run as a whole cannot go on (exit code 1)
    │   ├── ModelServerError     no instance could be prepared, started or kept alive
    │   │   └── ServerAway           every server that runs elsewhere was away for longer than allowed
    │   ├── StorageError         a folder or object that the run itself needs failed
    │   │   └── DamagedFile          a file that the run wrote has changed since
    │   ├── AccountError         planned items and reported items do not agree
    │   ├── RunFailed            everything is accounted for and published, but the run is Failed (tasks.domain.run)
    │   ├── RunStopped           a user stopped the run before anything was sent (tasks.domain.run)
    │   ├── DeadlinePassed       the run's deadline passed before anything was sent (tasks.domain.run)
    │   └── ServerError          the Prefect server cannot be reached, or refuses
    └── ItemError            one item (or one row) ends FAILED, the others go on
        ├── DownloadError        the item's bytes could not be read
        ├── UploadError          the item's result file could not be written
        ├── ContentError         too large, wrong kind of file, not UTF-8, Chinese characters, broken CSV
        ├── RowError             a cell that cannot be converted, a row without the column
        └── AnswerError          the model answered with an error, or with something unusable

Messages name the field or item, the value, and what is expected. They never hold a secret: addresses go through
:func:`tasks.domain.paths.redact` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.domain.paths import redact

VALUE_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a specification: the field, its value, and what is expected."""

    field: str
    value: object
    expected: str

    def __str__(self) -> str:
        if not self.field:
            return self.expected
        if self.value is None:
            return f"{self.field}: {self.expected}"
        shown = redact(str(self.value))
        if len(shown) > VALUE_SHOWN:
            shown = shown[:VALUE_SHOWN] + "..."
        return f"{self.field} = {shown!r}: {self.expected}"


class ThresherError(Exception):
    """Root of the tree: an expected failure whose message is meant for the user, without a stack trace."""


class SpecificationError(ThresherError):
    """The specification or the call is wrong. ``problems`` holds every problem found, in the contract's order.

    A problem whose field is in capitals (NAME, PREFECT_HOME) or begins with ``--`` belongs to the call or its
    environment: if all problems do, the message does not mention a specification.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        lines = [str(problem) for problem in self.problems]
        if not isinstance(self, CallError) and not all(_is_of_the_call(one.field) for one in self.problems):
            lines = [f"The specification is refused ({head}):", *(f"  - {line}" for line in lines)]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[SpecificationError], tuple[tuple[Problem, ...]]]:
        # Prefect pickles a task's exception; the default would pickle the message only.
        return type(self), (self.problems,)


class CallError(SpecificationError):
    """The call, or a setting in the environment of the process, is wrong; the specification may be right."""


def _is_of_the_call(field: str) -> bool:
    return not field or field.startswith("--") or (field.isupper() and "." not in field.replace("..", ""))


class RunError(ThresherError):
    """The run as a whole cannot go on."""


class ModelServerError(RunError):
    """No instance of the model could be prepared, started or kept alive."""


class ServerAway(ModelServerError):
    """Every model server that runs elsewhere was away for longer than allowed."""


class StorageError(RunError):
    """A folder or object that the run itself needs (plan, report, manifest, model package) failed."""


class DamagedFile(StorageError):
    """A file that the run wrote has changed since. The message continues the file's name: "is empty"."""


class AccountError(RunError):
    """Planned items and reported items do not agree, so the output manifest is not published."""


class ServerError(RunError):
    """The Prefect server cannot be reached, cannot be used, or refuses."""


class ItemError(ThresherError):
    """One item (or one row) ends FAILED with this message; the others go on."""


class DownloadError(ItemError):
    """The item's bytes could not be read."""

    def __str__(self) -> str:
        return f"Download file failed. {super().__str__()}"


class UploadError(ItemError):
    """The item's result file could not be written."""

    def __str__(self) -> str:
        return f"Upload of the result file failed. {super().__str__()}"


class ContentError(ItemError):
    """The item itself cannot be read by a batch service."""


class RowError(ItemError):
    """One row of a CSV item cannot become a request."""


class AnswerError(ItemError):
    """The model answered with an error, or with something unusable."""
