"""What pack.json says of every pack: its packages and its files."""

from __future__ import annotations

from typing import Any

from competition.files import sha256_of
from competition.paths import Pack
from submissions.kernel import wheels
from submissions.kernel.packages import Needs


def with_wheels(needs: Needs, pack: Pack, python: str) -> dict[str, Any]:
    """Put the wheels of `needs` into a pack that has all else; what pack.json then says of packages and files.

    Raises:
        ServiceError, DataError: as `wheels.collect`.
    """
    print(f"fetching {len(needs.shipped)} packages for Python {python}, or taking them from the cache ...", flush=True)
    files = wheels.collect(needs, pack.wheels, python)
    return {
        "python": python,
        "image": needs.image,
        "wheels": {
            package: {"version": version, "range": needs.ranges[package], "file": files[package]}
            for package, version in needs.shipped.items()
        },
        "files": files_of(pack),
    }


def files_of(pack: Pack) -> dict[str, dict[str, Any]]:
    """Size and digest of every file of a pack, by its name there."""
    files = sorted(path for path in pack.root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(pack.root)): {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in files
    }
