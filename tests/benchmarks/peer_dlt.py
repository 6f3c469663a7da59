"""The same rows carried to the sandbox by dlt's own destination decorator, as its documentation shows it.

Written with care for what an API offers: upserts where there are some, an idempotency key from the rows where
there is one, "it exists" taken for done. What dlt has not finished is finished by its next run.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dlt
from dlt.sources.helpers import requests

_BATCH = {"relm": 10, "rally": 100, "reevo": 1, "vivre": 1}


def main(arguments: Sequence[str]) -> int:
    """Run the pipeline once in the working directory, whose `leads.json` holds all rows with their round."""
    crm, name, how = arguments
    send = {"relm": _relm, "rally": _rally, "reevo": _reevo, "vivre": _vivre}[crm]
    mine = {
        key.split("__")[2].lower(): value for key, value in os.environ.items() if f"__{crm.upper()}__" in key
    }

    @dlt.destination(batch_size=_BATCH[crm], name="peer", loader_parallelism_strategy="parallel")
    def peer(items: Any, table: Any) -> None:
        send(mine, items if isinstance(items, list) else [items], name, how)

    @dlt.resource(name="leads", columns={"round": {"data_type": "bigint"}})
    def leads(updated: Any = dlt.sources.incremental("round", initial_value=0)) -> Any:  # noqa: B008
        yield json.loads(Path("leads.json").read_text(encoding="utf-8"))

    dlt.pipeline("peer", destination=peer, pipelines_dir=str(Path("dlt").absolute())).run(leads())
    return 0


def _relm(mine: dict[str, str], items: list[dict[str, Any]], name: str, how: str) -> None:
    contacts = [
        {"email": each["email"], "first_name": each["first"], "metadata": {"lead_score": each["round"]}}
        for each in items
    ]
    body = json.dumps({"contacts": contacts, "dedup_on": ["email"]}).encode()
    headers = {
        "Authorization": f"Bearer {mine['api_key']}",
        "Idempotency-Key": hashlib.sha256(body).hexdigest(),
        "Content-Type": "application/json",
    }
    _post(f"{mine['base_url']}/v1/contacts/batch", headers, body)


def _rally(mine: dict[str, str], items: list[dict[str, Any]], name: str, how: str) -> None:
    headers = {"X-Api-Key": mine["api_key"], "Content-Type": "application/json"}
    bodies = [
        {
            "email": each["email"],
            "firstName": each["first"],
            "lastName": each["first"],
            "leadScore": each["round"],
        }
        for each in items
    ]
    if how == "bulk":
        _post(f"{mine['base_url']}/contacts/bulk", headers, json.dumps(bodies).encode())
        return
    for body in bodies:
        url = f"{mine['base_url']}/contacts/upsert"
        requests.put(url, headers=headers, data=json.dumps(body).encode()).raise_for_status()


def _reevo(mine: dict[str, str], items: list[dict[str, Any]], name: str, how: str) -> None:
    headers = {"X-Api-Key": mine["api_key"], "Content-Type": "application/json"}
    for each in items:
        attributes = {"first_name": each["first"], "title": str(each["round"])}
        body = {"match": {"contact_emails": each["email"]}, "attributes": attributes}
        _post(f"{mine['base_url']}/api/v2/contact/_assert", headers, json.dumps(body).encode())


def _vivre(mine: dict[str, str], items: list[dict[str, Any]], name: str, how: str) -> None:
    headers = {
        "Authorization": f"Bearer {mine['api_key']}",
        "X-Workspace-ID": mine["workspace_id"],
        "Content-Type": "application/json",
    }
    for each in items:
        deal = {"contact_id": each["contact"], "title": each["email"]}
        body = deal if name == "deals" else {"email": each["email"], "name": each["first"]}
        _post(f"{mine['base_url']}/{name}", headers, json.dumps(body).encode())


def _post(url: str, headers: dict[str, str], body: bytes) -> None:
    answer = requests.Client(raise_for_status=False).post(url, headers=headers, data=body)
    if answer.status_code != 409 and "already exists" not in answer.text:
        answer.raise_for_status()
