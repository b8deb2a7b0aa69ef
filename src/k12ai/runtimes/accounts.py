"""The accounts that tasks run under, where the server may give each student one."""

Account = tuple[int, int]
"""A uid and a gid."""

FIRST_UID = 200_000  # above what distributions give to people and services, below their subordinate ids


def account_of(number: int) -> Account:
    """Return the account of the user with this number."""
    return FIRST_UID + number, FIRST_UID + number
