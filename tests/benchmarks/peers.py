"""Other ways to bring the same list into DuckDB: `python -m tests.benchmarks.peers NAME URL FILE`.

`dlt` and `dlt_parquet` are dlt's `rest_api` as one writes it today, with its default file format and with
parquet. `floor` is the least that can be done without dlt: httpx, pages to disk, one `read_json` of DuckDB.
`pages` asks for the pages and throws them away, which no reader of the list can be faster than.
"""

import sys
from pathlib import Path

_ROWS = (
    "STRUCT(id VARCHAR, object VARCHAR, email VARCHAR, first_name VARCHAR, last_name VARCHAR, phone VARCHAR,"
    " company_id VARCHAR, metadata JSON, created_at TIMESTAMPTZ, updated_at TIMESTAMPTZ)[]"
)


def run_dlt(url: str, file: Path, loader_file_format: str | None) -> None:
    """Load `contacts` with dlt's own REST source: incremental by the change stamp, merged by id."""
    import dlt
    from dlt.sources.rest_api import rest_api_source

    source = rest_api_source(
        {
            "client": {
                "base_url": f"{url}/v1/",
                "paginator": {"type": "cursor", "cursor_path": "next_cursor", "cursor_param": "cursor"},
            },
            "resource_defaults": {"primary_key": "id", "write_disposition": "merge"},
            "resources": [
                {
                    "name": "contacts",
                    "endpoint": {
                        "path": "contacts",
                        "params": {
                            "limit": 200,
                            "filter[updated_at][gte]": "{incremental.start_value}",
                        },
                        "data_selector": "data",
                        "incremental": {
                            "cursor_path": "updated_at",
                            "initial_value": "1970-01-01T00:00:00Z",
                        },
                    },
                }
            ],
        }
    )
    pipeline = dlt.pipeline(
        "peer",
        pipelines_dir=str(file.parent / "pipelines"),
        destination=dlt.destinations.duckdb(str(file)),
        dataset_name="relm",
    )
    pipeline.run(source, loader_file_format=loader_file_format)  # type: ignore[arg-type]


def run_floor(url: str, file: Path) -> None:
    """Fetch page after page, keep the bodies, and let DuckDB read them once."""
    import duckdb
    import httpx
    import msgspec

    class Place(msgspec.Struct):
        has_more: bool
        next_cursor: str | None = None

    params = {"limit": "200"}
    bodies = file.with_suffix(".ndjson")
    with httpx.Client(timeout=60) as client, bodies.open("wb") as out:
        while True:
            body = client.get(f"{url}/v1/contacts", params=params).content
            out.write(body + b"\n")
            place = msgspec.json.decode(body, type=Place)
            if not place.has_more:
                break
            params["cursor"] = place.next_cursor or ""
    with duckdb.connect(str(file)) as con:
        con.execute(
            f"""
            create schema relm;
            create table relm.contacts as
            select unnest(data, max_depth := 2) from read_json(
                '{bodies}', columns = {{data: '{_ROWS}'}},
                format = 'newline_delimited', maximum_object_size = 100000000
            )
            """
        )
    bodies.unlink()


def run_pages(url: str) -> None:
    """Fetch page after page by the standard library, which takes a third of httpx's time."""
    import json
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    con = HTTPConnection(urlsplit(url).netloc)
    cursor = ""
    while True:
        con.request("GET", f"/v1/contacts?limit=200{cursor}")
        tail = con.getresponse().read()[-100:]
        place = json.loads(b"{" + tail[tail.index(b'"has_more"') :])
        if not place["has_more"]:
            return
        cursor = f"&cursor={place['next_cursor']}"


def main() -> None:
    """Run the peer that is named."""
    name, url, file = sys.argv[1:4]
    if name == "pages":
        run_pages(url)
    elif name == "floor":
        run_floor(url, Path(file))
    else:
        run_dlt(url, Path(file), "parquet" if name == "dlt_parquet" else None)


if __name__ == "__main__":
    main()
