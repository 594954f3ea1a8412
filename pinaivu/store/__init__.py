"""Durable state: SQLModel tables per service and their Alembic migrations.

Each service has a database of its own (`coordinator`, `gateway`, `node`, `explorer`): SQLite in a
file or PostgreSQL by URL, the same code. `database.open_database` brings the schema up to date.
"""
