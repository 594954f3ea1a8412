"""No core dumps of a process that holds keys, prompts or answers in its memory.

The limit of zero keeps the kernel from writing a file, for children too. Where it hands dumps to a
program instead, that limit doesn't count, so the process also gives up being dumpable; then other
processes of its user can't read its memory or environment either. Root still can, and swap is the
operator's business.
"""

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def forbid_core_dumps() -> None:
    """Do so for this process, from now on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
