"""A batch service as a Prefect deployment, as it is shown."""

from __future__ import annotations

from deployments.services.service import Service


def test_service__is_shown_without_the_password_in_its_address_and_without_its_headers() -> None:
    fields = {
        "model": "http://me:hunter22@host:80/x?key=hunter22 https://other", "headers": {"X-Key": "hunter22"},
        "input_path": "/in", "output_path": "/out",
    }  # fmt: skip
    shown = Service.of({"id": "1", "name": "s", "parameters": {"service": fields}}, None)
    assert shown.model == "http://host:80/x?... https://other"
    assert "hunter22" not in shown.model_dump_json()
