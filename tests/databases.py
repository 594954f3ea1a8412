"""Fixtures: empty databases, on SQLite and on a PostgreSQL server of our own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from pinaivu.loopback import free_port


@dataclass(frozen=True, slots=True)
class Server:
    """A running PostgreSQL server: its first database's URL, and the folder of its data and log."""

    url: str
    folder: Path

    def create(self, service: str) -> str:
        """The URL of an empty database of its own."""
        name = f"{service.replace('-', '_')}_{os.urandom(4).hex()}"
        self.command(f"CREATE DATABASE {name}")
        return self.url.removesuffix("postgres") + name

    def command(self, statement: str) -> None:
        """Have an administrator's statement done, outside of any transaction."""
        admin = create_engine(self.url)
        try:
            with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(statement)
        finally:
            admin.dispose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server of our own, run as a user who isn't root."""
    with postgres_server("-c fsync=off") as server:
        yield server.url


@contextmanager
def postgres_server(settings: str) -> Iterator[Server]:
    """A PostgreSQL server with these options beside its place and port; gone after the block."""
    initdb, pg_ctl = _server_program("initdb"), _server_program("pg_ctl")
    # Not under pytest's own folder: a second pytest would close that to other users again.
    with tempfile.TemporaryDirectory(prefix="pinaivu-postgres-") as name:
        folder = Path(name)
        as_user = _unprivileged(folder)
        port = free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} {settings}"
        _run([*as_user, initdb, "-D", f"{folder}/data", "-A", "trust", "-U", "pinaivu"], folder)
        control = [*as_user, pg_ctl, "-D", f"{folder}/data", "-w"]
        _run([*control, "-l", f"{folder}/log", "-o", options, "start"], folder)
        try:
            yield Server(f"postgresql+psycopg://pinaivu@127.0.0.1:{port}/postgres", folder)
        finally:
            _run([*control, "-m", "immediate", "stop"], folder)


def _server_program(name: str) -> str:
    """One of the server's programs: from PATH, or where Debian keeps them."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is missing: sudo apt-get install postgresql")
    return found


def _unprivileged(folder: Path) -> list[str]:
    """How to run a program that refuses root: as `nobody`, who then owns the folder."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


def _run(command: list[str], folder: Path) -> None:
    with (folder / "output").open("ab") as output:  # a pipe would stay open in the server
        done = subprocess.run(
            command, cwd=folder, stdout=output, stderr=output, timeout=60, check=False
        )
    assert done.returncode == 0, (folder / "output").read_text()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.database)])
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The URL of an empty database for a service."""
    if request.param == "sqlite":
        return lambda service: f"sqlite:///{tmp_path}/{service}.db"
    return Server(request.getfixturevalue("postgres"), tmp_path).create


@pytest.fixture
def postgres_url(postgres: str, tmp_path: Path) -> str:
    """The URL of an empty database for a gateway on PostgreSQL."""
    return Server(postgres, tmp_path).create("gateway")
