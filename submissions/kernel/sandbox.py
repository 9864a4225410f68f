"""A notebook's machine: no network, read-only inputs, nothing else of this machine, limits on time, memory and disk.

    box/kaggle/input      /kaggle/input, read-only
    box/kaggle/src        /kaggle/src, the notebook, read-only
    box/kaggle/working    /kaggle/working
    box/tmp               /tmp; tmp/home is $HOME

Where the system gives namespaces to its users, a process sees these paths, the system's own folders, the interpreter
and its environment, and no network device. Elsewhere (many containers) the paths stay those of the box, write
permission is taken from the inputs, and every Python process of the environment refuses to connect.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from competition.files import write_atomically
from submissions.kernel.environment import link_or_copy
from submissions.kernel.limits import Limits, watch

NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"]
SYSTEM = [Path(f"/{name}") for name in ("usr", "etc", "bin", "sbin", "lib", "lib32", "lib64", "libx32")]

NO_NETWORK = """\
import sys


def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[0].family in (2, 10):
        raise OSError(101, "Network is unreachable")
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        raise OSError(101, "Network is unreachable")


sys.addaudithook(refuse)
"""


@dataclass(frozen=True)
class Box:
    """A sandbox on disk.

    folder: as the module describes it.
    environment: the virtual environment of what runs in it, writable.
    packages: folder in the environment -> folder of this machine to see there, read-only.
    namespaces: whether they guard it.
    """

    folder: Path
    environment: Path
    packages: dict[Path, Path]
    namespaces: bool

    @property
    def means(self) -> str:
        """What guards it, in words."""
        if self.namespaces:
            return "namespaces: no network, read-only inputs, no file of this machine beyond the system's"
        return (
            "permissions (this system gives no namespaces): sockets refused in Python, inputs without write permission"
        )

    def lay(self, source: str | Path, target: str | Path) -> None:
        """Lay a file into the box: a link, or a copy where its permissions will change."""
        if self.namespaces:
            link_or_copy(source, target)
        else:
            shutil.copyfile(source, target)

    @property
    def kaggle(self) -> Path:
        """The folder of input, src and working as a process in the box sees it."""
        return Path("/kaggle") if self.namespaces else self.folder / "kaggle"

    @property
    def temporary(self) -> Path:
        """The folder for temporary files as a process in the box sees it."""
        return Path("/tmp") if self.namespaces else self.folder / "tmp"


def open_box(folder: Path, environment: Path, packages: dict[Path, Path]) -> Box:
    """Make the folders of a box, and find out whether namespaces can guard it; if not, packages are linked."""
    for name in ("root", "tmp/home", "kaggle/input", "kaggle/src", "kaggle/working"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    box = Box(folder, environment, packages, True)
    with suppress(FileNotFoundError):  # no unshare
        command = _command(box, [str(environment / "bin" / "python"), "-c", ""])
        if subprocess.run(command, env=_variables(box), capture_output=True, check=False).returncode == 0:
            return box
    for target, source in packages.items():  # links: what pip removes there stays here
        shutil.copytree(source, target, copy_function=link_or_copy, dirs_exist_ok=True)
    return Box(folder, environment, {}, False)


def run(box: Box, command: list[str], limits: Limits, say: Callable[[str], None]) -> tuple[int, float]:
    """Run a command in the box's working folder; `say` gets each line of its output. Nothing of it is left running.

    Returns:
        Its exit status, and the most memory that its processes used, in bytes.

    Raises:
        SubmissionError: if it breaks a limit; it is ended then.
    """
    if not box.namespaces:
        _refuse_network(box.environment)
        _set_write_permission(box, False)
    try:
        process = subprocess.Popen(
            _command(box, command), env=_variables(box), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
        listener = threading.Thread(target=_listen, args=(process, say), daemon=True)
        listener.start()
        try:
            peak = watch(process, limits, box.folder / "kaggle" / "working")
        finally:
            listener.join(timeout=5)
        return process.returncode, peak
    finally:
        if not box.namespaces:
            _set_write_permission(box, True)


def _listen(process: subprocess.Popen[str], say: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        say(line.rstrip("\n"))


def _variables(box: Box) -> dict[str, str]:
    """Environment variables of the platform, and nothing of this machine but which GPUs and libraries to use."""
    here = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH") if name in os.environ}
    moved = {"KAGGLE_INPUT": f"{box.kaggle}/input", "KAGGLE_WORKING": f"{box.kaggle}/working"}
    return {
        **here,
        **({} if box.namespaces else moved),
        "PATH": f"{box.environment}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": f"{box.temporary}/home",
        "TMPDIR": str(box.temporary),
        "LANG": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "KAGGLE_IS_COMPETITION_RERUN": "1",
    }


def _command(box: Box, command: list[str]) -> list[str]:
    """The command line that runs `command` in the working folder of the box."""
    inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', f"{box.kaggle}/working", *command]
    if not box.namespaces:
        return inside
    script = box.folder / "mounts.sh"
    write_atomically(script, _mounts(box) + '\nexec chroot "$@"\n')
    return [*NAMESPACES, "/bin/sh", str(script), str(box.folder / "root"), *inside]


def _mounts(box: Box) -> str:
    """Shell lines that build the root folder of the box in a mount namespace of its own."""
    root, kaggle = box.folder / "root", box.folder / "kaggle"
    lines = ["set -e", f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(root))}"]
    for folder in SYSTEM:
        if folder.is_symlink():
            lines.append(f"ln -s {shlex.quote(str(folder.readlink()))} {shlex.quote(f'{root}{folder}')}")
        elif folder.is_dir():
            lines += _bind(folder, root, folder)
    lines += [f"mkdir {shlex.quote(f'{root}/proc')}"]
    # A new /proc is refused where parts of the old one are covered; /proc/self is right in the old one, too.
    proc = shlex.quote(f"{root}/proc")
    lines += [f"mount -t proc proc {proc} 2>/dev/null || mount --rbind /proc {proc}"]
    lines += _bind(Path("/dev"), root, Path("/dev"), writable=True)
    lines += _bind(Path("/sys"), root, Path("/sys"), writable=True)
    lines += _bind(box.folder / "tmp", root, Path("/tmp"), writable=True)
    for prefix in {Path(sys.base_prefix), Path(sys.base_prefix).resolve()}:
        if not any(prefix.is_relative_to(folder) for folder in SYSTEM):
            lines += _bind(prefix, root, prefix)
    lines += _bind(box.environment, root, box.environment, writable=True)
    for target, source in box.packages.items():
        lines += _bind(source, root, target)
    for name in ("input", "src", "working"):
        lines += _bind(kaggle / name, root, Path("/kaggle") / name, writable=name == "working")
    return "\n".join([*lines, f"mount -o remount,bind,ro {shlex.quote(str(root))}"])


def _bind(source: Path, root: Path, target: Path, writable: bool = False) -> list[str]:
    """Shell lines that show `source` at `target` below `root`; without its flags the system refuses a remount."""
    to = f"{root}{target}"
    lines = [f"mkdir -p {shlex.quote(to)}", f"mount --rbind {shlex.quote(str(source))} {shlex.quote(to)}"]
    if writable:
        return lines
    for point in [source, *_mounted_below(source)]:
        flags = os.statvfs(point).f_flag
        known = {"nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}
        words = ",".join(["remount", "bind", "ro", *(word for word, flag in known.items() if flags & flag)])
        lines.append(f"mount -o {words} {shlex.quote(f'{to}{str(point)[len(str(source)) :]}')}")
    return lines


def _mounted_below(folder: Path) -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = {re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), line.split()[4]) for line in lines}
    return sorted(Path(point) for point in points if point.startswith(f"{folder}/"))


def _refuse_network(environment: Path) -> None:
    """Have every Python process of an environment refuse to connect, through a line of a .pth file."""
    for packages in environment.glob("lib/python*/site-packages"):
        write_atomically(packages / "no_network.py", NO_NETWORK)
        write_atomically(packages / "no_network.pth", "import no_network\n")


def _set_write_permission(box: Box, permitted: bool) -> None:
    for name in ("input", "src"):
        for path in [box.folder / "kaggle" / name, *(box.folder / "kaggle" / name).rglob("*")]:
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | 0o200 if permitted else mode & ~0o222)
