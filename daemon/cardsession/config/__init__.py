"""The site's settings: dataclasses from one TOML file; what is not understood refuses to start.

A setting that is silently ignored is a counter that closes its sessions at the wrong time, so an
unknown key, a wrong type or a value out of range is an error, and one run names all of them.
`settings` has the keys, `vocabulary` what they accept, `reading` the way from a file to them;
`rules` and `tomlfile` know nothing of them, and read the card declarations too.
"""

from __future__ import annotations

from .reading import DEFAULT_PATH, KeyDoc, describe, load, reference
from .rules import ConfigError
from .settings import (
    AuditConfig,
    CardConfig,
    Config,
    Hold,
    LogConfig,
    LogFormat,
    LogLevel,
    PinConfig,
    ReadersConfig,
    SessionConfig,
    SpendLastTry,
    TrustConfig,
)
from .tomlfile import MAX_BYTES

__all__ = [
    "DEFAULT_PATH",
    "MAX_BYTES",
    "AuditConfig",
    "CardConfig",
    "Config",
    "ConfigError",
    "Hold",
    "KeyDoc",
    "LogConfig",
    "LogFormat",
    "LogLevel",
    "PinConfig",
    "ReadersConfig",
    "SessionConfig",
    "SpendLastTry",
    "TrustConfig",
    "describe",
    "load",
    "reference",
]
