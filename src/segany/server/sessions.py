"""Who may use the server: one-time tokens, and the sessions they are exchanged for.

Sessions are not stored: a session is a cookie that is signed with a key of the project, so that it outlives the server.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable

from segany.store import Store

SESSION_SECONDS = 30 * 24 * 3600

_COOKIE = re.compile(r"([0-9]{1,12})\.([0-9a-f]{32})\.([0-9a-f]{64})", re.ASCII)


class Sessions:
    """The sessions of a project.

    Attributes:
        cookie_name: has the project's id in it, since browsers share cookies between the ports of a machine.
    """

    def __init__(self, store: Store, on_used: Callable[[], None] | None = None) -> None:
        """Start without a token.

        Args:
            store: the project, which keeps the key.
            on_used: is called when a token was exchanged.
        """
        self._key = store.secret("session")
        self.cookie_name = f"segany-{store.project.id}"
        self._on_used = on_used
        self._tokens: set[bytes] = set()
        self._lock = threading.Lock()

    def new_token(self) -> str:
        """A token that can be exchanged once."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._tokens.add(_digest(token))
        return token

    def exchange(self, token: str) -> str | None:
        """The value of a new session's cookie; None if the token is not valid or was used."""
        digest = _digest(token)
        with self._lock:
            if digest not in self._tokens:
                return None
            self._tokens.remove(digest)
        if self._on_used is not None:
            self._on_used()
        facts = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(16)}"
        return f"{facts}.{self._mac('cookie', facts)}"

    def session_of(self, cookie_header: str) -> str | None:
        """The session that a Cookie header proves; None without a valid one."""
        for part in cookie_header.split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie_name and self._is_valid(value):
                return value
        return None

    def csrf(self, session: str) -> str:
        """What requests of a session that change something have in the header X-Segany-CSRF."""
        return self._mac("csrf", session)

    def cookie(self, session: str) -> str:
        """The Set-Cookie header of a session."""
        return f"{self.cookie_name}={session}; Max-Age={SESSION_SECONDS}; Path=/; HttpOnly; SameSite=Strict"

    def _is_valid(self, value: str) -> bool:
        match = _COOKIE.fullmatch(value)
        if match is None:
            return False
        expires, nonce, mac = match.groups()
        return hmac.compare_digest(mac, self._mac("cookie", f"{expires}.{nonce}")) and time.time() < int(expires)

    def _mac(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def _digest(token: str) -> bytes:
    """What tokens are compared by, so that the time it takes tells nothing about them."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
