"""The report's charts, as SVG that stands inside the page and takes its fonts and colours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "PALETTE",
    "arms_chart",
    "controller_chart",
    "correlation_chart",
    "durations_chart",
    "learning_curves_chart",
    "probability_chart",
    "reward_chart",
    "utilisation_chart",
]

PALETTE = ("#2f6db5", "#d9822b", "#3a9b6f", "#a65fb0", "#c2434a", "#7b8794", "#b8a13a", "#4aa3b8")
_INK, _FAINT = "#39424e", "#d7dce2"
_MOST_POINTS = 1500
"""Points of a scatter beyond this are thinned: the page stays small and the eye sees no difference."""

Series = Sequence[float]
Curve = Sequence[tuple[int, float]]
"""(step, value)"""


def _draw(height: float, plot: Callable[[Axes], None], *, width: float = 10.5) -> str:
    """Let `plot` draw on fresh axes; the SVG element."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    style: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "nas_cluster",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": _INK,
        "axes.edgecolor": _FAINT,
        "axes.labelcolor": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": _FAINT,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        plot(axes)
        out = StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' xmlns:xlink="[^"]*"| xmlns="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href").replace("font: ", "font-family: inherit; font: ")
    return re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg class="chart" role="img" viewBox="\1">', svg, count=1)


