"""Tasks, and a number for each user."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "task",
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text(), nullable=False, unique=True),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("service_uuid", sa.Text(), nullable=False),
        sa.Column("op", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("journal_offset", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sqlite_autoincrement=True,
    )
    op.create_index("task_place", "task", ["user", "service_uuid", "op"])
    op.create_index("task_active", "task", ["active"])
    op.create_index("task_idempotency", "task", ["user", "idempotency_key"], unique=True)
    op.create_table(
        "account",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("user", sa.Text(), nullable=False, unique=True),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    for table in ("account", "task"):
        op.drop_table(table)
