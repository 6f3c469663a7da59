"""A sixth CRM needs one module (`sixth/harbor.py`): it is then found, pulled, unified and written to."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import sources
from pipelines.progress import SilentProgress
from pipelines.push import push
from pipelines.settings import load_project
from tests.pulling import part, pulled, rows

SYNC = """
[syncs.ranks]
connection = "harbor"
object = "people"
model_sql = "select 'p3@x.example' as mail, 9 as rank union all select 'new@x.example', 1"
key = "mail"
[syncs.ranks.fields]
mail = "mail"
rank = "rank"
"""


class _Harbor(BaseHTTPRequestHandler):
    people: dict[str, dict[str, Any]]

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        found = [each for each in self.people.values() if each["changedAt"] >= query.get("changedSince", "")]
        start = int(query.get("after", 0))
        stop = start + int(query["limit"])
        self._answer({"items": found[start:stop], "after": str(stop) if stop < len(found) else None})

    def do_PUT(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        known = {each["mail"]: each for each in self.people.values()}
        person = known.get(sent["mail"]) or {"id": f"h{len(self.people)}", "name": None}
        self.people[person["id"]] = person | sent | {"changedAt": "2026-02-01T00:00:00Z"}
        self._answer({"id": person["id"], "isNew": sent["mail"] not in known})

    def _answer(self, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def harbor(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(Path(__file__).parent / "sixth")])
    ids = [f"h{number}" for number in range(8)]
    _Harbor.people = {
        each: {
            "id": each,
            "mail": f"p{each[1:]}@x.example",
            "name": "P",
            "rank": 0,
            "changedAt": "2026-01-01T00:00:00Z",
        }
        for each in ids
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Harbor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", _Harbor.people
    server.shutdown()
    server.server_close()


def test_a_sixth_crm_is_one_module(harbor: tuple[str, dict[str, dict[str, Any]]], tmp_path: Path) -> None:
    url, people = harbor
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(SYNC)
    project = load_project(
        tmp_path, environ={"SOURCES__HARBOR__BASE_URL": url, "SOURCES__HARBOR__API_KEY": "k"}
    )
    assert "harbor" in sources.names()
    assert part(pulled(project), "harbor.people")["new"] == 8
    assert rows(project, "select count(*) from crm.contacts where crm = 'harbor'") == [(8,)]
    sent = push(project, "ranks", confirm=lambda plan: True, progress=SilentProgress())
    assert sent.payload()["counts"] | {"created": 1, "updated": 1} == sent.payload()["counts"]
    assert {each["mail"]: each["rank"] for each in people.values() if each["rank"]} == {
        "p3@x.example": 9,
        "new@x.example": 1,
    }
