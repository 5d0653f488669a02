"""The bus: a hardened connection, the contract as data, and the service that answers by it."""
