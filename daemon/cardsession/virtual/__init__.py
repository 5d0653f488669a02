"""The developer's card: a chip in software, PIV or PKCS#15, in pcscd's virtual reader.

Written from NIST SP 800-73-4, ISO/IEC 7816 and PKCS#15, and deliberately sharing no code with
the daemon that reads it: a mistake made twice in the same way would pass every test.
"""
