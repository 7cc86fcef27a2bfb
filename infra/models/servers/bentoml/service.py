"""A model behind BentoML: a row as JSON."""

import bentoml


@bentoml.service
class Prices:
    """Stands for a model of tables."""

    @bentoml.api
    def price(self, product: str, count: int, currency: str) -> dict[str, object]:
        """The answer for one row."""
        return {"product": product, "price": 2.5 * count, "currency": currency}
