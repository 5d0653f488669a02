"""Who may do what not every caller may. Checked here beside the bus policy, which is a file that
somebody may edit."""

from __future__ import annotations

import grp
import os

from .owners import Owners

ADMINISTRATORS = "cardsession-admin"
"""The technicians' group."""


class Rights:
    """Questions about a caller, asked of the bus each time: groups are its connection's."""

    def __init__(self, owners: Owners, spend_last_try: str) -> None:
        """`spend_last_try`: who may consent to it (`caller`, `admin`, `never`)."""
        self._owners = owners
        self._spend_last_try = spend_last_try

    async def administers(self, sender: str) -> bool:
        """Whether it is a technician, root, or the daemon's own user."""
        known = await self._owners.credentials(sender)
        groups = known.groups or ()
        return known.uid in (0, os.getuid()) or _administrators() in groups

    async def may_spend_last_try(self, sender: str) -> bool:
        """Whether its consent to spend a PIN's last try counts."""
        if self._spend_last_try != "admin":
            return self._spend_last_try == "caller"
        return await self.administers(sender)


def _administrators() -> int | None:
    try:
        return grp.getgrnam(ADMINISTRATORS).gr_gid
    except KeyError:
        return None
