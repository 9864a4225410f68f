"""One run of Kaggle's own command line: what it printed, and every call that it made with the answer.

The client's exit status says little: errors of `kernels push` and `datasets create` end with 0, and its one line of
error does not say which call failed. Its trace does (VERBOSE=true: each request, and each answer with its status), so
that is what is read. The trace holds the credentials; they are taken out before anything else looks at it.

Source: kaggle 2.2.4, kagglesdk 0.1.37 (kaggle_http_client.py prints the trace, kaggle_env.py and
kaggle_api_extended.py say in which order credentials are looked for).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from threading import Thread
from typing import IO, Any

from competition.errors import ConfigError, ServiceError

NO_CLIENT = "Kaggle's client must be installed, and is not; run: pip install -r requirements-kaggle.txt"
NO_CREDENTIALS = (
    "Kaggle must know who you are, and no credentials were found; make a token at https://www.kaggle.com/settings/api "
    "and put it into the variable KAGGLE_API_TOKEN or into the file ~/.kaggle/access_token (an older kaggle.json in "
    "~/.kaggle works, too)."
)
_BLOCK = re.compile(r"^-{10,}(Request|Response)-{10,}\n(.*?)^-{50}\n?", re.MULTILINE | re.DOTALL)
_NOISE = re.compile(r"^(DEBUG|INFO):|%\||^Warning: |^\s*$")


@dataclass(frozen=True)
class Call:
    """A call to the platform and its answer."""

    name: str
    """Such as CreateSubmission."""
    status: int | None
    """HTTP status; None: no answer came."""
    body: dict[str, Any]
    """The answer; empty, if it was no JSON object."""


@dataclass(frozen=True)
class Ran:
    """What a finished run of the client left. Credentials are taken out."""

    text: str
    """Standard output without the trace."""
    errors: str
    status: int
    """Exit status; 0 does not mean success."""
    calls: list[Call]

    @property
    def said(self) -> str:
        """The last line that is neither a warning, nor a log, nor a progress bar: the error, where there was one."""
        lines = [line.strip() for line in re.split(r"[\r\n]", f"{self.text}\n{self.errors}") if not _NOISE.search(line)]
        return presentable(lines[-1].rpartition("(Caused by ")[2]) if lines else "the client said nothing"


@dataclass(frozen=True)
class Credentials:
    """What the client will use."""

    source: str
    username: str | None
    """None: only the platform knows whose token it is."""
    secrets: list[str]


def find_credentials() -> Credentials:
    """The credentials in the client's order: token, user name and key, login in a browser.

    Raises:
        ServiceError: if there are none.
    """
    home = Path.home() / ".kaggle"
    token = os.environ.get("KAGGLE_API_TOKEN", "")
    places = [(_text(Path(token)), "the file that KAGGLE_API_TOKEN names"), (token, "KAGGLE_API_TOKEN")]
    places += [(_text(home / name), f"~/.kaggle/{name}") for name in ("access_token", "access_token.txt")]
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or (home if home.exists() else _xdg() / "kaggle"))
    legacy = _json(folder / "kaggle.json")
    user, key = os.environ.get("KAGGLE_USERNAME", legacy.get("username")), os.environ.get("KAGGLE_KEY")
    login = _json(home / "credentials.json")
    secrets = [text for text, _ in places] + [str(key or ""), str(legacy.get("key", ""))]
    secrets += [str(login.get(name, "")) for name in ("access_token", "refresh_token")]
    found: tuple[str, str | None] | None = next(((source, None) for text, source in places if text), None)
    if found is None and user and (key or legacy.get("key")):
        found = ("KAGGLE_USERNAME and KAGGLE_KEY" if key else str(folder / "kaggle.json"), user)
    if found is None and login.get("refresh_token"):
        found = ("~/.kaggle/credentials.json", login.get("username"))
    if found is None:
        raise ServiceError(NO_CREDENTIALS)
    return Credentials(*found, secrets=[secret for secret in secrets if len(secret) > 5])


def _xdg() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path) or "{}")
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def without_secrets(text: str, secrets: list[str]) -> str:
    """Output without credentials: the known ones, and those of headers, such as a token that was renewed meanwhile."""
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return re.sub(r"(?im)^((?:proxy-)?authorization|cookie): .*$", r"\1: [secret]", text)


def presentable(text: str) -> str:
    """One line without what addresses may hide: signatures behind `?`, and a user's password before `@`."""
    text = re.sub(r"(?<=\S)\?[^\s'\")>,]*=[^\s'\")>,]*", "?...", " ".join(text.split()))
    return re.sub(r"//[^/\s@]+@", "//", text)[:400]


