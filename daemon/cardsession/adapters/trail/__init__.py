"""The audit trail: who did what with which card, one JSON object a line, one file a day.

`audit-YYYY-MM-DD.jsonl` (UTC) in a directory, only ever appended to, one write(2) a line:
`{"time":"2026-03-01T09:30:00.000000+00:00","event":"pin.judged","outcome":"incorrect",…}`.
A new file has mode 0640 and the group that its directory gives it (setgid).
"""

from .fields import is_secretive
from .reader import entries
from .writer import AuditTrail

__all__ = ["AuditTrail", "entries", "is_secretive"]
