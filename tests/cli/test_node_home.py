"""A node's home is of one process at a time, and of one ledger."""

import pytest

from gauntlet_jax.cli import node_parts
from gauntlet_jax.cli.run_folder import UsageError


def test_two_processes_do_not_live_in_one_home(tmp_path):
    with (
        node_parts._sole_user(tmp_path),
        pytest.raises(UsageError, match="another process lives in"),
        node_parts._sole_user(tmp_path),
    ):
        pass
    with node_parts._sole_user(tmp_path):  # free again
        pass


def test_a_home_of_another_ledger_is_refused(tmp_path):
    node_parts._check_ledger(tmp_path, "a" * 64)
    node_parts._check_ledger(tmp_path, "a" * 64)
    with pytest.raises(
        UsageError, match=r"belongs to a run on another ledger: .* all of it but identity\.key"
    ):
        node_parts._check_ledger(tmp_path, "b" * 64)