def run_client(
    *arguments: str, seconds: float, traced: bool = True, temporary: Path | None = None, progress: bool = False
) -> Ran:
    """Run the client without input.

    Args:
        arguments: of `kaggle`.
        seconds: after which it is stopped; its unfinished call then has no answer.
        traced: whether `calls` are wanted; a traced download would be read into memory.
        temporary: folder for the client's temporary files, such as archives and the state of uploads.
        progress: on a terminal, show the client's bars.

    Raises:
        ConfigError: if it is not installed.
        ServiceError: without credentials; no call is made then.
    """
    if importlib.util.find_spec("kaggle") is None:
        raise ConfigError(NO_CLIENT)
    credentials = find_credentials()
    settings = {"VERBOSE": str(traced).lower(), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}  # unbuffered: see `seconds`
    if temporary is not None:
        settings["TMPDIR"] = str(temporary)
    # -P: a folder named kaggle where the user stands is not the client. Pipes, not files: if this process is killed,
    # the client fails at its next line of trace, printed before each request, and submits nothing behind our back.
    command = [sys.executable, "-P", "-m", "kaggle", *arguments]
    environment = os.environ | settings
    with Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment) as process:
        kept: list[list[bytes]] = [[], []]
        readers = [
            Thread(target=_read, args=(stream, parts, progress and stream is process.stderr and sys.stderr.isatty()))
            for stream, parts in zip((process.stdout, process.stderr), kept, strict=True)
        ]
        for reader in readers:
            reader.start()
        stopped = ""
        try:
            process.wait(seconds)
        except TimeoutExpired:
            stopped = f"\nno end after {seconds:.0f} s"
        finally:
            process.kill()
            for reader in readers:
                reader.join()
    text, errors = (without_secrets(b"".join(parts).decode(errors="replace"), credentials.secrets) for parts in kept)
    if "ModuleNotFoundError" in errors:
        raise ConfigError(NO_CLIENT)
    return Ran(text=_BLOCK.sub("", text), errors=errors + stopped, status=process.returncode, calls=_calls(text))


def _read(stream: IO[bytes], kept: list[bytes], show: bool) -> None:
    """Read to the end; of what is read, only bars are ever shown."""
    shown = False
    while chunk := os.read(stream.fileno(), 65536):
        kept.append(chunk)
        bars = re.findall(rb"\r[^\r\n]*%\|[^\r\n]*", chunk) if show else []
        if bars:
            shown = True
            sys.stderr.write(bars[-1].decode(errors="replace"))
            sys.stderr.flush()
    if shown:
        sys.stderr.write("\n")


def _calls(trace: str) -> list[Call]:
    """The calls in their order."""
    calls: list[Call] = []
    for kind, block in _BLOCK.findall(trace):
        first, _, rest = block.partition("\n")
        if kind == "Request":
            calls.append(Call(first.rsplit("/", 1)[-1], None, {}))
            continue
        try:
            body = json.loads(rest.partition("\n\n")[2])
        except json.JSONDecodeError:
            body = {}
        body = body if isinstance(body, dict) else {}
        code = body.get("code")  # an error may come as such a body, and 200
        status = max(int(first), code if isinstance(code, int) else 0)
        calls[-1] = Call(calls[-1].name, status, body)
    return calls
