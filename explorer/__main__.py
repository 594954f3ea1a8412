"""``python -m explorer --config FILE``: the pages on 127.0.0.1, and the indexer beside them.

The indexer is a process of its own, so that catching up with a long log never slows a page. It ends
with this one, however this one ends: its standard input is a pipe that only this process holds.
Ready when ``http://127.0.0.1:PORT/_stcore/health`` answers ``ok``.
"""

import argparse
import logging
import subprocess
import sys
import threading
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from streamlit.web import bootstrap

from explorer.config import Config, load_config
from explorer.site import open_site
from pinaivu.errors import PinaivuError
from pinaivu.verify import SimulatedDocumentWarning

_RESTART_AFTER_S: Final = 1.0
_logger = logging.getLogger("explorer")


class IndexerChild:
    """Keeps one indexer process running until stopped."""

    def __init__(self, config: Path) -> None:
        command = [sys.executable, "-m", "explorer.indexer", "--tethered", "--config", str(config)]
        self._command = command
        self._stopping = threading.Event()
        self._process = self._start()
        threading.Thread(target=self._keep, daemon=True).start()

    def stop(self) -> None:
        """End it; its database survives that at any moment."""
        self._stopping.set()
        self._process.terminate()
        self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._command, stdin=subprocess.PIPE)  # noqa: S603 - our program

    def _keep(self) -> None:
        while True:
            code = self._process.wait()
            if self._stopping.wait(_RESTART_AFTER_S):
                return
            _logger.warning("the indexer ended with code %d; starting it again", code)
            self._process = self._start()


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2 where the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="python -m explorer", description="The explorer's pages.")
    parser.add_argument("--config", type=Path, required=True, help="the configuration (JSON)")
    path: Path = parser.parse_args().config.absolute()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.simplefilter("ignore", SimulatedDocumentWarning)  # each page says it itself
    try:
        config = load_config(path)
        open_site(config)  # brings the tables up to date before two processes use them
    except PinaivuError as error:
        print(f"explorer: {error}", file=sys.stderr)  # noqa: T201 - a program's last words
        return 2
    indexer = IndexerChild(path)
    try:
        serve(config, path)
    finally:
        indexer.stop()
    return 0


def serve(config: Config, path: Path) -> None:
    """Run the Streamlit server in this thread until a signal ends it."""
    options = _options(config)
    bootstrap.load_config_options(options)
    bootstrap.run(str(files("explorer") / "app.py"), False, [str(path)], options)


def _options(config: Config) -> dict[str, Any]:
    return {
        "server_address": "127.0.0.1",
        "server_port": config.port,
        "server_headless": True,
        "server_fileWatcherType": "none",
        "browser_gatherUsageStats": False,
        "browser_serverAddress": "127.0.0.1",
        "browser_serverPort": config.port,
        "client_toolbarMode": "minimal",
        "client_showErrorDetails": "none",
        "global_developmentMode": False,
        "theme_light_primaryColor": "#2563eb",
        "theme_dark_primaryColor": "#3b82f6",
    }


if __name__ == "__main__":
    sys.exit(main())
