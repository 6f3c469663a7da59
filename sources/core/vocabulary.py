"""What columns and tables of CRMs mean, in the words that all share.

A CRM's own tables say what differs (`Resource.about`, `Resource.notes`, `Column.doc`); for the rest the name
of a column tells, and its meaning stands here once. Every column of a raw table has a text.
"""

from collections.abc import Mapping

from sources.core.connector import Column, Resource

TABLES: Mapping[str, str] = {
    "accounts": "Companies, as this CRM calls them accounts",
    "activities": "Calls, e-mails, meetings, notes and what else was done",
    "associations": "Links between records",
    "companies": "Companies",
    "contacts": "People",
    "deals": "Deals",
    "fields": "Definitions of custom fields",
    "notes": "Notes",
    "opportunities": "Deals, as this CRM calls them opportunities",
    "organizations": "The account's own organisation, not a customer",
    "tasks": "Things to do",
}

# Every raw table has these beside the columns of its resource.
BOOKKEEPING: Mapping[str, str] = {
    "_extra": "Fields that this table has no column for, and values that did not fit theirs; null where none",
    "_row_hash": "Digest of the row's values, by which a changed row is told from an unchanged one",
    "_synced_at": "When this version of the row landed here",
    "_deleted_at": "When the record was found to be gone from the CRM; null while it is there",
    "_dlt_load_id": "The load that brought this version of the row, as in _dlt_loads",
    "_dlt_id": "dlt's own id of the row",
}

_PEOPLE = {
    "email": "E-mail address, as the CRM holds it",
    "primary_email": "The main e-mail address",
    "contact_emails": "All e-mail addresses, the main one included",
    "first_name": "Given name",
    "middle_name": "Middle name",
    "last_name": "Family name",
    "full_name": "Whole name",
    "display_name": "Name as the CRM shows it",
    "phone": "Telephone number, as it was typed",
    "phone_number": "Telephone number, as it was typed",
    "primary_phone_number": "The main telephone number",
    "contact_phone_numbers": "All telephone numbers, the main one included",
    "mobile": "Mobile number, as it was typed",
    "department": "Department",
    "is_unsubscribed": "Whether the person does not want to be mailed",
    "sms_consent": "Whether the person agreed to text messages",
    "lifecycle_stage": "How far the relation has come, from subscriber to customer",
    "lead_source": "Where the lead came from",
    "lead_score": "The CRM's own score of the lead",
    "ai_score": "The CRM's own score, made by its model",
    "last_contacted_at": "When the person was last contacted",
    "last_touched_at": "When anybody last had to do with the person",
}

_COMPANIES = {
    "company": "Name of the company, as text",
    "company_name": "Name of the company",
    "domain": "Internet domain",
    "domain_name": "Internet domain, by which companies are told apart",
    "domains": "All internet domains",
    "industry": "Line of business",
    "website": "Address of the web site",
    "official_website": "Address of the web site",
    "websites": "All web sites",
    "employee_count": "Number of employees",
    "annual_revenue": "Revenue a year, in the currency of the CRM's account",
    "estimated_annual_revenue": "Estimated revenue a year",
    "linked_in_url": "Page on LinkedIn",
    "linkedin_url": "Page on LinkedIn",
    "facebook_url": "Page on Facebook",
    "x_url": "Page on X",
    "zoominfo_url": "Page on ZoomInfo",
    "address": "Postal address",
    "city": "City",
    "state": "State or region",
    "postal_code": "Postal code",
    "country": "Country",
}

_DEALS = {
    "amount": "Value in major units",
    "value": "Value in major units",
    "value_cents": "Value in minor units (cents)",
    "currency": "Currency, ISO 4217",
    "probability": "Chance of winning, as the CRM scales it",
    "closing_probability": "Chance of winning that the stage stands for, as the CRM scales it",
    "stage": "Stage in the pipeline",
    "stage_id": "The stage, by its id",
    "stage_name": "The stage, by its name",
    "stage_label": "The stage, as the CRM shows it",
    "stage_type": "Whether the stage is an open, a won or a lost one",
    "current_stage_id": "Stage in the CRM's own process",
    "stage_last_shifted_at": "When the deal came into its stage",
    "pipeline": "The pipeline",
    "pipeline_id": "The pipeline, by its id",
    "pipeline_name": "The pipeline, by its name",
    "outcome": "How it ended",
    "expected_close_date": "When the deal is expected to close",
    "actual_close_date": "When the deal closed",
    "close_date": "The closing date, expected or real",
    "closed_at": "When the deal closed",
    "next_step_details": "What is to be done next",
    "next_step_due_at": "When the next step is due",
    "next_action_due_at": "When the next action is due",
    "next_meeting_date": "When the next meeting is",
    "last_activity_at": "When something was last done about it",
}

