"""Names of topologies and rates of lines: what is read, and how what is not is refused."""

import jax
import pytest

from gauntlet_jax.planning.chips import CHIPS
from gauntlet_jax.planning.topology import devices_of, parse_topology
from gauntlet_jax.planning.transfers import bytes_per_second


@pytest.mark.parametrize(
    ("name", "chips", "kind"),
    [
        ("v5e:4x4", 16, "tpu"),
        ("v5e:1x1", 1, "tpu"),
        ("v5p:2x4x4", 32, "tpu"),
        ("v5p:8x8x8", 512, "tpu"),
        ("v4:2x2x1", 4, "tpu"),
        ("v6e:16x16", 256, "tpu"),
        ("h100:8", 8, "gpu"),
        ("a100-40gb:1", 1, "gpu"),
        ("cpu:8", 8, "cpu"),
    ],
)
def test_topologies(name, chips, kind):
    topology = parse_topology(name)
    assert (topology.chips, topology.chip.kind, topology.stand_in) == (chips, kind, kind == "gpu")
    assert topology.chip is CHIPS[name.split(":")[0]]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v5p", "is not CHIP:SIDES"),
        ("v5p:", "is not CHIP:SIDES"),
        ("v5p:4x", "is not CHIP:SIDES"),
        ("v5q:4x4x4", "the nearest is 'v5p'"),
        ("H100:8", "the nearest is 'h100'"),
        ("v5e:4x4x4", "v5e has 2 sides, such as v5e:4x4"),
        ("v5p:4x4", "v5p has 3 sides, such as v5p:4x4x4"),
        ("h100:2x4", "h100 has a number of chips, such as h100:8"),
        ("v5p:3x4x4", "1, 2 or multiples of 4"),
        ("v5p:2x4x6", "1, 2 or multiples of 4"),
        ("cpu:0", "has no chips"),
    ],
)
def test_what_is_no_topology_is_named(name, told):
    with pytest.raises(ValueError, match="topology: ") as error:
        parse_topology(name)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_cpu_devices_stand_in_as_far_as_there_are_some():
    assert devices_of(parse_topology("h100:4")) == jax.devices("cpu")[:4]
    with pytest.raises(ValueError, match="h100:9 needs 9 CPU devices, 8 are there"):
        devices_of(parse_topology("h100:9"))


@pytest.mark.parametrize(
    ("rate", "bytes_a_second"),
    [
        ("110Mbps", 13.75e6),
        ("110 Mb/s", 13.75e6),
        ("1.5Gbit/s", 187.5e6),
        ("14MB/s", 14e6),
        ("8bps", 1.0),
        ("100kbps", 12.5e3),
    ],
)
def test_rates(rate, bytes_a_second):
    assert bytes_per_second(rate) == pytest.approx(bytes_a_second)


@pytest.mark.parametrize(
    "rate", ["110", "Mbps", "110MB", "-1Mbps", "0Mbps", "1e3Mbps", "14mB/S", "110M bps x"]
)
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(ValueError, match="is no rate"):
        bytes_per_second(rate)
