"""Weights on the hub: what is there without a download, and whether one can be made."""

import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies


def find_file(repository: str, *names: str) -> str | None:
    """The first of some files in the hub's cache; the network is not asked."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repository, n) for n in names if repository]
    return next((path for path in found if isinstance(path, str)), None)


def require_network(tag: Mapping) -> None:
    """Raise if the host of weights cannot be reached within seconds.

    The hub's own client tries again and again, for more than a minute.

    Args:
        tag: Has ``hf_hub``, the repository, or ``url``.

    Raises:
        OSError: If it cannot; not asked where a proxy is set.
    """
    hub = os.environ.get('HF_ENDPOINT', 'https://huggingface.co')
    host = urlsplit(hub if tag.get('hf_hub') else tag['url']).hostname
    if not getproxies():
        socket.create_connection((host, 443), timeout=5).close()
