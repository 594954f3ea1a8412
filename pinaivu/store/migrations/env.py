"""Alembic's entry: migrates the one service that `open_database` names, on its connection."""

from importlib import import_module

from alembic import context

service = context.config.attributes["service"]
tables = import_module(f"pinaivu.store.{service}")
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.METADATA,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