_ACTIVITIES = {
    "activity_type": "Kind of activity",
    "sub_type": "Closer kind",
    "subject": "Subject line",
    "body": "Text",
    "note": "Text",
    "note_html": "Text, as HTML from whoever wrote it",
    "notes": "Free text",
    "summary": "Summary, in free text",
    "description": "Description, in free text",
    "occurred_at": "When it happened",
    "scheduled_at": "When it is to happen",
    "ended_at": "When it ended",
    "due_at": "When it is due",
    "due_date": "When it is due",
    "priority": "Priority",
    "badge_status": "State as the CRM's badge shows it",
    "call_direction": "Whether the call came in or went out",
    "call_outcome": "How the call ended",
    "call_duration_seconds": "How long the call took, in seconds",
    "duration_minutes": "How long it takes, in minutes",
    "location": "Where",
    "meeting_url": "Address of the online meeting",
    "is_private": "Whether only its owner sees it",
    "source_type": "What made it",
}

_LINKS = {
    "account_id": "The company, by its id",
    "company_id": "The company, by its id",
    "contact_id": "The person, by the contact's id",
    "contact_name": "Name of the person",
    "primary_contact_id": "The main person, by the contact's id",
    "primary_contact_email": "E-mail address of the main person",
    "deal_id": "The deal, by its id",
    "opportunity_id": "The deal, by its id",
    "from_type": "Kind of the record that is linked from",
    "from_id": "The record that is linked from, by its id",
    "to_type": "Kind of the record that is linked to",
    "to_id": "The record that is linked to, by its id",
    "owner_id": "The user who owns it, by the user's id",
    "owner_name": "Name of the user who owns it",
    "owner_email": "E-mail address of the user who owns it",
    "owner_user_id": "The user who owns it, by the user's id",
    "owner_team_id": "The team that owns it, by its id",
    "assigned_to": "The user who is to do it",
    "participant_user_id_list": "Users who take part, by their ids",
    "created_by": "Who made it",
    "created_by_user_id": "The user who made it, by the user's id",
    "tenant_id": "The tenant, by its id",
    "organization_id": "The CRM account that holds the record, by its id",
}

_ANY = {
    "id": "The record's id in the CRM, as text",
    "name": "Name",
    "title": "Title",
    "type": "Kind",
    "status": "Status",
    "tags": "Tags",
    "label": "Label",
    "key": "The field's name in records",
    "object": "Kind of object, as the API names it",
    "object_type": "Kind of object that has the field",
    "record_type": "Kind of record, as the API names it",
    "options": "Values to choose from",
    "required": "Whether a value is required",
    "custom_fields": "Custom fields of the workspace: key -> value",
    "metadata": "Further fields: key -> value",
    "version": "Number of the version, counted up by the CRM",
    "mode": "Whether the record is of the live or of the test mode",
    "deleted": "Whether the record was deleted",
    "created_at": "When the record was made",
    "updated_at": "When the record was last changed, by the CRM's clock",
}

COLUMNS: Mapping[str, str] = {**_PEOPLE, **_COMPANIES, **_DEALS, **_ACTIVITIES, **_LINKS, **_ANY}


def about_table(resource: Resource) -> str:
    """Say what a raw table holds."""
    return resource.about or TABLES.get(resource.name, f"Records of kind {resource.name}")


def about_column(resource: Resource, column: Column) -> str:
    """Say what a column holds: in its own words, else in those its name has everywhere."""
    own = column.doc or resource.notes.get(column.source)
    return own or COLUMNS.get(column.name, f"The CRM's field `{column.source}`")
