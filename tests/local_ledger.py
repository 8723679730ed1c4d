"""The ledger of a shared run as one node sees it, in the process of a test."""

from gauntlet_jax.rewards.weight_commit import weights_digest


class LocalLedger:
    """What a client is over HTTP, without a socket: it calls under one name and key."""

    def __init__(self, ledger, name, key):
        self._ledger, self._name, self._key = ledger, name, key

    def __getattr__(self, method):
        return getattr(self._ledger, method)

    def register_peer(self, name, bucket):
        return self._ledger.register_peer(name, self._key, bucket)

    def register_validator(self, name, bucket):
        return self._ledger.register_validator(name, self._key, bucket)

    def commit_weights(self, round, weights, salt):
        self._ledger.commit_weights(self._name, round, weights_digest(round, self._name, weights, salt))

    def reveal_weights(self, round, weights, salt):
        self._ledger.reveal_weights(self._name, round, weights, salt)

    def post_record(self, round, digest):
        self._ledger.post_record(self._name, round, digest)

    def reject_record(self, round, digest):
        self._ledger.reject_record(self._name, round, digest)
