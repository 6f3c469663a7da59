"""What Relm's modern contract leaves open, as switches; the defaults are assumptions."""

from dataclasses import dataclass
from typing import Literal

from sources.sandbox.echo import KEPT_AS_SENT, Echo

Plan = Literal["free", "pro", "scale"]
Members = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class RelmModernSwitches:
    """Hold an answer for everything Relm's later pages leave open, and the plan of the workspace."""

    # Lists
    order: Literal["created_asc", "created_desc"] = "created_asc"
    default_limit: int = 25
    max_limit: int = 100
    last_cursor: Literal["null", "given"] = "null"
    cursor_ttl_s: float | None = None
    list_lag_s: float = 0.0
    fraction_digits: int = 0
    # Single records
    create_status: int = 201
    duplicate_create: Literal["conflict", "existing"] = "conflict"
    existing_status: int = 200
    conflict_member: str | None = "existing"  # where in a 409 the existing record stands; None: nowhere
    email_match: Literal["folded", "exact"] = "folded"
    deleted_email: Literal["free", "held"] = "free"
    deleted_by_id: Literal["missing", "shown"] = "missing"
    restore_window_s: float | None = None  # deleted records are erased after it
    test_mode_days: float = 7.0
    if_match: Literal["either", "bare", "quoted"] = "either"
    null: Literal["clears", "refused", "ignored"] = "clears"
    custom_write: Literal["replaces", "merges"] = "replaces"
    unknown_custom: Literal["refused", "kept"] = "refused"
    patch_needs_name: bool = False  # the input schemas mark name and title as required, for PATCH too
    echo: Echo = KEPT_AS_SENT
    # Batch
    batch_max: int = 100
    batch_answer: Literal["rows", "results", "http", "bare"] = "rows"
    batch_atomic: bool = False
    # Idempotency
    idempotency_window_s: float = 86_400.0
    idempotency_path_counts: bool = False
    replays: Literal["all", "successes"] = "all"
    repeats_in_progress: int = 0  # so many repeats of a key find the first request still running
    # Limits and errors
    rate_limit: int | None = 6_000
    rate_window_s: float = 60.0
    rate_members: Members = ("Limit", "Remaining", "Reset")
    retry_after: bool = True
    plan: Plan = "pro"
    quota: int | None = None  # requests a month; None: what the plan gives
    quota_used: int = 0
    quota_members: Members = ("Limit", "Remaining", "Reset")
    overage_cap_usd: float | None = None
    overage_usd: float = 0.001  # for one request beyond the quota
    usage_is_free: bool = False  # GET /usage is neither counted nor refused
    classic_errors: Literal["401", "always", "never"] = "401"  # answers that also carry `error`
