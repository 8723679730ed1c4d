"""The ledger's battery over what keeps a shared run: the ledger itself, and a client's view of it over HTTP."""

import shared_world

from gauntlet_jax.testing.ledger_battery import LedgerBattery


class TestSharedRunLedger(LedgerBattery):
    new_world = staticmethod(shared_world.shared_world)


class TestLedgerClient(LedgerBattery):
    new_world = staticmethod(shared_world.http_world)
