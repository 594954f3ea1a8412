"""The gateway bench runs and says what it promises; how fast is for `make bench-gateway`."""

from pathlib import Path

import pytest

from bench.gateway import Size, headline, measure, show
from bench.gateway_processes import stage

SMALL = Size(
    rounds=2,
    short=4,
    long=40,
    blocks=1,
    requests=8,
    paced_streams=2,
    paced_tokens=5,
    paced_rounds=1,
)


@pytest.mark.chain
async def test_every_figure_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the whole network; LiteLLM, which is only for the bench, is made up here."""
    with stage(tmp_path, print, litellm=False) as running:
        figures = await measure(running, SMALL)
    assert list(figures) == ["ttft", "chunks", "requests", "paced_run"]
    assert figures["chunks"]["8"]["live"]["chunks"] == 8 * 42
    assert figures["paced_run"]["standing"]["requests"] == 2
    for run in (figures["ttft"], *figures["chunks"].values(), figures["paced_run"]):
        assert list(run) == ["direct", "standing", "live"]
        run["litellm"] = run["live"]
    figures["paced_run"]["litellm"]["cpu_us_per_chunk"]["litellm"] = 1000.0
    said = headline(figures)
    assert said["live"]["added_ttft_vs_litellm"] == 1
    assert said["standing"]["added_ttft_vs_litellm"] > 0
    assert said["chunks_vs_litellm"] > 0
    assert said["paced"].keys() == {
        "gateway_cpu_us_per_chunk",
        "litellm_cpu_us_per_chunk",
        "cpu_vs_litellm",
    }
    show(figures | said)
    assert "chunks_vs_litellm" in capsys.readouterr().out