def reward_chart(rewards: Series, failed: Sequence[bool]) -> str:
    """Every child's reward, the moving average, and the best so far."""
    values, bad = np.asarray(rewards, float), np.asarray(failed, bool)
    number = np.arange(1, len(values) + 1)

    def plot(axes: Axes) -> None:
        keep = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST_POINTS)).astype(int))
        good, lost = keep[~bad[keep]], keep[bad[keep]]
        axes.plot(number[good], values[good], "o", ms=3.5, color=PALETTE[0], alpha=0.3, label="child", mew=0)
        if len(lost):
            axes.plot(number[lost], values[lost], "x", ms=4.5, color=PALETTE[4], alpha=0.8, label="failed")
        window = max(5, len(values) // 20)
        if len(values) > window:
            mean = np.convolve(values, np.ones(window) / window, "valid")
            thin = np.unique(np.linspace(0, len(mean) - 1, min(len(mean), 400)).astype(int))
            axes.plot(number[window - 1 :][thin], mean[thin], color=PALETTE[0], lw=2, label=f"mean of {window}")
        best = np.maximum.accumulate(np.where(bad, -np.inf, values))
        steps = np.flatnonzero(best > np.append(-np.inf, best[:-1]))
        steps = np.append(steps, len(best) - 1)
        axes.step(number[steps], best[steps], where="post", color=PALETTE[1], lw=1.6, label="best so far")
        axes.set_xlabel("child")
        axes.set_ylabel("reward")
        axes.legend(loc="lower right", ncols=4)

    return _draw(3.0, plot)


def arms_chart(arms: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """(number, reward) of each arm's children, and each arm's moving average over a tenth of its own."""

    def plot(axes: Axes) -> None:
        for (name, scored), colour in zip(arms.items(), (PALETTE[0], PALETTE[1]), strict=True):
            if not scored:
                continue
            number, reward = np.asarray(scored, float).T
            keep = np.unique(np.linspace(0, len(number) - 1, min(len(number), _MOST_POINTS // 2)).astype(int))
            axes.plot(number[keep] + 1, reward[keep], "o", ms=3, color=colour, alpha=0.2, mew=0)
            window = max(5, len(number) // 10)
            if len(number) >= window:
                mean = np.convolve(reward, np.ones(window) / window, "valid")
                thin = np.unique(np.linspace(0, len(mean) - 1, min(len(mean), 400)).astype(int))
                label = f"{name}, mean of {window}"
                axes.plot(number[window - 1 :][thin] + 1, mean[thin], color=colour, lw=2, label=label)
        axes.set_xlabel("child")
        axes.set_ylabel("reward")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right", ncols=2)

    return _draw(2.6, plot)


def correlation_chart(scores: Series, alone: Series, metric: str) -> str:
    """One point an architecture: what the search says of it, and what training it alone does."""

    def plot(axes: Axes) -> None:
        axes.plot(scores, alone, "o", ms=5, color=PALETTE[0], alpha=0.7, mew=0)
        axes.set_xlabel(f"{metric} as the search scores it")
        axes.set_ylabel(f"{metric} trained alone")

    return _draw(3.6, plot, width=5.2)


def controller_chart(updates: Series, series: dict[str, Series], *, over: str = "update") -> str:
    """One small panel per number the controller reports; `over` says what the places are."""
    import matplotlib as mpl

    mpl.use("svg")
    parts = []
    for index, (name, values) in enumerate(series.items()):

        def plot(axes: Axes, values: Series = values, name: str = name, colour: str = PALETTE[index % 8]) -> None:
            thin = np.unique(np.linspace(0, len(values) - 1, min(len(values), 400)).astype(int))
            axes.plot(np.asarray(updates)[thin], np.asarray(values)[thin], color=colour, lw=1.4)
            axes.set_title(name.replace("_", " "), loc="left", fontsize=9)
            axes.set_xlabel(over)

        parts.append(_draw(1.7, plot, width=3.5))
    return f'<div class="grid">{"".join(parts)}</div>'


_NAMED_OPTIONS = 7


def probability_chart(group: str, labels: Sequence[str], shares: np.ndarray[Any, Any], ends: Series) -> str:
    """How often each option was sampled (shares: windows x options), window by window. Of many options, those that the
    search ended with are named and the others are one."""
    if len(labels) > _NAMED_OPTIONS + 1:
        order = np.argsort(-shares[-max(1, len(shares) // 4) :].mean(0), kind="stable")
        named, rest = sorted(order[:_NAMED_OPTIONS]), order[_NAMED_OPTIONS:]
        shares = np.column_stack([shares[:, named], shares[:, rest].sum(1)])
        labels = [*(labels[i] for i in named), f"{len(rest)} others"]

    def plot(axes: Axes) -> None:
        axes.stackplot(ends, shares.T, labels=labels, colors=[PALETTE[i % 8] for i in range(len(labels))], alpha=0.85)
        axes.set_ylim(0, 1)
        axes.set_xlim(ends[0], ends[-1])
        axes.set_title(group.replace("_", " "), loc="left", fontsize=9)
        axes.set_xlabel("child")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, reverse=True)

    return _draw(1.9, plot, width=3.5)


_POINTS_OF_A_CURVE, _POINTS_OF_A_FAINT_ONE = 200, 40


def learning_curves_chart(best: Mapping[str, Curve], others: Sequence[Curve], metric: str) -> str:
    """(step, value) of the best by name, in colours, above those of others, which are faint."""

    def draw(axes: Axes, curve: Curve, points: int, **style: Any) -> None:
        keep = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), points)).astype(int))
        steps, values = np.asarray(curve, float)[keep].T
        axes.plot(steps, values, marker="o" if len(curve) == 1 else None, ms=3, **style)

    def plot(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for curve in others:
            draw(axes, curve, _POINTS_OF_A_FAINT_ONE, color=PALETTE[5], alpha=0.18, lw=0.8)
        for place, (name, curve) in reversed(list(enumerate(best.items()))):  # the best one lies on top
            dash = "-" if place < len(PALETTE) else "--"
            draw(axes, curve, _POINTS_OF_A_CURVE, color=PALETTE[place % len(PALETTE)], lw=1.6, ls=dash, label=name)
        axes.set_xlabel("step")
        axes.set_ylabel(metric.replace("_", " "))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if best:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, reverse=True)

    return _draw(3.2, plot)


def utilisation_chart(starts: Series, ends: Series, slots: int) -> str:
    """Busy slots over the run's time, in minutes; the line above is what there was."""
    first = min(starts)
    times = np.concatenate([np.asarray(starts), np.asarray(ends)]) - first
    change = np.concatenate([np.ones(len(starts)), -np.ones(len(ends))])
    order = np.lexsort((change, times))
    busy, at = np.cumsum(change[order]), times[order] / 60
    if len(at) > _MOST_POINTS:
        edges = np.linspace(0, at[-1], _MOST_POINTS // 3)
        place = np.searchsorted(at, edges, side="right") - 1
        at, busy = edges, busy[np.maximum(place, 0)]

    def plot(axes: Axes) -> None:
        axes.fill_between(at, busy, step="post", color=PALETTE[2], alpha=0.5, lw=0)
        axes.axhline(slots, color=_INK, lw=1, ls=":")
        axes.set_ylim(0, slots * 1.1)
        axes.set_xlabel("minutes")
        axes.set_ylabel("busy slots")

    return _draw(1.8, plot)


def durations_chart(seconds: Series) -> str:
    """How long children took."""

    def plot(axes: Axes) -> None:
        axes.hist(np.asarray(seconds), bins=min(40, max(5, len(seconds) // 4)), color=PALETTE[0], alpha=0.75)
        axes.set_xlabel("seconds per child")
        axes.set_ylabel("children")

    return _draw(1.8, plot)
