"""Storage failures as one clear line: tensorstore hides the operating system's errors in ValueErrors."""

import errno
import os
import re

_OS_ERROR_CODE = re.compile(r"\[os_error_code='(\d+)'\]")


def storage_failure(error: Exception, what: str) -> OSError:
    """The OSError that stands behind an exception raised by tensorstore or orbax.

    Args:
      error: what was raised.
      what: what could not be done, with its place: the beginning of the line.

    Returns:
      An OSError whose text is one line, with ``errno`` where the operating system gave one.
    """
    code = error.errno if isinstance(error, OSError) else None
    match = _OS_ERROR_CODE.search(str(error))
    if code is None and match is not None:
        code = int(match.group(1))
    if code is None:
        lines = str(error).splitlines()
        return OSError(f"{what}: {lines[0][:200] if lines else type(error).__name__}")
    advice = "; free some space and try again" if code in (errno.ENOSPC, errno.EDQUOT) else ""
    return OSError(code, f"{what}: {os.strerror(code)}{advice}")
