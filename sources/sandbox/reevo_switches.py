"""The open questions of Reevo's pages, each with the answer this sandbox assumes."""

from dataclasses import dataclass
from typing import Literal

from sources.sandbox.echo import KEPT_AS_SENT, Echo


@dataclass(frozen=True, slots=True)
class ReevoSwitches:
    """Hold an answer for everything Reevo's pages leave open; the defaults are assumptions."""

    # Answers of v1
    payload_type: Literal["tolerated", "required"] = "tolerated"
    create_status: int = 200
    single: Literal["flat", "data"] = "flat"
    create_answer: Literal["full", "id", "empty"] = "full"
    upsert_answer: Literal["nested", "ids", "empty"] = "nested"
    missing_record: Literal["refused", "null"] = "refused"
    retrieval: Literal["pair", "lists", "refused"] = "pair"
    amounts: Literal["number", "string"] = "number"
    expired_status: int = 401
    permission_status: int = 403
    rule_status: int = 400
    # Searches of v1
    v1_default_limit: int = 100
    v1_max_limit: int = 100
    v1_order: Literal["created_asc", "created_desc"] = "created_asc"
    contacts_search: bool = False
    domain_match: Literal["folded", "exact"] = "folded"
    empty_domain: Literal["all", "none", "refused"] = "all"
    empty_search: Literal["all", "refused"] = "all"
    name_match: Literal["contains", "exact"] = "contains"
    # Writes of v1
    account_match: Literal["domain", "name"] = "domain"
    free_mail_accounts: bool = False
    null_clears_v1: bool = False
    unknown_owner: Literal["refused", "ignored"] = "refused"
    unknown_custom_field: Literal["refused", "ignored"] = "refused"
    unknown_pipeline: Literal["refused", "ignored"] = "refused"
    additional_contacts: Literal["replaces", "adds"] = "replaces"
    # Presence and answers of v2
    has_v2: bool = True
    next_cursor: Literal["top", "meta"] = "top"
    v2_default_limit: int = 50
    v2_max_limit: int = 100
    over_limit: Literal["capped", "refused"] = "capped"
    cursor_needs_query: bool = False
    cursor_ttl_s: float | None = None
    null_attributes: Literal["envelope", "bare", "left_out"] = "envelope"
    numbers: Literal["number", "string"] = "number"
    stamps_in_attributes: bool = True
    account_name: Literal["display_name", "name"] = "display_name"
    relationship_answer: Literal["flat", "data"] = "flat"
    # Filters and sorting of v2
    updated_at_filter: bool = True
    id_sortable: bool = True
    filter_depth: int = 3
    # Writes and errors of v2
    contact_match: tuple[str, ...] = ("contact_emails", "primary_email")
    account_match_keys: tuple[str, ...] = ("domain_name", "id")
    primary_email_writable: bool = True
    archived: Literal["hidden", "shown", "flagged"] = "hidden"
    sub_resources_touch: bool = True
    relationships_touch: bool = False
    # Pairs of a stage and the attribute that a record needs to enter it.
    entrance_criteria: tuple[tuple[str, str], ...] = ()
    v2_permissions: bool = True
    v2_error: Literal["error", "flat", "detail", "errors"] = "error"
    filter_status: int = 400
    field_status: int = 422
    # Both
    duplicates: Literal["refused", "allowed"] = "refused"
    same_values_touch: bool = True
    fraction_digits: int = 0
    list_lag_s: float = 0.0
    echo: Echo = KEPT_AS_SENT
    # Limits, of which none is published
    quota: int | None = None
    rate_limit: int | None = None
    rate_window_s: float = 60.0
    rate_window: Literal["fixed", "sliding"] = "fixed"
    refused_requests_count: bool = False
    retry_after: bool = False
    rate_headers: bool = False
