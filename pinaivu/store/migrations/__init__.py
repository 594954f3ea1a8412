"""Alembic migrations, one folder of versions per service."""
