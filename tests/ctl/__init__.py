"""cardsessionctl, without a daemon."""
