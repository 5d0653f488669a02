"""What the methods of the contract's objects have in common: how they are called and answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from .model import Body, Call

Method = Callable[[Call], Awaitable[Body]]
"""One method of the contract: the reply's body. Raises Failure or Refusal."""
Methods = Mapping[str, Method]
"""By member, of one interface."""

_DIGITS = 18
"""No object's number ever has more."""
_NO_COUNT = -1


def number_of(path: str, parent: str) -> int | None:
    """The number of an object below `parent`; None if no object is ever called so."""
    above, _, name = path.rpartition("/")
    digits = name.isascii() and name.isdigit() and len(name) <= _DIGITS
    if above != parent or not digits or name != str(int(name)):
        return None
    return int(name)


def count(left: int | None) -> int:
    """Tries left as a reply has them: -1 is unknown."""
    return _NO_COUNT if left is None else left
