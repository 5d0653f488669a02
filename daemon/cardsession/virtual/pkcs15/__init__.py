"""A PKCS#15 card (RSA PKCS#15 v1.1, ISO/IEC 7816-15) on an ISO/IEC 7816-4 file system.

Written from those standards, with an encoder of its own: the reader's code and its ASN.1
library are not used, so that a mistake cannot be made twice in the same way.
"""
