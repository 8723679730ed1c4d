"""An epoch of a ledger, and the accounts, as tables on a terminal."""

from collections.abc import Iterator, Mapping

from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE, Epoch


def epoch_lines(epoch: Epoch) -> Iterator[str]:
    """What a round's weights came to, a line a peer and a validator.

    Args:
      epoch: of the round.
    """
    yield f"round {epoch.round}: {epoch.emission} units"
    yield f"  {'peer':<16} {'consensus':>10} {'incentive':>10} {'units':>20}"
    for name in sorted(epoch.consensus, key=lambda name: (name == RESERVE, -epoch.incentive[name], name)):
        units = epoch.reserve if name == RESERVE else epoch.payouts.get(name, 0)
        yield f"  {name:<16} {epoch.consensus[name]:>10.4f} {epoch.incentive[name]:>10.4f} {units:>20}"
    yield f"  {'validator':<16} {'trust':>10} {'dividends':>10} {'units':>20}"
    for name, dividends in epoch.dividends.items():
        trust = f"{epoch.trust[name]:.4f}" if name in epoch.trust else "silent"
        yield f"  {name:<16} {trust:>10} {dividends:>10.4f} {epoch.payouts.get(name, 0):>20}"
    yield f"  {'unpaid':<16} {RESERVE} {epoch.reserve}, {REMAINDER} {epoch.remainder}"


def account_lines(balances: Mapping[str, int]) -> Iterator[str]:
    """What every account holds, those of the ledger's own last, and the sum.

    Args:
      balances: units by account.
    """
    yield "accounts"
    for name in sorted(balances, key=lambda name: name in (RESERVE, REMAINDER)):
        yield f"  {name:<38} {balances[name]:>20}"
    yield f"  {'all together':<38} {sum(balances.values()):>20}"
