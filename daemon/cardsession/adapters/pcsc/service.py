"""Which way the card service is not there, once a context of it could not be had.

Measured with libpcsclite 1.9.9. Nobody listens, or the socket is closed to us: 0x8010001D, both.
It speaks another protocol: 0x8010001E, which it answers to nothing else. It hangs up before it
has read what was sent, as a pcscd that asks polkit does with whom that refuses: 0x8010006A; so
does one that is killed at that moment, and then nobody listens any more. If it hangs up so early
that nothing could be sent, that is 0x8010001D as well.
"""

from __future__ import annotations

import os
import socket

from cardsession.core.errors import Failure
from cardsession.core.facts import Backend

from .codes import ABSENT, FOREIGN, REFUSED

SOCKET = "/run/pcscd/pcscd.comm"
CONNECT_SECONDS = 1.0


def state_of(error: Failure, before: Backend = Backend.STARTING) -> Backend:
    """Why there is no context; `before`: what was said of the attempt before this one."""
    if error.text == FOREIGN:
        return Backend.PROTOCOL_MISMATCH
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(os.environ.get("PCSCLITE_CSOCK_NAME", SOCKET))
        except PermissionError:
            return Backend.DENIED
        except OSError:
            return Backend.PCSCD_DOWN
    # somebody is there, and did not speak to us: he just came, or he refuses us as he did before
    refused = error.text == REFUSED or (error.text == ABSENT and before is Backend.DENIED)
    return Backend.DENIED if refused else Backend.PCSCD_DOWN
