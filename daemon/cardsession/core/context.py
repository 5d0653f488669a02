"""`SetContext`: what a session's owner learnt elsewhere, checked for its format and no more.

Roles and organisations are not on the card; they come from the national service after log-in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from .errors import Failure, Problem


class _Format(NamedTuple):
    expected: str
    pattern: re.Pattern[str]


FORMATS: Mapping[str, _Format] = {
    "ods-code": _Format(
        "3 to 10 capital letters and digits, such as FA123", re.compile(r"[A-Z0-9]{3,10}")
    ),
    "role-code": _Format(
        "R and 4 digits, such as R8003, or all of S0030:G0100:R8003",
        re.compile(r"(?:S[0-9]{4}:G[0-9]{4}:)?R[0-9]{4}"),
    ),
    "role-profile-id": _Format("12 digits", re.compile(r"[0-9]{12}")),
}
"""By key: what is expected, and how that is told.

Most pharmacies' ODS codes are F and four more; since April 2020 new codes alternate letters and
digits, and other kinds of organisation have longer ones: only a length can be asked for.
"""


def context(facts: Mapping[str, str]) -> Mapping[str, str]:
    """The facts as they may be published, a copy. They replace what was set before.

    Failure: `InvalidContext`. Its text names a key of ours and what it takes; what the caller
    wrote, as a key too, may be anything and is not repeated.
    """
    if facts.keys() - FORMATS.keys():
        known = ", ".join(FORMATS)
        raise Failure(Problem.INVALID_CONTEXT, f"no other keys than {known} were expected")
    for key, value in facts.items():
        if not FORMATS[key].pattern.fullmatch(value):
            raise Failure(Problem.INVALID_CONTEXT, f"{key}: expected {FORMATS[key].expected}")
    return dict(facts)
