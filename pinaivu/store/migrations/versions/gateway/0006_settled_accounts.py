"""settled accounts."""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ('settled_units', 'settled_before_ms'):
        op.add_column(
            'key_account', sa.Column(name, sa.BigInteger(), nullable=False, server_default='0')
        )


def downgrade() -> None:
    for name in ('settled_before_ms', 'settled_units'):
        op.drop_column('key_account', name)
