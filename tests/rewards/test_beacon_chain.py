import hashlib

from gauntlet_jax.rewards.beacon_chain import leads_to, make_chain

SECRET = bytes(range(32))


def test_every_link_hashes_to_the_one_before_and_the_first_to_the_anchor():
    anchor, links = make_chain(SECRET, 6)
    assert len(links) == 6
    known = bytes.fromhex(anchor)
    for link in links:
        assert hashlib.sha256(link).digest() == known
        known = link
    assert len({*links}) == 6
    assert SECRET not in links
    assert make_chain(SECRET, 6) == (anchor, links)
    assert make_chain(SECRET[::-1], 6)[0] != anchor


def test_a_link_is_checked_against_an_earlier_one():
    anchor, links = make_chain(SECRET, 6)
    assert leads_to(links[4], links[1], 3)
    assert leads_to(links[0], bytes.fromhex(anchor), 1)
    assert not leads_to(links[4], links[1], 2)
    assert not leads_to(links[1], links[4], 3)
    assert not leads_to(bytes(32), links[1], 3)
