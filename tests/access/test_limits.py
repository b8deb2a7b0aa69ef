"""How often is counted by a clock that nobody can set."""

from k12ai.access.limits import Limiter, is_loopback, network_of


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_passes_and_then_one_at_a_time() -> None:
    clock = Clock()
    limiter = Limiter(2.0, 5, clock)
    assert [limiter.take("a") for _ in range(5)] == [0] * 5
    assert limiter.take("a") == 1
    clock.now_s += 0.5
    assert limiter.take("a") == 0
    assert limiter.take("a") == 1


def test_what_is_said_to_wait_is_enough() -> None:
    clock = Clock()
    limiter = Limiter(1 / 6, 10, clock)
    assert not any(limiter.take("a") for _ in range(10))
    wait_s = limiter.take("a")
    assert wait_s == 6
    clock.now_s += wait_s
    assert limiter.take("a") == 0


def test_a_refused_request_costs_nothing() -> None:
    clock = Clock()
    limiter = Limiter(1.0, 1, clock)
    limiter.take("a")
    for _ in range(100):
        assert limiter.take("a") == 1
    clock.now_s += 1
    assert limiter.take("a") == 0


def test_everybody_is_counted_alone() -> None:
    limiter = Limiter(1.0, 1, Clock())
    assert limiter.take("a") == limiter.take("b") == 0
    assert limiter.take("a")


def test_a_flood_of_addresses_does_not_grow_without_end_nor_forget_who_floods() -> None:
    clock = Clock()
    limiter = Limiter(1.0, 3, clock)
    for _ in range(3):
        limiter.take("flooder")
    for number in range(20_000):
        limiter.take(f"address{number}")
    assert len(limiter._full_at) <= 4096
    assert limiter.take("flooder")


def test_of_ipv6_the_network_of_a_household_is_counted() -> None:
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("not an address") == "not an address"


def test_loopback_is_known_in_every_form() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("192.0.2.1", "::2", "", "localhost.example")))
