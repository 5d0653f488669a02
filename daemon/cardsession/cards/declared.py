"""The declarations that come with the project: real cards, each fact with its public source.

Nothing here is guessed. A card that is not listed is asked nothing that might cost it a try.

No ATR is listed for the NHS's cards: two are publicly labelled so, both of a generic JCOP41 chip
that many other cards have, and both of retired cards. An ATR proves no card to be the NHS's, and
nothing shows that a card's series can be read from it; a site that knows its cards may declare.
"""

from __future__ import annotations

from .declaration import Declaration

_ISO_APPLET = (
    "IsoApplet (github.com/philipWendland/IsoApplet), IsoApplet.java, processVerify: without data"
    " it answers 63CX and compares nothing (v0.3.0, v0.6.1, master); there, too,"
    " ALG_RSA_PAD_PKCS1 and ALG_ECDSA (before version 1 the latter hashes by itself)"
)
_CARDOS_5 = (
    "OpenSC (github.com/OpenSC/OpenSC), src/libopensc/card-cardos.c: cardos_atrs, and in"
    " cardos_add_algs SC_CARD_CAP_ISO7816_PIN_INFO for CardOS 5 and later"
)
_MY_EID = (
    "OpenSC (github.com/OpenSC/OpenSC), src/libopensc/card-myeid.c: in myeid_init"
    " SC_CARD_CAP_ISO7816_PIN_INFO, in myeid_set_security_env the algorithm references;"
    " src/pkcs15init/myeid.profile: the manufacturer's name"
)

BUILT_IN: tuple[Declaration, ...] = (
    Declaration(
        aid=bytes.fromhex("F276A288BCFBA69D34F31001"),
        asking_is_free=True,
        mechanisms={"rsa-pkcs1": 0x11, "ecdsa": 0x21},
        source=_ISO_APPLET,
    ),
    Declaration(
        manufacturer="Aventra Ltd.",
        profile="pkcs15",
        asking_is_free=True,
        mechanisms={"rsa-pkcs1": 0x02, "ecdsa": 0x04},
        source=_MY_EID,
    ),
    *(
        Declaration(atr=bytes.fromhex(atr), asking_is_free=True, source=_CARDOS_5)
        for atr in (
            "3BD218008131FE58C90114",
            "3BD218008131FE58C90217",
            "3BD218008131FE58C90316",
            "3BD218008131FE58C90411",
        )
    ),
)
