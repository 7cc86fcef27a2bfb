"""A run on several instances to which events happen one by one, at moments that are counted."""

from __future__ import annotations

from typing import Any

from tasks.domain.coordination import Begin, Coordination, Fail, ListWorkers, LookAt, Order, Show
from tasks.domain.run import Plan, ShardRef
from tasks.domain.service import BatchService
from tasks.domain.sharing import Give, InstanceReport, ShardLoad

WHOLE = ShardRef(number=0, first_item=0, items=100, bytes=0)


class Stepped:
    """A run of one shard, and what its decisions hear; orders are kept by their kind."""

    def __init__(self, instances: int = 2, **fields: Any) -> None:
        service = BatchService(name="stepped", model="model", input_path="/in", output_path="/out", **fields)
        service = service.model_copy(update={"instances": instances})  # also more than a service may have
        plan = Plan(items=100, bytes=0, unknown_sizes=0, shards=(WHOLE,))
        self.decisions = Coordination(service, "/out", plan, "tls://cluster", 0.0)
        self.now = 0.0
        self.shown: Show | None = None

    def decide(self, seconds: float = 0.0) -> list[Order]:
        """The orders after so many seconds, without those that come in every round."""
        self.now += seconds
        orders = self.decisions.decide(self.now)
        self.shown = next((order for order in orders if isinstance(order, Show)), None)
        return [order for order in orders if not isinstance(order, Show | ListWorkers)]

    def lists(self, *names: str, said: str = "") -> None:
        self.decisions.answered(ListWorkers(), (names, said), self.now)

    def joins(self, *names: str) -> None:
        """Workers are there, and have begun as instances."""
        self.lists(*names)
        for order in self.decide():
            if isinstance(order, Begin):
                self.decisions.answered(order, True, self.now)

    def reports(self, name: str, **fields: Any) -> None:
        fields = {"seconds": self.now, "ready": not fields.get("error"), **fields}
        self.decisions.answered(LookAt(name), InstanceReport(**fields), self.now)

    def fails(self, seconds: float = 0.0) -> BaseException | None:
        return next((order.error for order in self.decide(seconds) if isinstance(order, Fail)), None)


def orders_of(kind: Any, orders: list[Order]) -> list[Any]:
    return [order for order in orders if isinstance(order, kind)]


def working() -> Stepped:
    """Instances "a" and "b" are ready, and "a" works on the shard."""
    run = Stepped()
    run.joins("a", "b")
    run.decide()
    run.reports("a")
    assert orders_of(Give, run.decide()) == [Give("a", WHOLE)]
    run.reports("b")
    run.reports("a", shards={WHOLE.key: ShardLoad(left=0, weight=0, done=10, failed=1)})
    assert run.decide() == []
    return run
