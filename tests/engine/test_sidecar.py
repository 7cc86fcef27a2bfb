"""A model server that somebody else starts, stops and starts again: the session goes on when it is back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine.runs import items_of, local_items, make_run, no_environment, shard_of, stored_plan
from fakes.model_server import FakeModelServer
from fakes.processes import poll

from tasks.clients.sidecar import Sidecar
from tasks.domain.package import Health
