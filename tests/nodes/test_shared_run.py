"""Nodes of a shared run that crash, come back, join, lie, are silent or change what was judged."""

import dataclasses

import jax
import numpy as np
import pytest
from field import Field, share_compiled_steps

from gauntlet_jax.config import CompressionConfig, FinalityConfig, PeerConfig, ValidatorConfig
from gauntlet_jax.nodes import examination
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.observed_bucket import ObservedBucket
from gauntlet_jax.nodes.peer import artifact_key
from gauntlet_jax.nodes.published_record import publish, record_key
from gauntlet_jax.nodes.replica import Diverged
from gauntlet_jax.nodes.settlement import weights_in
from gauntlet_jax.rewards.ledger import LedgerRefused
from gauntlet_jax.storage.bucket import MemoryBucket
from gauntlet_jax.storage.digest import params_digest
from gauntlet_jax.storage.publication import write_update

PEERS = ("ada", "ben", "cleo")


@pytest.fixture(scope="module")
def config(tiny):
    return tiny(
        peers=tuple(map(PeerConfig, PEERS)),
        slots=4,
        rounds=12,
        # Together the two small ones can overrule the large one.
        validators=(ValidatorConfig("V1", 3.0), ValidatorConfig("V2", 2.0), ValidatorConfig("V3", 2.0)),
        commit_reveal=True,
        beacon="ledger",
        times=RoundTimes(seconds=12, commit_closes=4, opens=6, closes=9),
        finality=FinalityConfig(weights_seconds=1, succession_seconds=2, veto_seconds=2),
        checkpoint_every=2,
    )


@pytest.fixture(scope="module")
def shared_steps(config):
    with pytest.MonkeyPatch.context() as monkeypatch:
        share_compiled_steps(monkeypatch, config)
        yield


@pytest.fixture
def field(config, tmp_path, shared_steps):
    field = Field(config, tmp_path)
    for name in ("V1", "V2", "V3"):
        field.start_validator(name)
    for name in PEERS:
        field.start_peer(name)
    field.begin()
    yield field
    for process in field.peers.values():
        process.close()


def digest_of(process) -> str:
    return params_digest(process._replica.params)


def told(field, text):
    return [line for line in field.said if text in line]


def test_every_node_holds_what_the_final_record_says(field):
    for t in range(3):
        record = field.round()
        assert record.round == t and all(peer.refusal is None for peer in record.peers)
    field.upload()  # all take up the last record
    field.judge()
    nodes = [*field.peers.values(), *field.validators.values()]
    assert {digest_of(node) for node in nodes} == {record.params_digest}
    assert sum(field.ledger.balances().values()) == 3_000_000


def test_a_validator_that_is_killed_before_it_posts_goes_on_from_its_journal(field):
    field.round()
    field.upload()
    killed = field.validators["V1"]
    judged = killed._validator.state()
    killed._judge(killed._run.opening(field.ledger.status()))
    document, state = killed._own.document, killed._validator.state()
    assert state != judged
    back = field.start_validator("V1")
    assert back._validator.state() == state and back.judged == 1
    record = field.finish("V1")
    assert field.ledger.record(1).validator == "V1" and back._own.document == document
    assert record.peers[0].evaluations == 2


def test_a_validator_that_is_killed_while_it_judges_comes_to_the_same_record(field):
    field.round()
    field.upload()
    journal = field._folder / "V1" / "journal.json"
    before = journal.read_bytes()
    killed = field.validators["V1"]
    killed._run.catch_up(killed._replica, 1, stop=field.stop)
    killed._judge(killed._run.opening(field.ledger.status()))
    journal.write_bytes(before)  # it was killed just before it wrote that down
    back = field.start_validator("V1")
    assert back.judged == 0
    field.judge("V1")
    assert back._own.document == killed._own.document
    # What it had put aside of this round before it was killed is not shown with the one before.
    assert [field.buckets["V1"].list(f"{kind}/00000001/", limit=9) for kind in ("copies", "updates")] == [
        [],
        [],
    ]


