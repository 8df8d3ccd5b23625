"""A small image registry for tests: one image, and refusals as real registries word them. Plain HTTP on loopback.

`app:1` can be pulled; any other tag of `app` and any other name is unknown, and `broken` fails. With a login, all of it
is for that login only.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from swarmcore.testing.engines import BUSYBOX
from swarmcore.testing.ports import listen

MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True, slots=True)
class Registry:
    """One that answers."""

    port: int

    def image(self, name: str) -> str:
        return f"127.0.0.1:{self.port}/{name}"


@dataclass(frozen=True, slots=True)
class _Blob:
    kind: str
    data: bytes

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    @property
    def description(self) -> dict[str, object]:
        return {"mediaType": self.kind, "size": len(self.data), "digest": self.digest}


@contextlib.contextmanager
def registry(*, namespace: str = "", port: int = 0, login: tuple[str, str] | None = None) -> Iterator[Registry]:
    """A registry in a network namespace, on any port where it is 0."""
    listening = listen(namespace, port)
    manifest, blobs = _image()
    handler = type("Handler", (_Handler,), {"manifest": manifest, "blobs": blobs, "login": login})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="registry")
    thread.start()
    try:
        yield Registry(listening.getsockname()[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _image() -> tuple[_Blob, dict[str, _Blob]]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("bin")
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
        tar.add(BUSYBOX, "bin/busybox")
        for name in ("sh", "sleep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    plain = out.getvalue()
    layer = _Blob(LAYER_TYPE, gzip.compress(plain, compresslevel=1, mtime=0))
    configuration = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]},
    }
    config = _Blob(CONFIG_TYPE, json.dumps(configuration).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.description,
        "layers": [layer.description],
    }
    return _Blob(MANIFEST_TYPE, json.dumps(manifest).encode()), {blob.digest: blob for blob in (config, layer)}


class _Handler(BaseHTTPRequestHandler):
    manifest: _Blob
    blobs: dict[str, _Blob]
    login: tuple[str, str] | None
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.login is not None and self.headers.get("Authorization") != _basic(self.login):
            self._refuse(401, "UNAUTHORIZED", "authentication required")
            return
        path = Path(self.path.partition("?")[0])
        if path == Path("/v2"):
            self._answer(200, "application/json", b"{}")
        elif path.parts[2] == "broken":
            self._answer(500, "text/plain", b"out of order")
        elif path.parts[2] != "app":
            self._refuse(404, "NAME_UNKNOWN", "repository name not known to registry")
        elif path.parent.name == "manifests" and path.name in ("1", self.manifest.digest):
            self._send(self.manifest)
        elif path.parent.name == "blobs" and path.name in self.blobs:
            self._send(self.blobs[path.name])
        else:
            self._refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")

    do_HEAD = do_GET

    def _send(self, blob: _Blob) -> None:
        self._answer(200, blob.kind, blob.data, blob.digest)

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self._answer(status, "application/json", body)

    def _answer(self, status: int, kind: str, body: bytes, digest: str = "") -> None:
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test reads what the engine says."""


def _basic(login: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()
