"""Where a server is, whether that is this machine, and the key that it wants."""

from __future__ import annotations

import ipaddress
import os
from typing import NamedTuple
from urllib.parse import urlsplit

from compressbench.core.errors import InputError, ModelError


class Address(NamedTuple):
    """Where a server is: `path` is what the names of the API are added to, e.g. "/v1"."""

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse_address(url: str) -> Address:
    """Raises InputError for what is no plain http(s) URL; one with a name and password in it would be recorded."""
    advice = "Give what the API's paths follow, e.g. http://127.0.0.1:8000/v1; a key goes into api_key_env."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError("the URL can't be read", do=advice) from error
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InputError("the URL may have no user name, password, query or fragment", do=advice)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isprintable() or " " in url:
        raise InputError("the URL must begin with http:// or https:// and name a host", got=url[:100], do=advice)
    path = parts.path.rstrip("/")
    if path.endswith(("/completions", "/chat")):
        raise InputError("the URL must not name one of the API's paths", got=path, do=advice)
    return Address(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), path or "/v1")


def is_loopback(address: Address) -> bool:
    """Whether the server runs on this machine for certain. A name that means an address of this machine counts as
    elsewhere: what answers there may be a tunnel.
    """
    if address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def key_from(variable: str) -> str:
    """The key in that environment variable. Raises ModelError, which never shows it, if it isn't there or can't be one."""
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ModelError(
            f"the environment variable {variable} is empty or not set", do="Export the server's key in it."
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ModelError(f"the environment variable {variable} holds what can't be a key")
    return key
