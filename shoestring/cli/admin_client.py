"""A client of a running service's admin routes, for whoever may read its folder or has an admin's key."""

import json
import os
from pathlib import Path
from typing import Any

from shoestring.durable import data_folder
from shoestring.errors import ConfigError, ShoestringError

KEY_VARIABLE = "SHOESTRING_ADMIN_KEY"
TIMEOUT_S = 30.0


class AdminClient:
    """Calls to one service."""

    def __init__(self, data: Path | None = None, url: str | None = None) -> None:
        """The service whose folder is `data`, or the one at `url` with the key of SHOESTRING_ADMIN_KEY.

        Raises ConfigError when it does not run, or there is no key.
        """
        if url is not None:
            self._url, self._key = url.rstrip("/"), os.environ.get(KEY_VARIABLE, "")
            if not self._key:
                raise ConfigError(f"set {KEY_VARIABLE} to an API key of the scope admin")
            return
        path = (data or data_folder("service")) / "operator.json"
        try:
            place = json.loads(path.read_text())
        except (OSError, ValueError):
            raise ConfigError(
                f"no service with accounts runs from {path.parent}; start it with "
                "`shoestring serve --set accounts=true`, or name its --data or --url"
            ) from None
        self._url, self._key = place["url"], place["key"]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that a route answers. Raises ShoestringError with the sentence of the service."""
        import httpx2

        headers = {"Authorization": f"Bearer {self._key}"}
        try:
            reply = httpx2.request(
                method, self._url + path, json=body, headers=headers, timeout=TIMEOUT_S, trust_env=False
            )
        except httpx2.HTTPError as error:
            raise ConfigError(f"{self._url} does not answer ({type(error).__name__})") from None
        content: Any = reply.json() if reply.content else None
        if reply.status_code >= 400:
            raise ShoestringError(str(content["error"]["message"]))
        return content
