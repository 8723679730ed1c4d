"""``gauntlet ledger transfer``: units from the account of a node, or of its key, to another."""

import contextlib
import dataclasses
import secrets
from pathlib import Path

from gauntlet_jax.cli.node import judging
from gauntlet_jax.cli.run_folder import UsageError
from gauntlet_jax.rewards.ledger import LedgerUnreachable
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.storage.identity import load_or_create

_RECEIPT_BYTES = 16


@dataclasses.dataclass(frozen=True)
class TransferFlags:
    """Gives units to another account, such as to a key that is to pay its registration.

    Attributes:
      key: file with the key that signs: identity.key in a node's home.
      to: who receives: a registered name, or a public key of 64 hexadecimal digits.
      units: how many, at least 1.
      name: the registered name whose account gives; None: the account of the key itself.
      receipt: of a transfer that had no answer, to repeat it safely; None: a new one.
    """

    key: Path | None = None
    to: str | None = None
    units: int | None = None
    name: str | None = None
    receipt: str | None = None


def transfer(url: str, flags: TransferFlags) -> int:
    """The command.

    Args:
      url: of the ledger.
      flags: who gives how much to whom.

    Raises:
      UsageError: anything that the user can mend.
    """
    if flags.key is None or flags.to is None or flags.units is None:
        raise UsageError("gauntlet ledger transfer needs --key FILE, --to ACCOUNT and --units N")
    if not flags.key.is_file():
        raise UsageError(f"there is no key file {flags.key}")
    receipt = flags.receipt or secrets.token_hex(_RECEIPT_BYTES)
    with judging():
        client = LedgerClient(url, identity=load_or_create(flags.key), name=flags.name or "")
        with contextlib.closing(client):
            try:
                client.transfer(flags.to, flags.units, receipt=receipt)
            except LedgerUnreachable as error:
                raise UsageError(
                    f"{error}; it may have been taken: repeat it with --receipt {receipt}"
                ) from error
    print(f"{flags.to} has {flags.units} units more, receipt {receipt}")
    return 0
