"""A Hugging Face Hub on the loopback: enough of its HTTP interface to download models and data sets at a revision.

Only for tests. `HF_ENDPOINT` is read when huggingface_hub is imported, so the code under test runs in a child process:

    with HubStandIn() as hub:
        commit = hub.commit("model", "acme/tiny", {"config.json": b"{}"})
        result = hub.run_child("print(...)", home=tmp_path)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

RESOLVE = re.compile(r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)(?:/(?P<verb>revision|tree|paths-info)/(?P<revision>[^/]+)"
    r"(?:/(?P<path>.+))?)?"
)
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Repository:
    """Commits (hash -> files) and refs (branch or tag -> hash)."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class HubStandIn:
    """The server; `requests` lists what was asked, e.g. "GET /api/models/acme/tiny"; `after` is called with each."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []
        self.after: Callable[[str], None] = lambda request: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubStandIn:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, kind: str, name: str, files: Mapping[str, bytes], *, branch: str = "main") -> str:
        """A new commit with exactly `files`, to which `branch` moves; its hash. `kind` is "model" or "dataset"."""
        repository = self.repositories.setdefault((kind, name), Repository())
        seed = repr((name, len(repository.commits), sorted(files.items())))
        commit = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
        repository.commits[commit] = dict(files)
        repository.refs[branch] = commit
        return commit

    def commit_folder(self, kind: str, name: str, folder: Path, *, branch: str = "main") -> str:
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return self.commit(kind, name, files, branch=branch)

    def tag(self, kind: str, name: str, tag: str, commit: str) -> None:
        self.repositories[kind, name].refs[tag] = commit

    def environment(self, home: Path, *, is_offline: bool = False) -> dict[str, str]:
        """For a child process: this Hub, a cache of its own, no proxies, no telemetry."""
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment = {name: value for name, value in environment.items() if not name.startswith(("HF_", "HUGGING"))}
        # telemetry and auto-conversion would start threads that ask for more than a test declares
        quiet = {
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "DISABLE_SAFETENSORS_CONVERSION": "1",
        }
        where = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1" if is_offline else "0"}
        return environment | quiet | where | {"OMP_NUM_THREADS": "1"}

    def run_child(self, script: str, *, home: Path, is_offline: bool = False, **arguments: str) -> Any:
        """Run `script`, which sees `arguments` as the dictionary `given`; the JSON value that it prints last."""
        head = f"import json\ngiven = json.loads({json.dumps(json.dumps(arguments))})\n"
        child = subprocess.run(
            [sys.executable, "-c", head + script],
            env=self.environment(home, is_offline=is_offline),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert child.returncode == 0, child.stderr[-6000:]
        return json.loads(child.stdout.splitlines()[-1])


def _handler(hub: HubStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        stand_in = hub

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: HubStandIn

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        pass

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _answer(self, body: bytes) -> None:
        path = urlsplit(self.path).path
        self.stand_in.requests.append(f"{self.command} {path}")
        if match := RESOLVE.fullmatch(path):
            self._resolve("dataset" if match["kind"] else "model", match)
        elif match := API.fullmatch(path):
            self._api(match["kind"].removesuffix("s"), match, body)
        else:
            self._refuse("EntryNotFound", "no such address")
        self.stand_in.after(f"{self.command} {path}")

    def _find(self, kind: str, match: re.Match[str]) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files, or None after the refusal was sent."""
        repository = self.stand_in.repositories.get((kind, match["name"]))
        if repository is None:
            self._refuse("RepoNotFound", "Repository not found")
            return None
        commit = repository.resolve(unquote(match["revision"] or "main"))
        if commit is None:
            self._refuse("RevisionNotFound", "Invalid rev id")
            return None
        return commit, repository.commits[commit]

    def _resolve(self, kind: str, match: re.Match[str]) -> None:
        if (found := self._find(kind, match)) is None:
            return
        commit, files = found
        content = files.get(unquote(match["path"]))
        if content is None:
            self._refuse("EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(content)}"', "Accept-Ranges": "bytes"}
        part = RANGE.fullmatch(self.headers.get("Range", ""))
        if part is None:
            self._send(200, content, headers)
            return
        first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first : last + 1], headers)

    def _api(self, kind: str, match: re.Match[str], body: bytes) -> None:
        if (found := self._find(kind, match)) is None:
            return
        commit, files = found
        entries = _entries(files)
        if match["verb"] == "tree":
            self._tree(entries, unquote(match["path"] or ""))
        elif match["verb"] == "paths-info":
            wanted = _paths(body, self.headers.get("Content-Type", ""))
            self._send_json([entries[path] for path in wanted if path in entries])
        else:
            siblings = [{"rfilename": name} for name in sorted(files)]
            self._send_json({"id": match["name"], "sha": commit, "private": False, "siblings": siblings, "tags": []})

    def _tree(self, entries: dict[str, dict[str, Any]], folder: str) -> None:
        if folder and folder not in entries:
            self._refuse("EntryNotFound", "Entry not found")
            return
        inside = {path: entry for path, entry in entries.items() if not folder or path.startswith(f"{folder}/")}
        is_deep = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in {"true", "1"}
        depth = folder.count("/") + bool(folder)
        self._send_json([entry for path, entry in inside.items() if is_deep or path.count("/") == depth])

    def _refuse(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"error": message}).encode()
        self._send(404, body, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _entries(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Path -> what the Hub says of it, for every file and folder."""
    entries: dict[str, dict[str, Any]] = {}
    for path, content in sorted(files.items()):
        for parent in reversed(Path(path).parents[:-1]):
            entries[str(parent)] = {"type": "directory", "path": str(parent), "oid": _oid(str(parent).encode())}
        entries[path] = {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
    return entries


def _paths(body: bytes, content_type: str) -> list[str]:
    if "json" in content_type:
        return [str(path) for path in json.loads(body)["paths"]]
    return parse_qs(body.decode()).get("paths", [])
