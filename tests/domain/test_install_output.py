"""What installers say, in one line."""

from __future__ import annotations

import pytest

from tasks.domain.install_output import is_of_network, is_of_old_metadata, reason_of

NO_VERSION = """Using Python 3.11.7 environment at: x
  × No solution found when resolving dependencies:
  ╰─▶ Because there is no version of numpy==1.15.99 and you require
      numpy==1.15.99, we can conclude that your requirements are unsatisfiable.

      hint: something else
"""
BUILD = """  × Failed to build `numpy==1.15.0`
  ├─▶ The build backend returned an error
  ╰─▶ Call to `setuptools.build_meta:__legacy__.build_wheel` failed (exit
      status: 1)

      [stderr]
      Traceback (most recent call last):
"""
QUIET = """error: No solution found when resolving dependencies
  cause: Because a was not found in the package registry and you require a==1.2, we can conclude that your \
requirements are unsatisfiable.
"""
QUIET_BUILD = """error: Failed to build `numpy==1.15.0`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta:__legacy__.build_wheel` failed (exit status: 1)

         [stderr]
         Traceback (most recent call last):
           File "<string>", line 11, in <module>
         ModuleNotFoundError: No module named 'distutils.msvccompiler'

hint: This error likely indicates
"""
PIP = """WARNING: You are using pip version 21
ERROR: Could not find a version that satisfies the requirement numpy==9 (from versions: 1.1, 1.2)
ERROR: No matching distribution found for numpy==9
"""


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            NO_VERSION,
            "Because there is no version of numpy==1.15.99 and you require numpy==1.15.99, we can conclude that your "
            "requirements are unsatisfiable.",
        ),
        (BUILD, "Call to `setuptools.build_meta:__legacy__.build_wheel` failed (exit status: 1)"),
        (
            QUIET,
            "Because a was not found in the package registry and you require a==1.2, we can conclude that your "
            "requirements are unsatisfiable.",
        ),
        (
            QUIET_BUILD,
            "Failed to build `numpy==1.15.0`: ModuleNotFoundError: No module named 'distutils.msvccompiler'",
        ),
        (PIP, "Could not find a version that satisfies the requirement numpy==9 (from versions: 1.1, 1.2)"),
        ("cannot run /no/such/uv", "cannot run /no/such/uv"),
        ("warning: old\n", ""),
        ("", ""),
    ],
)
def test_reason__is_one_line(output: str, reason: str) -> None:
    assert reason_of(output) == reason


def test_reason__is_cut() -> None:
    assert len(reason_of(f"ERROR: {'x' * 10_000}")) < 500


def test_output__tells_old_metadata_and_a_network_that_is_away() -> None:
    assert is_of_old_metadata("error: Package `pandas` has invalid metadata: pytz (>=2011k)")
    assert is_of_network("error sending request for url (...)")
    assert not is_of_old_metadata(NO_VERSION) and not is_of_network(NO_VERSION)
