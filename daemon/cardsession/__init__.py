"""cardsession: smartcard sessions at a pharmacy counter, published on D-Bus."""