def test_a_validator_whose_bucket_fails_counts_the_round_once(field, monkeypatch):
    field.round()
    field.upload()
    validator, bucket = field.validators["V1"], field.buckets["V1"]
    before = validator._validator.state()

    def full(key, data):
        raise OSError("it is full")

    with monkeypatch.context() as patch:
        patch.setattr(validator._publishing.unpublished, "put", full)
        with pytest.raises(OSError, match="full"):
            field.judge("V1")
    assert validator._validator.state() == before and validator.judged == 0
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "put", full)
        field.judge("V1")
        field.clock.move_to(field.ledger.status().commits_close)
        with pytest.raises(OSError, match="full"):
            field.judge("V1")
    assert validator.judged == 1
    assert [peer.evaluations for peer in field.finish("V1").peers] == [2, 2, 2]


def test_nothing_tells_of_scores_before_commits_are_closed(field):
    field.round()
    field.upload()
    field.judge()
    shown = [key for name in ("V1", "V2", "V3") for key in field.buckets[name].list("", limit=999)]
    assert {key.split("/")[1][:8] for key in shown if not key.startswith("checkpoints/")} == {"00000000"}
    assert field.ledger.committed(1) == ("V1", "V2", "V3") and field.ledger.weights(1) == {}
    field.clock.move_to(field.ledger.status().commits_close)
    field.judge()
    assert set(field.ledger.weights(1)) == {"V1", "V2", "V3"}
    assert field.buckets["V3"].list("records/00000001/", limit=9)


def test_weights_are_shown_again_after_a_kill_with_the_same_salt(field):
    field.round()
    field.upload()
    field.judge()
    back = field.start_validator("V2")
    field.clock.move_to(field.ledger.status().commits_close)
    field.judge()
    assert field.ledger.weights(1)["V2"] == pytest.approx(weights_in(back._own.record.peers))
    assert back._own.document == field.validators["V2"]._own.document and field.finish().round == 1


def test_a_silent_lead_is_succeeded(field):
    field.round()
    record = field.round("V2", "V3")
    posting = field.ledger.record(1)
    assert posting.validator == "V2" and posting.posted_at >= posting.start + 9 + 1 + 2
    assert field.round().round == 2 and field.ledger.record(2).validator == "V1"
    assert record.peers[0].evaluations == 2


