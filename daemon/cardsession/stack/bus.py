"""A private bus of the system type."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from cardsession.stack.processes import Child, accepts, child_environment, program

_DOCTYPE: Final = (
    '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">'
)
# What the system bus lets everybody do: owning and calling are closed until a later rule opens
# them; a reply passes if it was asked for, which on this type of bus has to be said.
_DEFAULT_POLICY: Final = """\
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus"
           send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus"
           send_interface="org.freedesktop.DBus.Properties"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Peer"/>
  </policy>"""


def configuration(socket: Path, *, open_to: int | None, policies: Iterable[Path] = ()) -> str:
    """A configuration of the system type listening at `socket`.

    `policies` are files of the kind that packages ship in /usr/share/dbus-1/system.d. `open_to`
    is a uid that may own and call anything: without policy files, the developer. This process's
    own uid may always become a monitor, which dbus-daemon grants to nobody but root and itself.
    """
    allowed = '<allow own="*"/><allow send_type="method_call"/>'
    watcher = (
        '<allow send_destination="org.freedesktop.DBus"'
        ' send_interface="org.freedesktop.DBus.Monitoring"/>'
    )
    return "\n".join(
        [
            _DOCTYPE,
            "<busconfig>",
            "  <type>system</type>",
            f"  <listen>unix:path={escape(str(socket))}</listen>",
            "  <auth>EXTERNAL</auth>",
            _DEFAULT_POLICY,
            f'  <policy user="{os.getuid()}">{watcher}</policy>',
            "" if open_to is None else f'  <policy user="{open_to}">{allowed}</policy>',
            *(f"  <include>{escape(str(path))}</include>" for path in policies),
            "</busconfig>\n",
        ]
    )


class Bus(Child):
    """A dbus-daemon of our own at `directory`/bus. A context manager, ready when entered."""

    def __init__(
        self, directory: Path, *, open_to: int | None = -1, policies: Iterable[Path] = ()
    ) -> None:
        """`open_to` as in `configuration`: by default this user, nobody if there are policies."""
        policies = tuple(policies)
        if open_to == -1:
            open_to = None if policies else os.getuid()
        self.socket = directory / "bus"
        self.address = f"unix:path={self.socket}"
        self._configuration = configuration(self.socket, open_to=open_to, policies=policies)
        self._file = directory / "bus.conf"
        command = [program("dbus-daemon"), "--nofork", "--nopidfile", "--nosyslog"]
        super().__init__(
            "dbus-daemon",
            [*command, f"--config-file={self._file}"],
            directory / "bus.log",
            child_environment(),
        )

    def start(self) -> None:
        """Start it and wait until it listens. StackError with its log if it does not."""
        self._file.write_text(self._configuration)
        super().start()
        self.wait_for("listens", lambda: accepts(self.socket))
