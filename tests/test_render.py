"""What reaches a terminal: one-line errors, hostile texts made harmless, progress."""

import io
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import render
from pipelines.progress import PlainProgress, TerminalProgress
from sources.core import errors

HOSTILE = "a\x1b]0;owned\x07\x1b[31m\u202egnp\r\n[bold red]b[/]\x9b2J\ud800"


# -- how exceptions end --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.ConfigError("x"), 2),
        (errors.AuthError("x"), 3),
        (errors.QuotaError("x"), 1),
        (errors.LockedError("x"), 4),
        (errors.GuardError("x"), 5),
        (errors.UnavailableError("x"), 1),
        (errors.UncertainError("x"), 1),
        (KeyboardInterrupt(), 130),
        (ValueError("x"), 1),
    ],
)
def test_each_exception_has_its_exit_code(error: BaseException, exit_code: int) -> None:
    assert render.exit_code_of(error) == exit_code


def test_an_unforeseen_exception_is_told_without_what_it_quotes() -> None:
    with pytest.raises(ValueError, match="base 10") as caught:
        int("ann@example.com")
    line = render.error_line(caught.value)
    assert line.startswith("internal error: ValueError in test_render.py line ")
    assert "--debug" in line
    assert "ann@" not in line


# -- hostile texts -------------------------------------------------------------------------------


@dataclass
class Told:
    """A result with texts of a CRM's in it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    run_id: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = HOSTILE

    def payload(self) -> dict[str, Any]:
        counts = {"create": 0, "update": len(self.rows)}
        return {
            "sync": HOSTILE,
            "connection": "relm",
            "object": "contacts",
            "counts": counts,
            "rows": self.rows,
        }


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


@given(st.text(st.characters(codec=None)))
def test_no_text_reaches_a_terminal_with_control_characters(text: str) -> None:
    cleaned = render.clean(text)
    assert not any(
        ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0 or 0xD800 <= ord(each) < 0xE000 for each in cleaned
    )
    assert render.clean(cleaned) == cleaned
    assert "\n" not in cleaned


def test_names_in_any_script_stay_as_they_are() -> None:
    name = "Zoë Nguyễn 美咲 Олена — O'Brien [vip] 👩‍💻"
    assert render.clean(name) == name


def test_a_plan_with_hostile_values_is_shown_harmless_on_one_line_each() -> None:
    row = {
        "key": HOSTILE,
        "action": "update",
        "reason": HOSTILE,
        "fields": {HOSTILE: {"old": HOSTILE, "new": None}},
    }
    shown = io.StringIO()
    render.show(Told([row]), shown)
    assert is_harmless(shown.getvalue())
    assert len(shown.getvalue().splitlines()) == 3
    assert "[bold red]b[/]" in shown.getvalue()


def test_the_json_object_is_plain_ascii_and_keeps_the_values_whole() -> None:
    row = {"key": HOSTILE, "fields": {"score": {"old": float("nan"), "new": 1.5}}}
    text = render.json_object("plan", Told([row]))
    assert text.isascii()
    assert is_harmless(text)
    assert json.loads(text)["rows"][0] == {"key": HOSTILE, "fields": {"score": {"old": None, "new": 1.5}}}


def test_rows_past_a_thousand_are_listed_only_with_diff() -> None:
    plan = Told([{"key": str(number), "action": "update"} for number in range(1001)])
    assert len(json.loads(render.json_object("plan", plan))["rows"]) == 1000
    assert len(json.loads(render.json_object("plan", plan, all_rows=True))["rows"]) == 1001
    shown = io.StringIO()
    render.show(plan, shown)
    assert "981 more" in shown.getvalue()


def test_columns_line_up_for_wide_characters() -> None:
    lines = render.table_lines(["name", "rows"], [["美咲", 5], ["Ann", 1200]])
    assert lines == ["name   rows", "美咲      5", "Ann   1,200"]


# -- progress ------------------------------------------------------------------------------------


def test_plain_progress_tells_ends_and_a_sign_of_life_now_and_then() -> None:
    stream, now = io.StringIO(), [0.0]
    progress = PlainProgress(stream, every_s=10, clock=lambda: now[0])
    task = progress.start("relm contacts")
    progress.expect(task, 3000)
    for now[0] in (1.0, 20.0, 21.0):
        progress.advance(task, 1000)
    progress.close()
    assert stream.getvalue().splitlines() == [
        "relm contacts: 2,000 of 3,000, 100/s, 10 s left",
        "relm contacts: 3,000 of 3,000, 21 s",
    ]


def test_plain_progress_of_an_unknown_total_tells_the_rate_alone() -> None:
    stream, now = io.StringIO(), [0.0]
    progress = PlainProgress(stream, every_s=10, clock=lambda: now[0])
    task = progress.start("relm contacts")
    now[0] = 10.0
    progress.advance(task, 15)
    now[0] = 4000.0
    progress.close()
    assert stream.getvalue().splitlines() == ["relm contacts: 15, 1.5/s", "relm contacts: 15, 67 min"]


def test_progress_on_a_terminal_shows_markup_as_text_and_control_characters_escaped() -> None:
    from rich.console import Console

    stream, now = io.StringIO(), [0.0]
    console = Console(file=stream, force_terminal=True, color_system=None, width=200)
    progress = TerminalProgress(console, clock=lambda: now[0])
    task = progress.start(HOSTILE, 100)
    now[0] = 10.0
    progress.advance(task, 20)
    progress.say(HOSTILE)
    assert progress._bars is not None
    assert [bar.fields["pace"] for bar in progress._bars.tasks] == ["2.0/s, 40 s left"]
    progress.close()
    assert "[bold red]b[/]" in stream.getvalue()
    assert "\x1b]0;" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()


def test_progress_outlives_a_closed_stream() -> None:
    stream = io.StringIO()
    stream.close()
    progress = PlainProgress(stream)
    progress.say("still here")
    progress.done(progress.start("task"))
