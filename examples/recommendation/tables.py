"""What was found, as Markdown for the page."""

from __future__ import annotations

from typing import Any


def clicks(found: list[dict[str, Any]]) -> str:
    """Open Bandit: a row per question and estimator, in clicks per 1,000 impressions."""
    lines = [
        "| judged | by | estimate | at least (95 %) | above the log's own policy | effective | truth (95 %) |",
        "| :-- | :-- | --: | --: | --: | --: | --: |",
    ]
    for one in found:
        truth = one["truth"]
        known = "–" if truth is None else " … ".join(f"{1000 * truth[end]:.1f}" for end in ("low", "high"))
        for estimate in one["estimates"]:
            bounds, support = estimate["bounds"], estimate["support"]
            cells = [
                one["question"],
                estimate["method"],
                _per_thousand(estimate["value"]),
                _per_thousand(bounds["value_lower"]),
                f"{_per_thousand(bounds['difference_lower'])} … {_per_thousand(bounds['difference_upper'])}",
                "–" if support is None else f"{support['effective_episodes']:,.0f}",
                known,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shop(found: dict[str, Any]) -> str:
    """SARDINE: clicks per session, the trials, and the estimates before the launch."""
    lines = ["| policy | clicks per session | share of its five most shown items |", "| :-- | --: | --: |"]
    for name, worth in found["clicks per session"].items():
        count = sorted(found["exposure"][name], reverse=True)
        share = f"{sum(count[:5]) / sum(count):.0%}" if sum(count) else "–"
        lines.append(f"| {name} | {worth['mean']:.2f} ± {worth['within']:.2f} | {share} |")
    lines += ["", "| trial | gate | sessions | live, candidate | difference, at all times | end |"]
    lines += ["| :-- | :-- | --: | --: | --: | :-- |"]
    for one in found["trials"]:
        arms, interval = one["ab"]["arms"], one["ab"]["interval"]
        means = ", ".join("–" if arms[arm]["mean"] is None else f"{arms[arm]['mean']:.2f}" for arm in arms)
        between = "–" if interval is None else f"{interval[0]:+.2f} … {interval[1]:+.2f}"
        lines.append(
            f"| {one['name']} | {one['gate']['verdict']} | {one['sessions']} | {means} | {between} | {one['status']} |"
        )
    before = found["before launch"]
    truth = before["truth"]
    lines += ["", "| estimate of the pretrained policy | clicks per session | at least (95 %) | effective sessions |"]
    lines += ["| :-- | --: | --: | --: |"]
    for method, estimate in before["estimates"].items():
        numbers = (estimate["value"], estimate["lower"], estimate["effective"])
        lines.append(f"| {method} | {' | '.join('–' if n is None else f'{n:.2f}' for n in numbers)} |")
    lines.append(f"| truth | {truth['mean']:.2f} ± {truth['within']:.2f} | – | – |")
    return "\n".join(lines)


def _per_thousand(rate: float | None) -> str:
    return "–" if rate is None else f"{1000 * rate:.1f}"
