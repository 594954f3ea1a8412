"""Writes a migration from the difference between tables and migrations.

    python -m pinaivu.store.revise node "add payouts"

For developers; `tests/unit/test_store.py` fails while a difference is left.
"""

import sys
import tempfile
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from pinaivu.store.database import _migrate


def revise(service: str, message: str) -> None:
    """Write one revision for `service` into its versions folder."""
    import_module(f"pinaivu.store.{service}")
    root = Path(str(files("pinaivu.store") / "migrations"))
    versions = root / "versions" / service
    versions.mkdir(parents=True, exist_ok=True)
    number = len(list(versions.glob("[0-9]*.py"))) + 1
    config = Config()
    config.set_main_option("script_location", str(root))
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/x.db")
        if number > 1:
            _migrate(engine, service)
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            config.attributes["service"] = service
            command.revision(
                config,
                message=message,
                autogenerate=True,
                rev_id=f"{number:04d}",
                head="head" if number > 1 else "base",
            )


if __name__ == "__main__":
    revise(*sys.argv[1:3])
