"""The same list by Singer: a tap of Meltano's SDK as one writes it today, piped into `target-duckdb`.

Runs with a Python in which `singer-sdk` and `target-duckdb` are installed: `PYTHON peer_singer.py URL FILE`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th


class Contacts(RESTStream[str]):
    """One list by cursor."""

    name = "contacts"
    path = "/v1/contacts"
    primary_keys = ("id",)
    replication_key = "updated_at"
    records_jsonpath = "$.data[*]"
    next_page_token_jsonpath = "$.next_cursor"
    schema = th.PropertiesList(
        *(
            th.Property(name, th.StringType)
            for name in ("id", "object", "email", "first_name", "last_name", "phone", "company_id")
        ),
        th.Property("metadata", th.ObjectType(additional_properties=True)),
        th.Property("created_at", th.DateTimeType),
        th.Property("updated_at", th.DateTimeType),
    ).to_dict()

    @property
    def url_base(self) -> str:
        """Give the server's address."""
        return str(self.config["url"])

    def get_url_params(self, context: Any, next_page_token: str | None) -> dict[str, Any]:
        """Ask for the page after the last one."""
        return {"limit": 200} | ({"cursor": next_page_token} if next_page_token else {})


class TapRelm(Tap):
    """The tap."""

    name = "tap-relm"
    config_jsonschema = th.PropertiesList(th.Property("url", th.StringType, required=True)).to_dict()

    def discover_streams(self) -> list[Contacts]:
        """List its one stream."""
        return [Contacts(self)]


def main() -> int:
    """Be the tap where its own arguments are given, else run tap and target."""
    if "--config" in sys.argv:
        TapRelm.cli()
        return 0
    url, file = sys.argv[1:3]
    tap = [sys.executable, __file__, "--config", _kept("tap.json", {"url": url})]
    settings = {"path": file, "default_target_schema": "relm"}
    target = [
        str(Path(sys.executable).with_name("target-duckdb")),
        "--config",
        _kept("target.json", settings),
    ]
    environ = {**os.environ, "TAP_RELM_LOGLEVEL": "ERROR"}
    with subprocess.Popen(tap, stdout=subprocess.PIPE, env=environ) as giver:
        taken = subprocess.run(target, stdin=giver.stdout, stdout=subprocess.DEVNULL, check=False)
    return taken.returncode or giver.returncode


def _kept(name: str, settings: Mapping[str, Any]) -> str:
    path = Path(name).absolute()
    path.write_text(json.dumps(settings), encoding="utf-8")
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
