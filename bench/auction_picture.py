"""Draws `docs/images/auction-economics.svg`: each strategy's gain over truth with its interval.

Plain SVG, readable on light and dark pages because it brings its own background.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Final

from bench.auction_tally import Tally

_LEFT, _WIDTH, _ROW, _TOP = 330, 560, 18, 64
_LOW, _HIGH = -30.0, 60.0
_COLOURS: Final = {
    "pays": "#c0392b",
    "doesn't pay": "#2e7d4f",
    "not resolved": "#d49a00",
    "no difference": "#8a8a8a",
}


def draw_picture(tallies: Mapping[str, Mapping[str, Tally]]) -> str:
    """The whole picture; what lies beyond the axis is drawn as an arrow at its end."""
    rows = sum(len(found) + 2 for found in tallies.values())
    height = _TOP + rows * _ROW + 30
    body = [*_axis(height), *_groups(tallies)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 30}" '
        f'height="{height}" font-family="sans-serif" font-size="12" fill="#222">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *body, "</svg>", ""])


def _axis(height: int) -> Iterator[str]:
    yield (
        '<text x="12" y="22" font-size="15" font-weight="bold">Gain over truth, '
        "in % of what truth is paid, with 95 % interval</text>"
    )
    x = 12
    for verdict, colour in _COLOURS.items():
        yield f'<circle cx="{x + 5}" cy="38" r="4" fill="{colour}"/>'
        yield f'<text x="{x + 14}" y="42">{escape(verdict)}</text>'
        x += 110
    for percent in range(int(_LOW), int(_HIGH) + 1, 10):
        at = _x(percent)
        colour, label = ("#ddd", f"{percent:+d}") if percent else ("#555", "0")
        yield (
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{height - 12}" stroke="{colour}"/>'
        )
        yield f'<text x="{at:.1f}" y="{_TOP - 6}" text-anchor="middle">{label}</text>'


def _groups(tallies: Mapping[str, Mapping[str, Tally]]) -> Iterator[str]:
    y = _TOP + _ROW
    for scene, found in tallies.items():
        yield f'<text x="12" y="{y + 4}" font-weight="bold">{escape(scene)}</text>'
        for name, tally in found.items():
            y += _ROW
            yield f'<text x="24" y="{y + 4}">{escape(name)}</text>'
            yield from _mark(tally, y)
        y += 2 * _ROW


def _mark(tally: Tally, y: int) -> Iterator[str]:
    gain = tally.share(tally.gain, tally.truth_revenue) or 0.0
    half = tally.share(tally.half_width, tally.truth_revenue) or 0.0
    colour = _COLOURS[tally.verdict]
    low, high = _x(gain - half), _x(gain + half)
    yield (
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
        'stroke-width="3"/>'
    )
    if _LOW <= gain <= _HIGH:
        yield f'<circle cx="{_x(gain):.1f}" cy="{y}" r="4" fill="{colour}"/>'
        return
    tip, back = (_x(_LOW), 8) if gain < _LOW else (_x(_HIGH), -8)
    yield f'<path d="M{tip:.1f} {y} l{back} -5 v10 z" fill="{colour}"/>'
    anchor = "start" if back > 0 else "end"
    yield f'<text x="{tip + 2 * back:.1f}" y="{y + 4}" text-anchor="{anchor}">{gain:+.0f} %</text>'


def _x(percent: float) -> float:
    inside = max(_LOW, min(_HIGH, percent))
    return _LEFT + (inside - _LOW) / (_HIGH - _LOW) * _WIDTH
