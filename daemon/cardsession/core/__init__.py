"""What is true of cards, tries and sessions: no I/O, no clock, no event loop, no logging."""
