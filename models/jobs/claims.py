"""Who is at which job, for several processes on one folder: `claims/` below a competition's products.

    claims/owners/<id>       a process that trains: host, pid; its time of change is a heartbeat
    claims/<job>.<n>         the id of the n-th process that claimed a job

A claim is made by creating a file that must not exist, which one process alone can do, on a network file system too.
That of an owner who is gone is never removed: who takes its job over creates the next number, which again one alone
can do. Claims save work and nothing else: jobs are published whole and once because `attempts.py` renames them.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from competition import command
from competition.errors import DataError
from competition.files import digest, read_json, write_json
from competition.paths import Paths

BEAT = 10.0
"""Seconds from one heartbeat to the next."""
GONE_AFTER = 9 * BEAT
"""Seconds without a heartbeat after which an owner is gone: more than a client of NFS keeps what it knows of a file."""


@dataclass(frozen=True)
class Owner:
    """A process that claims jobs.

    place: the machine since it was started, and the part of its processes that the process can see.
    started: when the process did, in ticks of that machine, since its number may be given again.
    """

    id: str
    host: str
    pid: int
    place: str
    started: str

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"


class Claims:
    """Claims of this process; use it in a `with` statement.

    While it lasts, a thread tells the others that this process lives. Afterwards its claims are void: at once for
    processes on the same machine, GONE_AFTER seconds later for others, by when they see what it has published.

    Raises:
        OSError: if the folder takes no new files.
    """

    def __init__(self, paths: Paths) -> None:
        self.folder = paths.claims
        self.me = Owner(uuid.uuid4().hex[:12], socket.gethostname(), os.getpid(), _place(), _started(os.getpid()))
        self.ended = threading.Event()
        with command.locked(paths, self.folder / "lock", wait=True):
            self._sweep()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Claims:
        self.thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.ended.set()
        self.thread.join()
        with suppress(OSError):
            write_json(self._heart(self.me.id), {**asdict(self.me), "pid": 0})

    def holder(self, name: str) -> Owner | None:
        """Claim a job; None if this process has it now, else who has it."""
        for n in itertools.count():
            claim = self.folder / f"{name}.{n}"
            try:
                with claim.open("x") as file:
                    file.write(self.me.id)
                return None
            except FileExistsError:
                owner = self._owner_of(claim)
            superseded = (self.folder / f"{name}.{n + 1}").exists()
            if owner.id == self.me.id and not superseded:
                return None
            if not superseded and not self.is_gone(owner):
                return owner
        raise AssertionError("numbers do not end")

    def is_gone(self, owner: Owner) -> bool:
        """Whether a process has ended, or has shown no sign of life for so long that it is taken for ended."""
        if owner.place == self.me.place and _started(owner.pid) != owner.started:
            return True
        now, last = self._time_of(self.me.id, beat=True), self._time_of(owner.id)
        return now is not None and (last is None or now - last > GONE_AFTER)

    def _owner_of(self, claim: Path) -> Owner:
        """Who made a claim. One that says nothing (yet) stands for its owner: it was made when it was changed last."""
        try:
            return self._owner(claim.read_text())
        except (OSError, DataError, TypeError):
            return Owner(f"../{claim.name}", "another machine", 0, "", "")

    def _owner(self, name: str) -> Owner:
        return Owner(**read_json(self._heart(name), "id", "host", "pid", "place", "started"))

    def _heart(self, owner: str) -> Path:
        return self.folder / "owners" / owner

    def _beat(self) -> None:
        while not self.ended.wait(BEAT):
            with suppress(OSError):  # a network that is away for a moment; others judge by what they see
                os.utime(self._heart(self.me.id))

    def _time_of(self, owner: str, beat: bool = False) -> float | None:
        """Time of the last heartbeat by the clock of the file system, None if there is no such owner (any more)."""
        try:
            if beat:
                os.utime(self._heart(owner))
            with self._heart(owner).open() as file:  # opened, since a network file system then asks the server
                return os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None

    def _sweep(self) -> None:
        """Remove all claims and owners if none of them lives."""
        hearts = [path for path in (self.folder / "owners").glob("*") if path.name[0] != "."]
        write_json(self._heart(self.me.id), asdict(self.me))  # whose time is that of now
        if all(self.is_gone(self._owner(heart.name)) for heart in hearts):
            for path in [*hearts, *self.folder.glob("*.[0-9]*")]:
                path.unlink()


def _place() -> str:
    """Names the machine since it was started and the processes that are visible from here (a container has its own)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return digest([boot, str(Path("/proc/self/ns/pid").readlink())])


def _started(pid: int) -> str:
    """When a process of this machine was started, in ticks since the machine was; empty if it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else rest[18]
