"""Entries, tombstones, the index and pending requests."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "entry",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("flags", sa.BigInteger(), nullable=False),
        sa.Column("create_index", sa.BigInteger(), nullable=False),
        sa.Column("modify_index", sa.BigInteger(), nullable=False),
        sa.Column("lock_index", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
    )
    op.create_index("entry_expires_at", "entry", ["expires_at"])
    op.create_table(
        "tombstone",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("modify_index", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=False),
    )
    counter = op.create_table(
        "counter",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("last_index", sa.BigInteger(), nullable=False),
        sa.Column("cleared_index", sa.BigInteger(), nullable=False),
    )
    # An index of 0 would send blocking clients into a busy loop, so the store starts at 1.
    op.bulk_insert(counter, [{"id": 1, "last_index": 1, "cleared_index": 0}])
    op.create_table(
        "request",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    for table in ("request", "counter", "tombstone", "entry"):
        op.drop_table(table)
