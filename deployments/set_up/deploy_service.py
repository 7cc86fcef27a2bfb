"""The console's form in the Prefect UI: a flow that takes a specification, creates the service and starts it."""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.artifacts import acreate_markdown_artifact

from deployments.services.lifecycle import create
from tasks.clients.processes.process_privacy import hide_memory
from tasks.domain.plain_text import markdown
from tasks.domain.service import BatchService
from tasks.prefect_side.reporting import artifact_key
from tasks.prefect_side.run_logs import in_our_words, plain_errors


@flow(name="deploy_service", flow_run_name="{service.name}", persist_result=False)
async def deploy_service(service: BatchService) -> str:
    """Create a batch service and start its first run. Returns the service's id.

    Raises SpecificationError with every problem, and creates nothing in that case.
    """
    hide_memory()
    plain_errors()
    with in_our_words():
        made = await create(service.model_dump(mode="json", by_alias=True))
    page, run = made.page, made.last_run.page if made.last_run else ""
    get_run_logger().info("created service=%s page=%s run=%s", made.name, page, run)
    await acreate_markdown_artifact(
        key=artifact_key(made.name, "service"),
        markdown=(
            f"# {markdown(made.name)}\n\nThe service was created and its first run was started.\n\n"
            f"- [its page]({page}): start it again, change its description, schedule it\n"
            f"- [its first run]({run}): graph, logs, results\n"
        ),
        description="The service that was created",
    )
    return made.id
