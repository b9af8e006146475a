"""The page's style sheet: system fonts, wide margins, light or dark as the reader's system, fit to print."""

from __future__ import annotations

from segue.report.theme import DARK, LIGHT, Theme

_RULES = """
* { box-sizing: border-box }
html { color-scheme: light dark; -webkit-text-size-adjust: 100% }
body { margin: 0 auto; padding: 4.5rem 2rem 6rem; max-width: 68rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { margin: 0; font-size: 2.2rem; line-height: 1.15; font-weight: 650; letter-spacing: -.022em }
h2 { margin: 4rem 0 1rem; font-size: 1.15rem; font-weight: 650; letter-spacing: -.01em }
h3 { margin: 0 0 .5rem; font-size: .95rem; font-weight: 600 }
.kicker { margin: 0 0 .6rem; font-size: .8rem; font-weight: 600; letter-spacing: .03em }
.kicker, .lede, .note, .spread, th, dt { color: var(--quiet) }
.lede { margin: .7rem 0 0; font-size: 1.1rem; max-width: 46rem }
.note { margin: .3rem 0; font-size: .85rem; max-width: 52rem }
figcaption.note, .wide + .note { margin-top: 1rem }
.banner { margin: 2rem 0 0; padding: 1rem 1.25rem; border-left: 4px solid var(--alert);
  background: var(--wash); border-radius: 0 6px 6px 0 }
p.banner { margin: 0 0 1.4rem; padding: .6rem 1.1rem; font-size: .92rem; max-width: 52rem }
.notes { margin: 1.2rem 0 0; padding: 0; list-style: none; columns: 2; column-gap: 3rem; font-size: .85rem;
  color: var(--quiet) }
.notes li { margin: 0 0 .45rem; break-inside: avoid }
.wide + .wide { margin-top: 1.4rem } .wide + h3 { margin-top: 2.6rem }
.banner p { margin: 0 } .banner ul { margin: .4rem 0 0; padding-left: 1.2rem; font-size: .9rem }
figure { margin: 2.5rem 0 0 } figure img { display: block; width: 100%; height: auto }
.wide { overflow-x: auto }
table { width: 100%; border-collapse: collapse; font-size: .92rem;
  font-variant-numeric: tabular-nums lining-nums }
th { padding: .4rem .9rem; font-size: .8rem; font-weight: 500; text-align: left; vertical-align: bottom;
  border-bottom: 1px solid var(--quiet) }
td { padding: .6rem .9rem; vertical-align: top; border-bottom: 1px solid var(--rule) }
th:first-child, td:first-child { padding-left: 0 } th:last-child, td:last-child { padding-right: 0 }
tbody th { min-width: 11rem; color: var(--ink); font-size: inherit; vertical-align: top;
  padding-top: .6rem; padding-bottom: .6rem; border-bottom: 1px solid var(--rule) }
.number { text-align: right; white-space: nowrap }
.spread { display: block; font-size: .78rem }
.seed { display: block; color: var(--quiet); font-size: .85rem; font-weight: 400 }
.seed, .error { margin-left: 1.7rem }
.error { display: block; max-width: 22rem; color: var(--alert); font-size: .8rem; font-weight: 400 }
.arm { display: inline-block; padding-left: 1.7rem; text-indent: -1.7rem }
.swatch { text-indent: 0; display: inline-block; width: 1.15rem; margin-right: .55rem; vertical-align: .22em;
  border-top: 3px solid var(--arm) }
.tag { margin-left: .4rem; font-size: .78rem; font-weight: 500; color: var(--alert) }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 2rem }
.cards ul { margin: 0; padding: 0; list-style: none; font-size: .9rem }
.cards li { padding: .2rem 0; border-bottom: 1px solid var(--rule) }
.seam { margin: 2.2rem 0 0 } .seam ul { margin: 1rem 0 .6rem; padding-left: 1.2rem; max-width: 52rem }
.seam li { margin: .25rem 0 }
.seam td, .seam tbody th { padding-top: .3rem; padding-bottom: .3rem }
summary { cursor: pointer; font-size: .85rem; color: var(--quiet) }
details ul { font-size: .85rem; color: var(--quiet) }
details .columns { margin-top: 1.2rem; color: var(--ink) }
.columns { columns: 17rem; column-gap: 3rem }
.columns section { break-inside: avoid; margin: 0 0 1.6rem }
dl { margin: 0; font-size: .88rem }
dl div { display: flex; justify-content: space-between; gap: 1rem; padding: .2rem 0;
  border-bottom: 1px solid var(--rule); break-inside: avoid }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
code { font: .86em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }
pre { margin: 1.2rem 0 0; padding: .9rem 1.1rem; white-space: pre-wrap; background: var(--wash);
  border-radius: 6px }
@media print {
  @page { margin: 16mm }
  body { padding: 0; max-width: none; font-size: 10pt }
  h2 { margin-top: 2rem; break-after: avoid } tr, figure, .cards > section { break-inside: avoid }
  .wide { overflow: visible }
  th, td { padding-left: .4rem; padding-right: .4rem }
}
@media (max-width: 40rem) { body { padding: 2rem 1.1rem 3rem } h1 { font-size: 1.7rem } }
"""


def style_sheet() -> str:
    """CSS whose colours are those of the picture; `.arm-i` is the place of an arm in the palette."""
    light = _colours(LIGHT, wash="#f5f6f8")
    dark = _colours(DARK, wash="#1f2329")
    return f"{light}@media screen and (prefers-color-scheme: dark) {{\n{dark}}}\n{_RULES}"


def _colours(theme: Theme, wash: str) -> str:
    names = {"paper": theme.paper, "ink": theme.ink, "quiet": theme.quiet, "rule": theme.rule, "alert": theme.alert}
    root = "; ".join(f"--{k}: {v}" for k, v in {**names, "wash": wash}.items())
    arms = "\n".join(f".arm-{i} {{ --arm: {colour} }}" for i, colour in enumerate(theme.arms))
    return f":root {{ {root} }}\n{arms}\n"
