"""Every Python of a sandbox imports this at its start, and refuses to connect."""

import sys
from typing import Any

INTERNET = (2, 10)
"""AF_INET, AF_INET6."""


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: an error for what would reach another machine, or a server on this one."""
    connects = (
        event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[0].family in INTERNET
    )
    if connects or event in ("socket.getaddrinfo", "socket.gethostbyname"):
        raise OSError(101, "Network is unreachable")


sys.addaudithook(refuse)
