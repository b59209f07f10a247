"""Where the demo's page is served."""

from __future__ import annotations

import os
from dataclasses import dataclass

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NO_PROXY = ("no_proxy", "NO_PROXY")


@dataclass(frozen=True)
class Serving:
    """Where a page is served, and who may see it."""

    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int | None = None
    """Port; None takes a free one from 7860 on."""
    share: bool = False
    """Whether a public address is made through gradio's servers."""
    auth: tuple[str, str] | None = None
    """Name and password that a visitor must give."""


def reach_past_proxies(host: str) -> None:
    """Keep this process from asking a proxy for itself: gradio looks whether its own page is there.

    Only the hosts of this machine are added to `no_proxy`; all others go through the proxy as before.

    Args:
        host: the address that is listened at.
    """
    # Lower case goes first where both are set, so that what only one of them names must not be lost.
    value = next((os.environ[name] for name in _NO_PROXY if os.environ.get(name)), "")
    hosts = [entry.strip() for entry in value.split(",") if entry.strip()]
    if "*" in hosts:
        return
    hosts += [own for own in (*_LOOPBACK, host) if own not in hosts]
    os.environ.update(dict.fromkeys(_NO_PROXY, ",".join(hosts)))
