"""cardsessionctl: cards, readers and sessions from a terminal or a script, over the bus alone."""
