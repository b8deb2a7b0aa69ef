"""Tokens by themselves: what they are made of."""

import hashlib

import pytest

from k12ai.access import tokens


def test_a_token_has_at_least_128_random_bits() -> None:
    made = {tokens.new().secret for _ in range(1000)}
    assert len(made) == 1000
    assert tokens.SECRET_BYTES * 8 >= 128


def test_a_token_comes_apart_into_what_it_was_made_of() -> None:
    for _ in range(200):  # some secrets have '_' and '-' in them
        made = tokens.new()
        assert tokens.parse(made.text) == made


@pytest.mark.parametrize(
    "text",
    [
        *("", "k12ai", "k12ai_", "k12ai_12345678_", "K12AI_12345678_" + "a" * 32, "null", "x" * 100_000),
        *(f"k12ai_12345678_{secret}" for secret in ("a" * 31, "a" * 33, "a" * 32 + "\n", "é" * 32)),
        *("k12ai_1234567g_" + "a" * 32, " k12ai_12345678_" + "a" * 32),
    ],
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert tokens.parse(text) is None


def test_only_the_hash_of_the_secret_is_kept() -> None:
    made = tokens.new()
    assert made.digest == hashlib.sha256(made.secret.encode()).digest()
    assert made.secret.encode() not in made.digest


def test_a_secret_matches_its_own_digest_alone() -> None:
    made, other = tokens.new(), tokens.new()
    assert tokens.matches(made, made.digest)
    assert not tokens.matches(made, other.digest)
    assert not tokens.matches(made, None)
