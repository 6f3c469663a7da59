"""Commands that look at the warehouse and change nothing: `status`."""

from pipelines import render
from pipelines.commands.running import AsJson, run
from pipelines.progress import Progress


def status(as_json: AsJson = False) -> int:
    """Show how fresh everything is, and how each sync stands.

    It asks no CRM: it tells what the warehouse knows.
    """

    def work(_: Progress) -> render.Result:
        from pipelines.settings import load_project
        from pipelines.status import status as run_status

        return run_status(load_project())

    return run("status", work, as_json=as_json)
