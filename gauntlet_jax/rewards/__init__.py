"""Rewards: PeerScores become incentives, these become integer payouts, and a ledger keeps them (layer 3)."""
