"""cardsession: smartcard sessions at a pharmacy counter, published on D-Bus."""

__version__ = "0.1.0"
