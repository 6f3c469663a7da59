"""Settle what killed pushes left open: find out what became of it, book it, and only then go on.

What has no second effect may be sent again; how, is `sources.core.writing`'s.
"""

from datetime import UTC, datetime
from pathlib import Path

from pipelines.progress import Progress
from pipelines.pushing.booking import book, is_booked
from pipelines.pushing.results import tally
from pipelines.settings import Project
from pipelines.warehouse import RunRecord, Warehouse, record_run
from sources import load
from sources.core import journal as journals
from sources.core.errors import ConfigError
from sources.core.journal import Journal, Story
from sources.core.rows import Outcome
from sources.core.sessions import open_session
from sources.core.writing import Courier


def settle_left_over(project: Project, warehouse: Warehouse, progress: Progress) -> None:
    """Find out and book what killed pushes left open; only what has no second effect is sent again.

    Raises what keeps the CRM from being asked; the journal then waits for the next push.
    """
    for path in journals.left_over(journal_folder(warehouse)):
        story = journals.read(path)
        with warehouse.reading() as con:
            is_done = story is None or is_booked(con, story.header.run_id)
        if story is None or is_done:
            journals.remove(path)
            continue
        if story.open:
            _resolve(project, story, path)
            story = journals.read(path) or story
        _book_left_over(warehouse, story, path, progress)


def journal_folder(warehouse: Warehouse) -> Path:
    """Tell where the journals of a warehouse's pushes are kept."""
    return warehouse.home / "journal"


def publish(warehouse: Warehouse, story: Story, record: RunRecord, path: Path) -> None:
    """Book a push in one generation with its run, then delete its journal."""
    with warehouse.generation() as con:
        book(con, story, path.parent)
        record_run(con, record)
    journals.remove(path)


def _book_left_over(warehouse: Warehouse, story: Story, path: Path, progress: Progress) -> None:
    header, counts = story.header, tally(story.booked)
    progress.say(
        f"{header.sync}: an earlier push was stopped half way; it had sent"
        f" {counts['created'] + counts['updated']} records, and {counts['unknown']} are unknown"
    )
    now = datetime.now(UTC)
    record = RunRecord(header.run_id, header.command, header.started_at, now, "interrupted", counts)
    publish(warehouse, story, record, path)


def _resolve(project: Project, story: Story, path: Path) -> None:
    header = story.header
    journal = Journal.resume(path)
    try:
        connection = project.connection(header.connection)
    except ConfigError:
        for batch in story.open:
            reason = "the push was stopped and its connection is gone"
            lost = [Outcome(row.seq, "unknown", reason=reason) for row in batch.rows]
            journal.outcome(batch.id, lost, at=datetime.now(UTC))
        journal.close()
        return
    try:
        with open_session(load(connection.crm), connection) as session:
            write = session.contract.writes[header.object]
            prefix = journals.fresh_prefix(path, "r")
            courier = Courier(session, write, journal, run_id=header.run_id, prefix=prefix)
            for batch in story.open:
                courier.settle(batch)
    finally:
        journal.close()
