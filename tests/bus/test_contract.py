"""The XML against the contract's tables, written here a second time, from the design."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.bus import contract
from cardsession.bus.connection import Answer, Call
from cardsession.bus.contract import Emits, ErrorName

from .util import Connect, run

# name -> "type flag" with the flags of the design: C const, T with value, F not signalled.
PROPERTIES = {
    contract.MANAGER: """
        Version s C, ApiLevel u C, Backend s T, Hotplug s T, RemovalPolicy s C, IdleUSec t C,
        MaxAgeUSec t C""",
    contract.READER: """
        Id s C, Name s T, Label s T, Serial s T, PortPath s T, VendorId q T, ProductId q T,
        Model s T, PinPad b T, State s T, Card o T, InsertCount t T, LastError s T""",
    contract.CARD: """
        Reader o C, Atr ay C, Profile s T, Serial s T, Series s T, HolderId s T, State s T,
        Temporary b T, NotBefore x T, NotAfter x T, DaysLeft i T, RenewalDue b T, PinChangeDue b T,
        PinChangedUSec t T, Trust s T, TrustDetail s T, Revocation s T, Remedies as T,
        RemedyText s T, PinTries a{sy} T, PinTriesMax a{sy} T, PinState a{ss} T,
        PinTriesSource s T, PinTriesReadUSec t T, Session o T, InsertedUSec t C,
        InsertedMonotonicUSec t C""",
    contract.SESSION: """
        Id s C, Card o T, Reader o T, Owner s C, OwnerUid u C, Purpose s C, UsedBy s C,
        HolderId s T, HolderVerified b T, State s T, EndReason s T, PossessionProved b T,
        Context a{ss} T, OpenedUSec t C, VerifiedUSec t T, ExpiresUSec t T,
        LastActivityMonotonicUSec t F, ExchangeCount t F""",
    contract.DIAGNOSTICS: "",
}
METHODS = {
    contract.MANAGER: """
        ListReaders() -> ao readers
        ListSessions() -> a(osus) sessions
        CheckFunction(s function, o session) -> b permitted, s reason""",
    contract.READER: "",
    contract.CARD: """
        OpenSession(s purpose, a{sv} options) -> o session
        ListCertificates() -> a(ssxx) certificates
        GetCertificate(s slot) -> ay certificate""",
    contract.SESSION: """
        VerifyPin(s pin, h secret, a{sv} options) -> s outcome, i left
        QueryPin(s pin) -> s state, i left
        ChangePin(s pin, h old, h new, a{sv} options) -> s outcome, i left
        UnblockPin(s pin, h puk, h new, a{sv} options) -> s outcome, i left
        Sign(s slot, s algorithm, ay digest, a{sv} options) -> ay signature
        SignWithPin(s slot, s algorithm, ay digest, h secret, a{sv} options) ->
            s outcome, i left, ay signature
        Transmit(ay apdu, a{sv} options) -> ay data, q sw
        SetContext(a{ss} context) ->
        TakeLifetime() -> h lifetime
        KeepAlive() ->
        Lock() ->
        Close() ->""",
    contract.DIAGNOSTICS: """
        GetReport() -> a{sv} report
        GetHistory(a{sv} filter) -> h history
        GetMetrics() -> a{sv} metrics
        Rescan() ->
        EndSession(o session, s why) ->
        SetLogLevel(s level) ->
        SetTrace(b enabled) ->""",
}  # fmt: skip
SIGNALS = {
    contract.MANAGER: """
        CardReady(o card, o reader)
        CardGone(o card, o reader, s reason)""",
    contract.READER: "",
    contract.CARD: "",
    contract.SESSION: "Ended(s reason, a{sv} detail)",
    contract.DIAGNOSTICS:
        "Exchange(o reader, t usec, s header, u sent, u received, q sw, u duration_usec)",
}  # fmt: skip
ERRORS = """
    NotAuthorized NotOwner NoSuchFunction NoCard Busy SessionEnded CardRemoved CardReset CardMute
    ReaderRemoved ReaderStuck InUseElsewhere BackendUnavailable Suspended InvalidApdu ApduFiltered
    NoSuchPin NoSuchSlot NotVerified NotTrusted UsedByRequired UnsupportedAlgorithm InvalidContext
    SecretInvalid Timeout NotSupported Internal"""
OURS = sorted(PROPERTIES)


def args(pairs: tuple[contract.Arg, ...]) -> str:
    return ", ".join(f"{arg.signature} {arg.name}" for arg in pairs)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.replace("->\n            ", "-> ").strip().splitlines()]


@pytest.mark.parametrize("name", OURS)
def test_properties(name: str) -> None:
    flags = {Emits.CONST: "C", Emits.TRUE: "T", Emits.FALSE: "F"}
    found = [
        f"{each.name} {each.signature} {flags[each.emits]}"
        for each in contract.interface(name).properties.values()
    ]
    assert found == [each for each in re.split(r",\s+", PROPERTIES[name].strip()) if each]


@pytest.mark.parametrize("name", OURS)
def test_methods(name: str) -> None:
    found = [
        f"{each.name}({args(each.in_args)}) -> {args(each.out_args)}".strip()
        for each in contract.interface(name).methods.values()
    ]
    assert found == lines(METHODS[name])


@pytest.mark.parametrize("name", OURS)
def test_signals(name: str) -> None:
    found = [
        f"{each.name}({args(each.args)})" for each in contract.interface(name).signals.values()
    ]
    assert found == lines(SIGNALS[name])


def test_there_is_nothing_else() -> None:
    standard = {*contract.STANDARD, contract.OBJECT_MANAGER}
    assert set(contract.interfaces()) == {*OURS, *standard}


def test_standard_interfaces() -> None:
    signatures = {
        (name, method.name): (method.in_signature, method.out_signature)
        for name in (*contract.STANDARD, contract.OBJECT_MANAGER)
        for method in contract.interface(name).methods.values()
    }
    assert signatures == {
        (contract.PEER, "Ping"): ("", ""),
        (contract.PEER, "GetMachineId"): ("", "s"),
        (contract.INTROSPECTABLE, "Introspect"): ("", "s"),
        (contract.PROPERTIES, "Get"): ("ss", "v"),
        (contract.PROPERTIES, "GetAll"): ("s", "a{sv}"),
        (contract.PROPERTIES, "Set"): ("ssv", ""),
        (contract.OBJECT_MANAGER, "GetManagedObjects"): ("", "a{oa{sa{sv}}}"),
    }
    signals = contract.interface(contract.OBJECT_MANAGER).signals
    assert signals["InterfacesAdded"].signature == "oa{sa{sv}}"
    assert signals["InterfacesRemoved"].signature == "oas"
    changed = contract.interface(contract.PROPERTIES).signals["PropertiesChanged"]
    assert changed.signature == "sa{sv}as"


def test_every_property_is_read_only_and_says_how_it_changes() -> None:
    for name in OURS:
        xml = contract.interface(name).xml
        assert xml.count("<property ") == xml.count('access="read"') == xml.count("<annotation ")


def test_every_member_is_documented() -> None:
    for file in resources.files(contract.__package__).joinpath("xml").iterdir():
        if file.name.startswith(contract.BUS_NAME):
            text = file.read_text("utf-8")
            assert not re.findall(r"(?<!-->)\n +<(?:method|signal|property) name=.*", text)


def test_errors_are_the_closed_list() -> None:
    prefix = f"{contract.BUS_NAME}.Error."
    ours = [each.removeprefix(prefix) for each in ErrorName if each.startswith(prefix)]
    assert ours == ERRORS.split()
    assert str(ErrorName.INVALID_ARGS) == "org.freedesktop.DBus.Error.InvalidArgs"
    rest = [each for each in ErrorName if not each.startswith(prefix)]
    assert all(each.startswith("org.freedesktop.DBus.Error.") for each in rest)


def test_errors_in_the_comments_exist() -> None:
    known = {each.rpartition(".")[2] for each in ErrorName}
    for file in resources.files(contract.__package__).joinpath("xml").iterdir():
        for listed in re.findall(r"Errors: ([^:]*?)\.(?:\s|$)", file.read_text("utf-8")):
            plain = re.sub(r"\([^)]*\)|\s", "", listed)
            assert set(plain.split(",")) <= known, file.name


def test_paths() -> None:
    assert (contract.BUS_NAME, contract.ROOT) == ("org.cardsession1", "/org/cardsession1")
    assert contract.READERS == "/org/cardsession1/reader"
    assert contract.CARDS == "/org/cardsession1/card"
    assert contract.SESSIONS == "/org/cardsession1/session"


def test_lookup() -> None:
    assert contract.method(contract.CARD, "OpenSession").in_signature == "sa{sv}"
    with pytest.raises(KeyError):
        contract.method(contract.CARD, "CloseSession")
    with pytest.raises(KeyError):
        contract.interface("org.example.None")
    among = [contract.MANAGER, contract.DIAGNOSTICS, *contract.STANDARD]
    assert contract.interfaces_with_method("Rescan", among) == (contract.DIAGNOSTICS,)
    assert contract.interfaces_with_method("Nothing", among) == ()


@given(st.text())
def test_labels_are_reversible_path_elements(text: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in text):
        return
    label = contract.escape_label(text)
    assert re.fullmatch(r"[A-Za-z0-9_]+", label)
    assert contract.unescape_label(label) == text


@pytest.mark.parametrize(
    ("text", "label"),
    [("", "_"), ("_", "_5f"), ("1-2:1", "_31_2d2_3a1"), ("a1", "a1"), ("é", "_c3_a9")],
)
def test_labels(text: str, label: str) -> None:
    assert contract.escape_label(text) == label


@pytest.mark.parametrize("label", ["", "_x", "_5F", "a-b", "_5"])
def test_not_labels(label: str) -> None:
    with pytest.raises(ValueError, match="not an escaped label"):
        contract.unescape_label(label)


def test_the_same_id_as_systemd_makes() -> None:
    """sd_bus_path_encode by way of unit object paths, which are escaped the same way."""
    assert contract.escape_label("dbus.service") == "dbus_2eservice"
    assert contract.escape_label("-.mount") == "_2d_2emount"


def test_served_xml_is_whole_and_without_comments() -> None:
    xml = contract.node_xml([contract.CARD, *contract.STANDARD], ["b", 'a"<'])
    assert xml.startswith("<!DOCTYPE node PUBLIC")
    assert "<!--" not in xml
    assert xml.index('<node name="a&quot;&lt;"/>') < xml.index('<node name="b"/>')
    with pytest.raises(KeyError):
        contract.node_xml(["org.example.None"])


async def test_busctl_and_gdbus_accept_it(connect: Connect, bus: str) -> None:
    server = await connect()

    async def handler(call: Call) -> Answer:
        if call.member == "Introspect":
            names = OURS if call.path == contract.ROOT else []
            children = ["reader"] if call.path == contract.ROOT else []
            return Answer("s", (contract.node_xml([*names, *contract.STANDARD], children),))
        return Answer("a{sv}", ({},))

    server.serve(handler)
    await server.own_name(contract.BUS_NAME)
    said = await run("busctl", f"--address={bus}", "introspect", contract.BUS_NAME, contract.ROOT)
    for name in OURS:
        for member in contract.interface(name).methods.values():
            signature, result = member.in_signature or "-", member.out_signature or "-"
            pattern = rf"\.{member.name} +method +{re.escape(signature)} +{re.escape(result)} "
            assert re.search(pattern, said), member.name
        for prop in contract.interface(name).properties.values():
            assert re.search(rf"\.{prop.name} +property +{re.escape(prop.signature)} ", said)
    said = await run(
        "gdbus", "introspect", "--address", bus, "--dest", contract.BUS_NAME,
        "--object-path", contract.ROOT,
    )  # fmt: skip
    assert "interface org.cardsession1.Session" in said
    assert re.search(r"VerifyPin\(in +s pin,\s+in +h secret,\s+in +a\{sv\} options,", said)
    assert "node reader" in said
