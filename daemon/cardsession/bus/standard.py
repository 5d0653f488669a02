"""The standard interfaces of every object: Introspectable, Properties, ObjectManager."""

from __future__ import annotations

from typing import Any

from . import contract
from .connection import Call, Refusal, Variant
from .contract import ErrorName
from .tree import Tree


class Standard:
    """Answers from the tree's snapshots: nothing here can fail but the caller's request."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def answer(self, interface: str, call: Call) -> tuple[Any, ...]:
        """The reply's body."""
        match interface, call.member:
            case contract.INTROSPECTABLE, "Introspect":
                return (self._introspect(call.path),)
            case contract.OBJECT_MANAGER, "GetManagedObjects":
                return (self._tree.managed(),)
            case contract.PROPERTIES, "GetAll":
                return (self._properties(call.path, call.body[0]),)
            case contract.PROPERTIES, "Get":
                return (self._property(call.path, *call.body),)
            case contract.PROPERTIES, "Set":
                raise Refusal(ErrorName.PROPERTY_READ_ONLY, "all properties are read-only")
        raise Refusal(ErrorName.UNKNOWN_METHOD, "no such method")

    def _introspect(self, path: str) -> str:
        interfaces, children = self._tree.interfaces(path), self._tree.children(path)
        if not interfaces and not children:
            raise Refusal(ErrorName.UNKNOWN_OBJECT, "there is no such object")
        return contract.node_xml(interfaces, children)

    def _properties(self, path: str, interface: str) -> dict[str, Variant]:
        interfaces = self._tree.interfaces(path)
        if interface == "":  # the specification allows "all of them"
            found = [self._tree.properties(path, name) or {} for name in interfaces]
            return {name: value for each in found for name, value in each.items()}
        if interface not in interfaces:
            raise Refusal(ErrorName.UNKNOWN_INTERFACE, "the object has no such interface")
        return self._tree.properties(path, interface) or {}

    def _property(self, path: str, interface: str, name: str) -> Variant:
        found = self._properties(path, interface).get(name)
        if found is None:
            raise Refusal(ErrorName.UNKNOWN_PROPERTY, "the interface has no such property")
        return found
