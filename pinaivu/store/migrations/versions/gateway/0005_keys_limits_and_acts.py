"""keys, limits and acts.

Daily limits move into the policy; every key gets a meter, to be counted from its requests. Rows of
`act` can be added and read, by nobody changed or removed.
"""

import json

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('act',
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.Column('who', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('what', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('subject', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('detail', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.PrimaryKeyConstraint('number')
    )
    with op.batch_alter_table('act', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_act_subject'), ['subject'], unique=False)

    op.create_table('claim',
    sa.Column('key_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('name', sa.LargeBinary(), nullable=False),
    sa.Column('body_digest', sa.LargeBinary(), nullable=False),
    sa.Column('process_id', sa.LargeBinary(), nullable=False),
    sa.Column('job_id', sa.LargeBinary(), nullable=True),
    sa.Column('begun_ms', sa.BigInteger(), nullable=False),
    sa.Column('ended_ms', sa.BigInteger(), nullable=True),
    sa.Column('answer', sa.LargeBinary(), nullable=True),
    sa.PrimaryKeyConstraint('key_id', 'name')
    )
    with op.batch_alter_table('claim', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_claim_begun_ms'), ['begun_ms'], unique=False)

    op.create_table('meter',
    sa.Column('key_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('minute', sa.Integer(), nullable=False),
    sa.Column('minute_requests', sa.BigInteger(), nullable=False),
    sa.Column('minute_tokens', sa.BigInteger(), nullable=False),
    sa.Column('day', sa.Integer(), nullable=False),
    sa.Column('day_tokens', sa.BigInteger(), nullable=False),
    sa.Column('day_units', sa.BigInteger(), nullable=False),
    sa.Column('month', sa.Integer(), nullable=False),
    sa.Column('month_tokens', sa.BigInteger(), nullable=False),
    sa.Column('month_units', sa.BigInteger(), nullable=False),
    sa.Column('streams', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('key_id')
    )
    op.create_table('process',
    sa.Column('process_id', sa.LargeBinary(), nullable=False),
    sa.Column('until_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('process_id')
    )
    op.create_table('reservation',
    sa.Column('reservation_id', sa.LargeBinary(), nullable=False),
    sa.Column('key_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('process_id', sa.LargeBinary(), nullable=False),
    sa.Column('job_id', sa.LargeBinary(), nullable=True),
    sa.Column('begun_ms', sa.BigInteger(), nullable=False),
    sa.Column('tokens', sa.BigInteger(), nullable=False),
    sa.Column('units', sa.BigInteger(), nullable=False),
    sa.Column('streams', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('reservation_id')
    )
    with op.batch_alter_table('reservation', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_reservation_key_id'), ['key_id'], unique=False)

    with op.batch_alter_table('key', schema=None) as batch_op:
        batch_op.add_column(sa.Column('policy', sqlmodel.sql.sqltypes.AutoString(), nullable=True))
    _move_limits()
    with op.batch_alter_table('key', schema=None) as batch_op:
        batch_op.alter_column('policy', existing_type=sqlmodel.sql.sqltypes.AutoString(), nullable=False)
        batch_op.drop_column('daily_tokens')
        batch_op.drop_column('daily_units')

    with op.batch_alter_table('request', schema=None) as batch_op:
        batch_op.create_index('ix_request_key_created', ['key_id', 'created_ms'], unique=False)

    _only_add()


def _move_limits() -> None:
    names = ('key_id', 'daily_tokens', 'daily_units', 'policy')
    key = sa.table('key', *[sa.column(name) for name in names])
    bind = op.get_bind()
    for key_id, tokens, units in bind.execute(
        sa.select(key.c.key_id, key.c.daily_tokens, key.c.daily_units)
    ).all():
        most = (1 << 53) - 1
        daily = {'daily_tokens': tokens, 'daily_units': units}
        policy = json.dumps({n: min(v, most) for n, v in daily.items() if v is not None})
        bind.execute(key.update().where(key.c.key_id == key_id).values(policy=policy))
    op.execute(
        'INSERT INTO meter SELECT key_id, -1, 0, 0, -1, 0, 0, -1, 0, 0, 0 FROM key'
    )


def _only_add() -> None:
    if op.get_bind().dialect.name == 'sqlite':
        for change in ('UPDATE', 'DELETE'):
            op.execute(
                f"CREATE TRIGGER act_no_{change.lower()} BEFORE {change} ON act "
                "BEGIN SELECT RAISE(ABORT, 'acts are only ever added'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION act_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'acts are only ever added'; END $$"
    )
    op.execute(
        "CREATE TRIGGER act_only_add BEFORE UPDATE OR DELETE OR TRUNCATE ON act "
        "FOR EACH STATEMENT EXECUTE FUNCTION act_refuse()"
    )


def downgrade() -> None:
    with op.batch_alter_table('request', schema=None) as batch_op:
        batch_op.drop_index('ix_request_key_created')

    with op.batch_alter_table('key', schema=None) as batch_op:
        batch_op.add_column(sa.Column('daily_units', sa.BIGINT(), nullable=True))
        batch_op.add_column(sa.Column('daily_tokens', sa.BIGINT(), nullable=True))
        batch_op.drop_column('policy')

    with op.batch_alter_table('reservation', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_reservation_key_id'))

    op.drop_table('reservation')
    op.drop_table('process')
    op.drop_table('meter')
    with op.batch_alter_table('claim', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_claim_begun_ms'))

    op.drop_table('claim')
    with op.batch_alter_table('act', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_act_subject'))

    op.drop_table('act')
    if op.get_bind().dialect.name != 'sqlite':
        op.execute('DROP FUNCTION act_refuse()')