LIES = {
    "pays a friend": (
        lambda record: dataclasses.replace(
            record,
            peers=tuple(
                dataclasses.replace(peer, payable=slot == 0, incentive=float(slot == 0))
                for slot, peer in enumerate(record.peers)
            ),
        ),
        None,  # how a validator scores is its own business: this is for consensus over validators
    ),
    "other parameters": (
        lambda record: dataclasses.replace(record, params_digest="0" * 64),
        "its parameters do not follow from its artifacts",
    ),
    "another step": (
        lambda record: dataclasses.replace(record, learning_rate=1.0),
        "its step size is not the schedule's",
    ),
    "an artifact that was not there": (
        lambda record: dataclasses.replace(
            record,
            peers=tuple(
                dataclasses.replace(peer, digest="1" * 64) if peer.aggregated else peer
                for peer in record.peers
            ),
        ),
        "it, or an artifact of it, cannot be had",
    ),
    "payouts": (
        lambda record: dataclasses.replace(record, emission=1, reserve=1),
        "it says what was paid, which its validator cannot know",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lead_that_lies_is_vetoed_and_the_next_one_posts(field, lie):
    change, fault = LIES[lie]
    field.round()
    field.upload()
    lead = field.validators["V1"]
    lead._judge(lead._run.opening(field.ledger.status()))
    lead._own = publish(
        change(lead._own.record),
        run="tiny",
        validator="V1",
        corpus=lead._own.corpus,
        update_planes=lead._own.update_planes,
        update_sha256=lead._own.update_sha256,
        identity=field.identity("V1"),
    )
    record = field.finish()
    winner = field.ledger.record(1).validator
    if fault is not None:
        for name in ("V2", "V3"):
            assert told(field, f"{name}: round 1: rejecting the record of V1: {fault}")
    assert winner == ("V1" if lie == "pays a friend" else "V2")
    # Its weights are paid by consensus: with less than half the stake it gives nobody more than the others do.
    honest = weights_in(field.validators["V2"]._own.record.peers)
    assert field.ledger.epoch(1).consensus == pytest.approx(honest)
    if lie == "pays a friend":
        assert field.ledger.epoch(1).trust["V1"] == pytest.approx(honest["ada"])
    else:  # and who was vetoed had no say in this round
        assert set(field.ledger.epoch(1).trust) == {"V2", "V3"} and set(field.ledger.vetoes(1)) == {"V1"}
    assert record.params_digest == field.validators["V2"]._own.record.params_digest
    assert field.round().round == 2  # and the run goes on


def forge(field, change, *, put=True, signs=None):
    """The lead judges, and posts something else under its own signature."""
    lead = field.validators["V1"]
    lead._run.catch_up(lead._replica, 1, stop=field.stop)
    lead._judge(lead._run.opening(field.ledger.status()))
    own = lead._own
    planes, sha256 = own.update_planes, own.update_sha256
    if signs is not None:
        planes, sha256 = write_update(field.buckets["V1"], 1, signs)
    lead._own = publish(
        change(own.record),
        run="tiny",
        validator="V1",
        corpus=own.corpus,
        update_planes=planes,
        update_sha256=sha256,
        identity=field.identity("V1"),
    )
    if not put:
        lead._shown = 1
    return lead


def test_an_update_that_does_not_follow_is_vetoed_though_its_digest_fits(field):
    field.round()
    field.upload()
    lead = field.validators["V1"]
    lead._run.catch_up(lead._replica, 1, stop=field.stop)
    signs = np.ones(lead._replica.parameters, np.int8)
    alpha = lead._run.opening(field.ledger.status()).step_size
    forged = lead._replica._apply(lead._replica._unflatten(signs.astype(np.float32)), alpha)
    forge(field, lambda r: dataclasses.replace(r, params_digest=params_digest(forged)), signs=signs)
    record = field.finish()
    assert field.ledger.record(1).validator == "V2"
    assert record.params_digest != params_digest(forged)
    assert told(
        field, "V3: round 1: rejecting the record of V1: its parameters do not follow from its artifacts"
    )


def test_a_record_that_nobody_can_read_is_vetoed_in_time(field):
    field.round()
    field.upload()
    forge(field, lambda r: dataclasses.replace(r, heldout_loss=9.9), put=False)
    assert field.finish().heldout_loss != 9.9
    assert field.ledger.record(1).validator == "V2" and field.round().round == 2


def twin_of(bucket, clock):
    """Another bucket with the same objects and times."""
    twin = MemoryBucket(clock)
    for key in bucket.list("rounds/", limit=100):
        found = bucket.get(key, max_bytes=10**6)
        twin._clock = lambda at=found.head.last_modified: at
        twin.put(key, found.data)
    twin._clock = clock
    return twin


class TwoFaces:
    """A bucket that shows each reader an artifact of its own."""

    def __init__(self, faces):
        self.faces, self.reader = faces, "V1"

    def __getattr__(self, method):
        return getattr(self.faces[self.reader], method)


def test_a_peer_that_shows_everybody_another_artifact_stops_nothing(field):
    field.round()
    status = field.ledger.status()
    cleo = field.peers["cleo"]
    cleo._run.catch_up(cleo._replica, 1, stop=field.stop)
    opening = cleo._run.opening(status)
    two = TwoFaces({name: twin_of(field.buckets["cleo"], field.clock) for name in ("V1", "V2", "V3")})
    contributions = {}
    for name, bucket in two.faces.items():
        made = cleo._peer.prepare(opening, cleo._replica.params)  # another residual each time
        cleo._peer._bucket = bucket
        cleo._peer.commit(made)
        contributions[name] = made
    del field.peers["cleo"]
    field.buckets["cleo"] = two
    for validator in field.validators.values():
        validator._run._buckets.pop("memory://cleo", None)

    field.upload(by=two)
    field.clock.time = opening.window.opens + 1.0
    for name, made in contributions.items():
        cleo._peer._bucket = two.faces[name]
        cleo._peer.upload(made)
    field.clock.move_to(opening.window.closes)
    record = field.finish(by=two)
    assert len({validator._own.record.peers[2].digest for validator in field.validators.values()}) == 3
    assert field.ledger.record(1).validator == "V1" and record.peers[2].aggregated
    following = field.peers["ada"]
    following._run.catch_up(following._replica, 2, stop=field.stop)
    assert digest_of(following) == record.params_digest


def test_when_all_are_vetoed_the_largest_stake_decides(field):
    field.round()
    field.upload()
    field.judge()
    field.clock.move_to(field.ledger.status().commits_close)
    field.judge("V1")
    for name, against in (("V1", ("V2", "V3")), ("V2", ("V1", "V3")), ("V3", ("V1", "V2"))):
        if name != "V1":
            field.ledger.post_record(name, 1, field.validators[name]._own.digest)
        for other in against:
            field.ledger.reject_record(other, 1, field.validators[name]._own.digest)
    while field.ledger.status().round == 1:
        field.clock.move_to(field.clock.time + 0.25)
    assert field.ledger.record(1).validator == "V1"
    assert field.round().round == 2


def test_a_change_is_remembered_over_a_restart_and_a_deletion_is_one(field):
    field.round()
    field.upload()
    field.finish()
    field.buckets["ben"].delete_prefix(artifact_key(1))
    field.start_validator("V1")
    assert [peer.refusal for peer in field.round().peers] == [None, "altered", None]
    assert field.record(2).peers[1].detail == "its artifact of round 1 was deleted after it had been judged"


def test_what_is_changed_after_it_was_judged_is_noticed(field):
    field.round()
    field.upload()
    field.judge()
    field.clock.move_to(field.ledger.status().commits_close)
    field.judge()
    # The record stands; now ada puts another artifact in the place of the one that was judged.
    ada = field.peers["ada"]
    ada._peer.upload(ada._peer.prepare(ada._run.opening(field.ledger.status()), ada._replica.params))
    record = field.finish()
    late = field.start_peer("ben", fresh=True)
    late._run.catch_up(late._replica, 2, stop=field.stop)
    assert digest_of(late) == record.params_digest
    following = field.round()
    assert [peer.refusal for peer in following.peers] == ["altered", None, None]
    assert following.peers[0].detail == "its artifact of round 1 was changed after it had been judged"
    assert following.peers[0].standing == 0.75


def test_a_node_that_joins_takes_a_checkpoint_and_replays_to_the_same_bits(field):
    for _ in range(5):
        record = field.round()
    newcomer = field.start_peer("stranger")
    assert field.ledger.registrations(None)[-1].slot == 3
    newcomer._run.catch_up(newcomer._replica, 5, stop=field.stop)
    assert told(field, "stranger: took up the checkpoint of round 4")
    assert digest_of(newcomer) == record.params_digest
    # It takes part from the round on that begins after it has registered.
    assert [[peer.name for peer in field.round().peers] for _ in range(2)] == [
        [*PEERS],
        [*PEERS, "stranger"],
    ]
    # Without any checkpoint, from theta_0; and without any artifact, from the signed updates alone.
    for name in ("V1", "V2", "V3"):
        field.buckets[name].delete_prefix("checkpoints/")
        field.buckets[name].delete_prefix("copies/")
    for name in PEERS:
        field.buckets[name].delete_prefix("rounds/")
    other = field.start_peer("ben", fresh=True)
    other._run.catch_up(other._replica, 5, stop=field.stop)
    assert len(told(field, "ben: round 0: the artifact of ada cannot be had as it was judged")) == 1
    assert field.record(other._replica.round - 1).params_digest == digest_of(other)


def test_a_checkpoint_of_something_else_is_not_believed(field):
    for _ in range(3):
        record = field.round()
    for name in ("V1", "V2", "V3"):
        key = next(key for key in field.buckets[name].list("checkpoints/00000002/", limit=9) if "/c/" in key)
        data = bytearray(field.buckets[name].get(key, max_bytes=10**7).data)
        data[0] ^= 1
        field.buckets[name].put(key, bytes(data))
    newcomer = field.start_peer("ben", fresh=True)
    newcomer._run.catch_up(newcomer._replica, 3, stop=field.stop)
    assert not told(field, "ben: took up the checkpoint")
    assert digest_of(newcomer) == record.params_digest


def test_a_record_that_nothing_leads_to_is_not_followed(field):
    field.round()
    replica = field.peers["ada"]._replica
    published = field.validators["V1"]._own
    wrong = published._replace(record=dataclasses.replace(published.record, params_digest="0" * 64))
    with pytest.raises(Diverged, match="round 0: the record of V1 cannot be followed"):
        replica.after(wrong, field.peers["ada"]._run.members(0), [field.open("memory://V1")])


def test_a_run_whose_updates_are_no_signs_goes_on_without_an_artifact(config, tmp_path):
    sparse = dataclasses.replace(
        config, compression=CompressionConfig(method="sparseloco", beta=0.9, k=8, bits=2, inner_steps=4)
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        share_compiled_steps(monkeypatch, sparse)
        field = Field(sparse, tmp_path)
        for name in ("V1", "V2", "V3"):
            field.start_validator(name)
        for name in PEERS:
            field.start_peer(name)
        field.begin()
        field.round()
        field.upload()
        field.judge()
        field.clock.move_to(field.ledger.status().commits_close)
        field.judge()
        assert field.validators["V1"]._own.update_planes == 0
        gone = next(peer.name for peer in field.validators["V1"]._own.record.peers if peer.aggregated)
        field.buckets[gone].delete_prefix("rounds/")
        record = field.finish()
        newcomer = field.start_peer(gone, fresh=True)
        newcomer._run.catch_up(newcomer._replica, 2, stop=field.stop)
        assert digest_of(newcomer) == record.params_digest
        for process in field.peers.values():
            process.close()


def test_a_peer_goes_on_from_its_own_checkpoint(field):
    for _ in range(3):
        field.round()
    ben = field.peers["ben"]
    ben._run.catch_up(ben._replica, 3, stop=field.stop)
    ben.save()
    ben.close()
    back = field.start_peer("ben")
    assert told(field, "ben: took up its own checkpoint of round 3")
    assert digest_of(back) == digest_of(ben)
    same = [
        np.array_equal(one, other)
        for one, other in zip(
            _leaves(back._peer.state["residual"]), _leaves(ben._peer.state["residual"]), strict=True
        )
    ]
    assert all(same) and len(same) > 3


def _leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_a_commit_that_is_dated_back_was_not_there(field):
    """A peer that runs its own storage gives its objects any time; validators have looked for themselves."""
    field.round()
    status = field.ledger.status()
    cleo = field.peers["cleo"]
    process = field.peers.pop("cleo")
    field.upload()  # the others commit and show; the clock stands at the close of the put window
    opening = cleo._run.opening(status)
    cleo._run.catch_up(cleo._replica, 1, stop=field.stop)
    contribution = cleo._peer.prepare(opening, cleo._replica.params)
    own = field.buckets["cleo"]
    own._clock = lambda: opening.commits.opens + 1.0
    cleo._peer.commit(contribution)
    own._clock = lambda: opening.window.opens + 1.0
    cleo._peer.upload(contribution)
    own._clock = field.clock
    field.peers["cleo"] = process
    record = field.finish()
    assert [peer.refusal for peer in record.peers] == [None, None, "uncommitted"]
    assert record.peers[2].detail == "its commit was not there when the window for commits had closed"
    # Nobody can look between the windows again: an audit takes it from the record.
    bucket = ObservedBucket(field.open("memory://cleo"))
    bucket.show(record.peers[2], opening.window)
    with pytest.raises(FileNotFoundError):
        bucket.get("rounds/00000001/commit.json", max_bytes=10**6)
    bucket.show(dataclasses.replace(record.peers[2], refusal=None, detail=""), opening.window)
    assert (
        bucket.get("rounds/00000001/commit.json", max_bytes=10**6).head.last_modified < opening.commits.closes
    )


def test_a_bucket_that_does_not_answer_costs_its_owner_the_round_and_nobody_else(field):
    field.round()
    field.upload()
    field.cut.add("cleo")
    record = field.finish()
    assert [peer.refusal for peer in record.peers] == [None, None, "unreachable"]
    field.cut.clear()
    assert all(peer.refusal is None for peer in field.round().peers)


def test_a_validators_bucket_that_does_not_answer_is_waited_for(field):
    field.round()
    field.upload()
    field.judge("V1")
    field.cut.update({"V1"})
    status = field.ledger.status()
    with pytest.raises(OSError, match="round 0: the record of V1 is in no validator's bucket"):
        # Nobody has copied it yet: the record of round 0 is only where V1 put it.
        field.buckets["V2"].delete_prefix("records/")
        field.buckets["V3"].delete_prefix("records/")
        newcomer = field.start_peer("ben", fresh=True)
        newcomer._run.catch_up(newcomer._replica, 1, stop=field.stop)
    field.cut.clear()
    newcomer._run.catch_up(newcomer._replica, 1, stop=field.stop)
    assert newcomer._replica.round >= 1 and status.round == 1


def test_garbage_in_another_validators_bucket_hides_no_record(field):
    record = field.round()
    field.upload()
    posting = field.ledger.record(0)
    field.cut.add(posting.validator)
    first, second = (name for name in ("V1", "V2", "V3") if name != posting.validator)
    key = record_key(0, posting.digest)
    right = field.buckets[posting.validator].get(key, max_bytes=10**6).data
    field.buckets[first].put(key, b"garbage")
    field.buckets[second].put(key, right)
    assert field.record(0) == record


def test_another_text_is_told_in_one_line(field):
    field.round()
    newcomer = field.start_peer("ben", fresh=True)
    newcomer._run.rules = newcomer._run.rules._replace(corpus="0" * 64)
    with pytest.raises(
        ValueError, match=r"this run trains on another text than this node has .* give --data-path"
    ):
        newcomer._run.catch_up(newcomer._replica, 1, stop=field.stop)


def test_names_and_slots_are_taken_once(field, monkeypatch):
    monkeypatch.setattr(field, "identity", lambda name: Field.identity(field, f"impostor {name}"))
    with pytest.raises((LedgerRefused, ValueError), match="ada"):
        field.start_peer("ada", fresh=True)
    field.start_peer("first", fresh=True)
    with pytest.raises((LedgerRefused, ValueError), match="slot"):
        field.start_peer("second", fresh=True)


def test_the_rejections_that_speak_against_a_record():
    """Only what every honest reader must see: bad luck with a bucket is no reason to overrule anybody."""
    assert set(examination._FAULTS) == {"malformed", "uncommitted", "out_of_sync"}


def test_old_artifacts_are_deleted(field, config):
    process = field.peers["ada"]
    process._artifacts_kept = 1
    field.round()
    field.upload()
    opening = process._run.opening(field.ledger.status())
    contribution = process._peer.prepare(opening, process._replica.params)
    process._upload(contribution, opening, field.stop)
    assert field.buckets["ada"].list(f"{artifact_key(0)}/", limit=9) == []
    assert field.buckets["ada"].list(f"{artifact_key(1)}/", limit=9) != []


def test_equal_stakes_take_turns_in_the_order_of_the_terms(config, tmp_path, shared_steps):
    """The ledger goes by that order, so nodes must, in whatever order they have registered."""
    equal = dataclasses.replace(
        config, validators=tuple(ValidatorConfig(name, 1.0) for name in ("V1", "V2", "V3"))
    )
    field = Field(equal, tmp_path)
    for name in ("V3", "V2", "V1"):
        field.start_validator(name)
    for name in PEERS:
        field.start_peer(name)
    field.begin()
    field.round()
    posting = field.ledger.record(0)
    assert posting.validator == "V1"
    assert not told(field, "it is not the turn of")
    for process in field.peers.values():
        process.close()
