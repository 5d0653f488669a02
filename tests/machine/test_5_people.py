"""Who may: a stranger, a chemist, a technician, root."""

from __future__ import annotations

from machine.machine import NAME, ROOT, Machine

DENIED = "Access denied"


def test_a_stranger_can_neither_call_nor_listen_and_a_chemist_can(machine: Machine) -> None:
    stranger, chemist = machine.program("stranger"), machine.program("chemist")
    assert stranger.do("signals") == []
    assert stranger.refused("state") == "BusRefused"
    assert chemist.do("state")["manager"]["backend"] == "ok"
    machine.plug(1)
    card, _ = machine.card_ready("1-1")
    machine.wait("the chemist hears", lambda: f"{NAME}.Manager.CardReady" in chemist.do("signals"))
    assert stranger.do("signals") == []
    for path, member in (
        (ROOT, "Manager.ListReaders"),
        (ROOT, "org.freedesktop.DBus.ObjectManager.GetManagedObjects"),
        (ROOT, "org.freedesktop.DBus.Introspectable.Introspect"),
        (card, "Card.ListCertificates"),
    ):
        refused = machine.call(path, member, user="stranger")
        assert refused.status != 0, member
        assert DENIED in refused.text
        assert machine.call(path, member, user="chemist").status == 0, member


def test_only_technicians_and_root_reach_diagnostics(machine: Machine) -> None:
    machine.plug(1)
    machine.card_ready("1-1")
    chemist, technician = machine.program("chemist"), machine.program("technician")
    session = chemist.do("open")
    for user in ("stranger", "chemist"):
        said = machine.call(ROOT, "Diagnostics.GetReport", user=user)
        assert said.status != 0
        assert DENIED in said.text, said
    # It has arrived where it is refused because it is not built yet.
    for user in (technician, machine.program("root")):
        assert user.refused("report") == "NotSupported"
    assert chemist.refused("report") == "BusRefused"
    assert chemist.refused("end_session", session=session) == "BusRefused"
    assert technician.do("end_session", session=session) is None
    assert chemist.do("ended") == "forced"
