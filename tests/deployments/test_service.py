"""A batch service as a Prefect deployment, as it is shown."""

from __future__ import annotations

from uuid import uuid4

from prefect.client.schemas.responses import DeploymentResponse

from deployments.services.service import Service


def test_service__is_shown_without_the_password_in_its_address_and_without_its_headers() -> None:
    fields = {
        "model": "http://me:hunter22@host:80/x?key=hunter22 https://other", "headers": {"X-Key": "hunter22"},
        "input_path": "/in", "output_path": "/out",
    }  # fmt: skip
    held = DeploymentResponse(name="s", flow_id=uuid4(), parameters={"service": fields})
    shown = Service.of(held, None)
    assert shown.model == "http://host:80/x?... https://other"
    assert "hunter22" not in shown.model_dump_json()
