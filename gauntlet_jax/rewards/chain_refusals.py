"""A chain's errors as one clear line each: what, where, what to do."""

from gauntlet_jax.rewards.chain_client import CallFailed
from gauntlet_jax.rewards.ledger import LedgerRefused


class TooEarly(LedgerRefused):
    """The same may be asked again later.

    Attributes:
      blocks: how many blocks later, at least.
    """

    def __init__(self, what: str, blocks: int) -> None:
        super().__init__(f"too early: {blocks} blocks until {what}")
        self.blocks = blocks


_REGISTER = "hotkey {hotkey} is not registered on subnet {netuid}: register it first"
_STAKE = (
    "insufficient stake: hotkey {hotkey} may not weigh on subnet {netuid}; stake to it and wait for an epoch,"
    " after which it holds a validator permit"
)
_BALANCE = "coldkey {coldkey} has not enough balance for {function}: fund it"
_SUBNET = "subnet {netuid} does not exist on this chain"

_LINES = {
    "HotKeyNotRegisteredInSubNet": _REGISTER,
    "HotKeyNotRegisteredInNetwork": _REGISTER,
    "HotKeyAccountNotExists": _REGISTER,
    "AccountNotAllowedCommit": _REGISTER,
    "NotEnoughStakeToSetWeights": _STAKE,
    "StakeAmountTooLow": _STAKE,
    "NeuronNoValidatorPermit": _STAKE,
    "NotEnoughBalanceToStake": _BALANCE,
    "InsufficientBalance": _BALANCE,
    "InsufficientTaoBalance": _BALANCE,
    "Payment": _BALANCE,
    "SubnetNotExists": _SUBNET,
    "MechanismDoesNotExist": _SUBNET,
    "SubNetRegistrationDisabled": "subnet {netuid} takes no registrations: ask its owner",
    "RegistrationNotPermittedOnRootSubnet": "subnet {netuid} is the root: it has no peers",
    "NoNeuronIdAvailable": "all uids of subnet {netuid} are taken and none can be replaced: try again later",
    "TooManyRegistrationsThisBlock": "too many registrations on subnet {netuid} in this block: try again in the next",
    "TooManyRegistrationsThisInterval": "too many registrations on subnet {netuid} in this interval: try again later",
    "NonAssociatedColdKey": "hotkey {hotkey} belongs to another coldkey than {coldkey}",
    "IncorrectWeightVersionKey": "subnet {netuid} wants weights of a newer version of this program: upgrade",
    "SettingWeightsTooFast": "too early: subnet {netuid} takes weights of {hotkey} only after its rate limit",
    "CommittingWeightsTooFast": "too early: subnet {netuid} takes commits of {hotkey} only after its rate limit",
    "RateLimitExceeded": "too early: subnet {netuid} takes weights of {hotkey} only after its rate limit",
    "RevealTooEarly": "too early: subnet {netuid} takes what was committed to only after its reveal period",
    "ExpiredWeightCommit": "too late: the reveal period of these weights on subnet {netuid} is over",
    "NoWeightsCommitFound": "hotkey {hotkey} has no open commit to weights on subnet {netuid}",
    "InvalidRevealCommitHashNotMatch": "hotkey {hotkey} has committed to other weights on subnet {netuid}",
    "CommitRevealEnabled": "subnet {netuid} has begun to demand commits to weights: try again",
    "CommitRevealDisabled": "subnet {netuid} has ceased to take commits to weights: try again",
    "SpaceLimitExceeded": "hotkey {hotkey} has changed its commitment on subnet {netuid} too often in this epoch",
}


def refusal(failed: CallFailed, function: str, *, netuid: int, hotkey: str, coldkey: str) -> LedgerRefused:
    """The error that a user sees for one of the chain's.

    Args:
      failed: what the chain said.
      function: the call.
      netuid: of the subnet.
      hotkey: of this node.
      coldkey: of this node.
    """
    line = _LINES.get(failed.name)
    if line is None:
        # A name of the chain's own catalogue is no secret; its free text might repeat something, so it stays out.
        return LedgerRefused(
            f"the chain did not take {function} on subnet {netuid}: {failed.name or 'no reason given'}"
        )
    return LedgerRefused(line.format(netuid=netuid, hotkey=hotkey, coldkey=coldkey, function=function))
