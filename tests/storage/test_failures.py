import errno

import pytest

from gauntlet_jax.storage.failures import storage_failure


@pytest.mark.parametrize(
    ("error", "number", "text"),
    [
        (
            ValueError("RESOURCE_EXHAUSTED: Failed to write\nmore [os_error_code='28'] [source]"),
            errno.ENOSPC,
            "x cannot be written: No space left on device; free some space and try again",
        ),
        (PermissionError(errno.EACCES, "no"), errno.EACCES, "x cannot be written: Permission denied"),
        (ValueError("odd\nsecond line"), None, "x cannot be written: odd"),
        (ValueError(), None, "x cannot be written: ValueError"),
    ],
)
def test_one_line_with_the_system_error_behind_it(error, number, text):
    failure = storage_failure(error, "x cannot be written")
    assert failure.errno == number
    assert (failure.strerror or str(failure)) == text
