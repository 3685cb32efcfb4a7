"""Waiting for a disk that refuses: full, over quota, read-only, gone for a moment.

What was to be written is kept in memory meanwhile, and a visible warning says what is waited for.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ENOLCK, errno.EINTR}
)
"""What a disk refuses for a while: waiting may help."""

PATIENCE = 0.5
"""Seconds until a disk that refused is asked again."""


def patiently(
    do: Callable[[], T], what: str, warn: Callable[[str], None], over: Callable[[], bool] = lambda: False
) -> T:
    """Do something that the disk may refuse for a while, and give what it gives; `do` may be called again and again.

    warn: told once what is waited for, and why. over: tells that nobody wants it any more.
    Raises the error when waiting cannot help, or when it is over.
    """
    told = False
    while True:
        try:
            return do()
        except OSError as error:
            if error.errno not in PASSING or over():
                raise
            if not told:
                warn(f"{what}: {error}; waiting until it is possible again")
                told = True
        time.sleep(PATIENCE)
