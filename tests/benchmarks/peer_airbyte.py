"""The same list by PyAirbyte: a declarative source as its connector builder makes them, read into DuckDB.

Runs with a Python in which `airbyte` is installed: `PYTHON peer_airbyte.py URL FILE`.
"""

import os
import sys
from typing import Any

os.environ.setdefault("AIRBYTE_OFFLINE_MODE", "1")  # it asks a registry of connectors otherwise

import airbyte
from airbyte.caches import DuckDBCache

_TEXTS = (
    *("id", "object", "email", "first_name", "last_name", "phone", "company_id"),
    *("created_at", "updated_at"),
)


def manifest(url: str) -> dict[str, Any]:
    """Describe the list by cursor."""
    schema = {name: {"type": ["string", "null"]} for name in _TEXTS}
    stream = {
        "type": "DeclarativeStream",
        "name": "contacts",
        "primary_key": ["id"],
        "retriever": {
            "type": "SimpleRetriever",
            "requester": {
                "type": "HttpRequester",
                "url_base": url,
                "path": "/v1/contacts",
                "http_method": "GET",
            },
            "record_selector": {
                "type": "RecordSelector",
                "extractor": {"type": "DpathExtractor", "field_path": ["data"]},
            },
            "paginator": {
                "type": "DefaultPaginator",
                "page_token_option": {
                    "type": "RequestOption",
                    "inject_into": "request_parameter",
                    "field_name": "cursor",
                },
                "page_size_option": {
                    "type": "RequestOption",
                    "inject_into": "request_parameter",
                    "field_name": "limit",
                },
                "pagination_strategy": {
                    "type": "CursorPagination",
                    "page_size": 200,
                    "cursor_value": "{{ response.get('next_cursor') }}",
                    "stop_condition": "{{ not response.get('has_more') }}",
                },
            },
        },
        "schema_loader": {
            "type": "InlineSchemaLoader",
            "schema": {
                "type": "object",
                "properties": {**schema, "metadata": {"type": ["object", "null"]}},
            },
        },
    }
    return {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["contacts"]},
        "streams": [stream],
        "spec": {
            "type": "Spec",
            "connection_specification": {"type": "object", "properties": {}},
        },
    }


def main() -> None:
    """Read the list."""
    url, file = sys.argv[1:3]
    source = airbyte.get_source("source-relm", source_manifest=manifest(url), config={}, streams=["contacts"])
    source.read(cache=DuckDBCache(db_path=file, schema_name="relm"))


if __name__ == "__main__":
    main()
