"""One writer a ledger: a lock that ends with its process, however that ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole_writer(database: Path) -> Iterator[None]:
    """Holds the lock of a ledger, in a file beside it: to close a descriptor of the database itself would drop SQLite's locks.

    Raises:
      OSError: another process holds it, or the folder cannot be written.
    """
    with database.with_name(database.name + ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(
                f"ledger {database} is being served by another process: stop that one first"
            ) from error
        yield
