"""A stand-in for Kaggle on this machine that speaks the protocol of its client (kaggle 2.2.4, kagglesdk
0.1.37).

The client takes this server for the proxy to http://localhost. As the real platform, it asks for credentials,
takes a submission only for a file that arrived whole, and counts what is spent. A fault, such as
("CreateSubmission", "cut after"), is used once, by the first request whose path it is found in. Its answer is
`cut` (the connection is closed at once), `cut after` (closed after the work was done), or a status with a
body, (500, {...}).
"""

import base64
import io
import json
import threading
import zipfile
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from submissions.kaggle import client

USER, KEY, TOKEN = "ada", "0123456789abcdef0123456789abcdef", "KGAT_fedcba98765432100123456789"
SIGNATURE = "Signature=5ecre7"


class Refused(Exception):
    """The platform says no: status and message."""


class KaggleServer(ThreadingHTTPServer):
    """State of the platform, in memory."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.competitions: dict[str, dict[str, Any]] = {}
        self.submissions: list[dict[str, Any]] = []
        self.datasets: dict[str, dict[str, Any]] = {}
        self.kernels: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, dict[str, Any]] = {}
        self.faults: list[tuple[Any, ...]] = []
        self.requests: list[tuple[str, Any]] = []  # path and content of every one, in order
        self.scores: tuple[
            float, ...
        ] = ()  # public and perhaps private, that every submission gets by itself
        self.lag = 0  # looks at a data set after which a new version becomes the current one
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def server_close(self):  # at the end of `with`
        self.shutdown()
        super().server_close()

    def connect(self, home, patch):
        """Lead the client here, which reads some of the variables only when it is imported."""
        proxy = f"http://127.0.0.1:{self.server_port}"
        empty = dict.fromkeys(
            ("KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME", "no_proxy", "NO_PROXY"), ""
        )
        variables = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": proxy, "HOME": str(home)}
        for name, value in {**empty, **variables, "KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY}.items():
            patch.setenv(name, value)
        from kaggle.api.kaggle_api_extended import KaggleApi

        KaggleApi.args, KaggleApi.config = ["--local"], str(home / ".kaggle" / "kaggle.json")
        client.login.cache_clear()

    def score(self, ref, public="", private="", error=""):
        """Score a submission, or let it fail."""
        one = next(one for one in self.submissions if str(one["ref"]) == ref)
        one |= {"status": "ERROR" if error else "COMPLETE", "errorDescription": error}
        one |= {"publicScore": str(public), "privateScore": str(private)}

    def calls(self, name):
        """What the requests whose path has `name` in it brought."""
        return [content for path, content in self.requests if name in path]

    # What each call does; names as in the client.

    def IntrospectToken(self, request):
        return {"active": True, "username": USER} if request["token"] == TOKEN else {"active": False}

    def DownloadDataFiles(self, request):
        return f"http://localhost/storage/{request['competitionName']}/archive.zip?{SIGNATURE}"

    def StartSubmissionUpload(self, request):
        return self.StartBlobUpload(request | {"name": request["fileName"]})

    def CreateSubmission(self, request):
        upload = self.arrived(request["blobFileTokens"])
        return self.submit(request, upload["name"], upload["content"])

    def CreateCodeSubmission(self, request):
        kernel = self.kernels.get(f"{request['kernelOwner']}/{request['kernelSlug']}")
        if kernel is None or request["kernelVersion"] > len(kernel["versions"]):
            raise Refused(404, "Kernel version not found")
        return self.submit(request, request["fileName"], b"")

    def GetSubmissionLimits(self, request):
        n, limit = len(self.submissions), self.competitions[request["competitionName"]]["limit"]
        return {"numToday": n, "numTotal": n, "numAllowedNow": limit - n}

    def ListSubmissions(self, request):
        for one in self.submissions:
            if self.scores and one["status"] == "PENDING":
                self.score(str(one["ref"]), *self.scores)
        size = request["pageSize"]
        start = (request["page"] - 1) * size
        return {"submissions": self.submissions[::-1][start : start + size]}

    def SaveKernel(self, request):
        unknown = [source for source in request.get("datasetDataSources", []) if source not in self.datasets]
        kernel = self.kernels.setdefault(request["slug"], {"versions": []})
        kernel["versions"].append(request)
        return {"versionNumber": len(kernel["versions"]), "invalidDatasetSources": unknown}

    def GetDatasetStatus(self, request):
        dataset = self.datasets.get(f"{request['ownerSlug']}/{request['datasetSlug']}")
        if dataset is None:
            raise Refused(403, "Permission 'datasets.get' was denied")
        return {"status": dataset["status"]}

    def GetDataset(self, request):
        dataset = self.datasets[f"{request['ownerSlug']}/{request['datasetSlug']}"]
        dataset["looks"] += 1
        if dataset["looks"] > self.lag:
            dataset["current"] = len(dataset["versions"])
        return {"currentVersionNumber": dataset["current"]}

    def CreateDataset(self, request):
        return self.version(f"{request['ownerSlug']}/{request['slug']}", request, "")

    def CreateDatasetVersion(self, request):
        body = request["body"]
        return self.version(
            f"{request['ownerSlug']}/{request['datasetSlug']}", body, body.get("versionNotes", "")
        )

    def StartBlobUpload(self, request):
        token = f"blob-{len(self.uploads)}"
        self.uploads[token] = {
            "name": request["name"],
            "size": request.get("contentLength", 0),
            "content": b"",
        }
        return {"token": token, "createUrl": f"http://localhost/upload/{token}?{SIGNATURE}"}

    def arrived(self, token):
        upload = self.uploads[token]
        if len(upload["content"]) != upload["size"]:
            raise Refused(400, "The file was not uploaded")
        return upload

    def submit(self, request, name, content):
        if len(self.submissions) >= self.competitions[request["competitionName"]]["limit"]:
            raise Refused(400, "Submission not allowed: your team has used its daily submissions.")
        ref = 1000 + len(self.submissions)
        one = {
            "ref": ref,
            "fileName": name,
            "description": request.get("submissionDescription", ""),
            "status": "PENDING",
        }
        one |= {"date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}7Z", "publicScore": "", "privateScore": ""}
        self.submissions.append(one | {"content": content, "totalBytes": len(content)})
        return {"message": f"Successfully submitted to {request['competitionName']}", "ref": ref}

    def version(self, name, request, notes):
        uploads = [self.arrived(file["token"]) for file in request["files"]]
        files = {upload["name"]: upload["content"] for upload in uploads}
        dataset = self.datasets.setdefault(name, {"versions": [], "status": "READY", "current": 0})
        dataset["looks"] = 0
        dataset["versions"].append({"files": files, "notes": notes, "private": request.get("isPrivate")})
        return {"status": "ok"}


class Handler(BaseHTTPRequestHandler):
    """Reads requests, uses up faults, asks for credentials."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        content: Any = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(json.loads(content or b"{}") if self.command == "POST" else content)

    do_POST = do_PUT = do_GET

    def answer(self, content):
        path, platform = urlsplit(self.path).path, self.server
        with platform.lock:
            platform.requests.append((path, content))
            fault = next((fault for fault in platform.faults if fault[0] in path), ("", "none"))
            if fault in platform.faults:
                platform.faults.remove(fault)
            kind = fault[1]
            answer = kind if kind == "cut" or isinstance(kind, tuple) else self.work(path, content)
        if kind in ("cut", "cut after"):
            self.close_connection = True
            self.connection.close()
        else:
            self.send(*answer)

    def work(self, path, content):
        platform, last = self.server, path.rsplit("/", 1)[-1]
        if path.startswith("/storage/"):
            return 200, archive(platform.competitions[path.split("/")[2]]["files"])
        if path.startswith("/upload/"):
            platform.uploads[last]["content"] = content
            return 200, b""
        basic = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        if last != "IntrospectToken" and self.headers.get("Authorization") not in (basic, f"Bearer {TOKEN}"):
            return 401, {"code": 401, "message": "Unauthenticated"}
        try:
            return 200, getattr(platform, last)(content)
        except Refused as refused:
            status, message = refused.args
            return status, {"code": status, "message": message}

    def send(self, status, body):
        redirect = isinstance(body, str) and status == 200
        data = (
            b"" if redirect else body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
        )
        self.send_response(302 if redirect else status)
        if redirect:
            self.send_header("Location", body)
        self.send_header("Content-Type", "text/html" if isinstance(body, bytes) else "application/json")
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def archive(files):
    """Files as a zip archive, the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()
