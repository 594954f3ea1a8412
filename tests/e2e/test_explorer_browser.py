"""The explorer in a real Chromium, over the real network: a stranger looks a request up.

Pages are served by `python -m explorer` as `pinaivu up` starts it. Screenshots of both themes are
left in the folder that `PINAIVU_SCREENSHOTS` names, if it names one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from pinaivu.encoding import to_hex
from pinaivu.keys import checksum
from pinaivu.local.network import Network
from pinaivu.loopback import free_port
from tests.e2e.stage import Stage, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chain,
    pytest.mark.engine,
    pytest.mark.browser,
    pytest.mark.timeout(600),
]

PROMPT: Final = "What is the capital of France? Answer in one sentence."
_CHARTS: Final = 2  # prices and scores
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,1600",
)


@pytest.fixture(scope="module")
def explorer_url(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An explorer of this test's own over the network's log and chain."""
    folder, port = tmp_path_factory.mktemp("explorer"), free_port()
    config = folder / "explorer.json"
    config.write_text(
        json.dumps(
            {
                "log_url": network.log_url,
                "rpc": network.chain.process.url,
                "deployment": str(network.folder.deployment),
                "log_id": to_hex(network.log_id),
                "database": f"sqlite:///{folder}/explorer.db",
                "port": port,
            }
        )
    )
    url = f"http://127.0.0.1:{port}"
    with (folder / "explorer.log").open("wb") as log:
        command = [sys.executable, "-m", "explorer", "--config", str(config)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        until("the explorer is up", lambda: _healthy(url))
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/_stcore/health", timeout=5).text == "ok"
    except httpx.HTTPError:
        return False


@pytest.fixture(params=["light", "dark"])
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chrome]:
    """A fresh Chromium that prefers one of the two themes."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    chrome = Chrome(options=options, service=Service(driver))
    scheme = [{"name": "prefers-color-scheme", "value": request.param}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    try:
        yield chrome
    finally:
        chrome.quit()


def _element(browser: Chrome, css: str) -> WebElement:
    def look() -> WebElement | None:
        found = browser.find_elements(By.CSS_SELECTOR, css)
        return found[0] if found else None

    return until(f"{css} on {browser.current_url}", look)


def _await_text(browser: Chrome, css: str, pattern: str) -> str:
    """The text of an element, once it matches."""

    def look() -> str | None:
        found: Any = browser.execute_script(
            "const e = document.querySelector(arguments[0]); return e && e.innerText", css
        )
        return found if found and re.search(pattern, found, re.DOTALL) else None

    return until(f"{pattern!r} in {css} on {browser.current_url}", look)


def _keep_picture(browser: Chrome, name: str) -> None:
    folder = os.environ.get("PINAIVU_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_a_stranger_finds_a_request_and_sees_it_proven(
    stage: Stage, explorer_url: str, browser: Chrome, request: pytest.FixtureRequest
) -> None:
    """From the front page by the search box to the first line with its marks, and on to the node.

    Every value of that line is the receipt's; every mark is a step that was run.
    """
    theme = request.node.callspec.params["browser"]
    answer = stage.ask(PROMPT, max_tokens=32)
    request_id: str = answer.request_id  # type: ignore[attr-defined]
    receipt = stage.await_final(request_id)
    (segment,) = receipt.segments
    browser.get(explorer_url)
    _await_text(browser, "body", rf"Everything is settled.*{request_id}")
    _keep_picture(browser, f"overview-{theme}")

    field = _element(browser, "input[type=text]")
    field.send_keys(request_id, Keys.ENTER)
    first = _await_text(browser, "#first-line", "Attestation")
    node = checksum(segment.node)
    due = (
        rf"Who served it {node[:8]}…{node[-6:]} ✓ V6 When [-\d]+ [\d:]+ UTC ✓ V2 "
        rf"Model {receipt.model} \? V13 "
        rf"Tokens {segment.prompt_billed} in · {segment.output_billed} out \? V9 "
        rf"Cost 0\.{receipt.total:06d} TUSD ✓ V8 Settled in block \d+ ✓ V10 "
        r"Attestation SIMULATED V1"
    )
    assert re.fullmatch(due, " ".join(first.split())), first
    body = _await_text(browser, "body", r"Verification, step by step.*V14.*Timeline.*Raw")
    assert "SIMULATED proven under development, without the holder's steps" in _line(body)
    _await_text(browser, "[data-testid=stCode]", f"pinaivu verify {request_id}")
    assert f"request={request_id}" in browser.current_url
    drawn = "[data-testid=stVegaLiteChart] :is(svg, canvas)"
    until("both charts", lambda: len(browser.find_elements(By.CSS_SELECTOR, drawn)) == _CHARTS)
    dark = browser.execute_script(
        "return getComputedStyle(document.querySelector('.stApp')).backgroundColor"
    )
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 384) == (theme == "dark")
    _keep_picture(browser, f"request-{theme}")

    _element(browser, "#first-line a").click()
    _await_text(browser, "body", rf"{node}.*Settled receipts and chain agree")
    assert f"node={node}" in browser.current_url


def test_a_deep_link_and_an_unknown_id_need_no_front_page(
    stage: Stage, explorer_url: str, browser: Chrome
) -> None:
    """A link to a request opens it; an id that never was says what to do."""
    answer = stage.ask(PROMPT, max_tokens=8)
    request_id: str = answer.request_id  # type: ignore[attr-defined]
    stage.await_final(request_id)
    url = f"{explorer_url}/?request={request_id}"

    def indexed() -> bool:
        browser.get(url)
        return "Who served it" in _await_text(browser, "body", "Who served it|No receipt")

    until("the receipt is indexed", indexed)
    browser.get(f"{explorer_url}/?request=01a2014d-c89f-714e-aeb2-587aafeab715")
    _await_text(browser, "body", "No receipt with this id is known here.*What you can do")


def _line(text: str) -> str:
    return " ".join(text.split())
