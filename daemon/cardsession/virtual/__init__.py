"""The developer's card: a PIV chip in software, in pcscd's virtual reader.

Written from NIST SP 800-73-4, and deliberately sharing no code with the daemon that reads it:
a mistake made twice in the same way would pass every test.
"""
