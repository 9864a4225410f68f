"""Refuses network connections; every Python process of a sandbox imports it at its start."""

import sys
from typing import Any

INTERNET = (2, 10)
"""AF_INET, AF_INET6."""


def reject_connection(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise an OSError for a connection to another machine or to a server on this one; an audit hook."""
    connects = (
        event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[0].family in INTERNET
    )
    if connects or event in ("socket.getaddrinfo", "socket.gethostbyname"):
        raise OSError(101, "Network is unreachable")


sys.addaudithook(reject_connection)
