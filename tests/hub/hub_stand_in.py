"""A small stand-in for the hub: an HTTP server that answers what `huggingface_hub`, `transformers` and `datasets` ask.

    with Hub() as hub:
        hub.add("models", "Qwen/Qwen2.5-1.5B-Instruct", folder)
        subprocess.run([sys.executable, "script.py"], env={**os.environ, **hub.environment(home)})

Ids, downloads, uploads: nothing in the client is replaced, it only looks elsewhere (HF_ENDPOINT). What is asked and not
known is a 404 and is kept in `hub.unknown`, so that a test can say what a client wanted.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KINDS = ("models", "datasets")


class Hub:
    """Repositories in memory, by kind and id: path -> bytes."""

    def __init__(self):
        self.repositories: dict[tuple[str, str], dict[str, bytes]] = {}
        self.unknown: list[str] = []
        self.asked: list[str] = []
        hub = self

        class Answers(_Answers):
            repositories, unknown, asked = hub.repositories, hub.unknown, hub.asked

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, kind, name, folder):
        """Serve the files of a folder under an id."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        self.repositories[kind, name] = files

    def environment(self, home):
        """What a process needs to look here: nothing of this machine's cache, no other transfer than HTTP."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_TOKEN": "hf_stand_in",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }


class _Answers(BaseHTTPRequestHandler):
    repositories: dict[tuple[str, str], dict[str, bytes]]
    unknown: list[str]
    asked: list[str]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        if path.startswith("/api/whoami"):
            return self._json({"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}, "orgs": []})
        if match := re.fullmatch(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(match[1] or "models", match[2], match[4])
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path):
            return self._tree(match[1], match[2], match[4] or "")
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            return self._info(match[1], match[2])
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/refs", path):
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}
            return self._json({"branches": [main], "tags": [], "converts": [], "pullRequests": []})
        return self._not_found("EntryNotFound")

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
            self.repositories.setdefault((f"{asked.get('type') or 'model'}s", name), {})
            return self._json({"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/paths-info/([^/]+)", path):
            return self._paths_info(match[1], match[2], body)
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/preupload/([^/]+)", path):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/commit/([^/]+)", path):
            return self._commit(match[1], match[2], body)
        return self._not_found("EntryNotFound")

    def _repository(self, kind, name):
        files = self.repositories.get((kind, name))
        if files is None:
            self._not_found("RepoNotFound")
        return files

    def _file(self, kind, name, path):
        files = self._repository(kind, name)
        if files is None:
            return
        if path not in files:
            return self._not_found("EntryNotFound", said=f"{name}/{path}")
        data = files[path]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_oid(data)}"', "Accept-Ranges": "bytes"}
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")) else 0
        self._send(data[start:], "application/octet-stream", headers, status=206 if start else 200)

    def _tree(self, kind, name, folder):
        files = self._repository(kind, name)
        if files is None:
            return
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = f"{folder.rstrip('/')}/" if folder else ""
        entries = {}
        for path, data in files.items():
            if not path.startswith(prefix):
                continue
            inner, _, rest = path[len(prefix) :].partition("/")
            if rest and not recursive:
                entries[prefix + inner] = {"type": "directory", "path": prefix + inner, "oid": COMMIT, "size": 0}
            else:
                entries[path] = _entry(path, data)
        if not entries:
            return self._not_found("EntryNotFound")
        self._json(list(entries.values()))

    def _paths_info(self, kind, name, body):
        files = self._repository(kind, name)
        if files is None:
            return
        is_json = "json" in (self.headers.get("Content-Type") or "")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode()).get("paths", [])
        entries = []
        for path in paths:
            if path in files:
                entries.append(_entry(path, files[path]))
            elif any(file.startswith(f"{path}/") for file in files):
                entries.append({"type": "directory", "path": path, "oid": COMMIT, "size": 0})
        self._json(entries)

    def _info(self, kind, name):
        files = self._repository(kind, name)
        if files is None:
            return
        siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
        facts = {"_id": "0" * 24, "id": name, "modelId": name, "sha": COMMIT, "private": False, "gated": False}
        self._json({**facts, "disabled": False, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})

    def _commit(self, kind, name, body):
        files = self._repository(kind, name)
        if files is None:
            return
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                assert entry["value"]["encoding"] == "base64"
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        address = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
        self._json(
            {"success": True, "commitOid": COMMIT, "commitUrl": address, "pullRequestUrl": None, "hookOutput": ""}
        )

    def _not_found(self, code, said=None):
        self.unknown.append(said or f"{self.command} {self.path}")
        self._send(
            b'{"error":"not here"}', "application/json", {"X-Error-Code": code, "X-Error-Message": code}, status=404
        )

    def _json(self, value):
        self._send(json.dumps(value).encode(), "application/json", {"X-Repo-Commit": COMMIT})

    def _send(self, data, kind, headers, status=200):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _oid(data):
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _entry(path, data):
    return {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
