"""The style of a decision's page: light and dark, for desktop, phone and paper."""

STYLE = """
:root { color-scheme: light dark; --bg: #fff; --ink: #16191d; --muted: #57606a; --rule: #d5dae0;
 --soft: #f4f6f8; --line: #0063b1; --good: #11703c; --bad: #b3261e; --doubt: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --bg: #0f1317; --ink: #e7eaee; --muted: #9aa5b1;
 --rule: #323a43; --soft: #171c22; --line: #6cb2f3; --good: #5fcf8e; --bad: #ff8a80;
 --doubt: #f0b04b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); text-size-adjust: 100%;
 font: 16px/1.5 -apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", Arial,
 "Liberation Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1120px; margin: 0 auto; padding: 0 32px 96px; }
header { padding-top: 48px; }
.eyebrow, .how, .protocol { color: var(--muted); font-size: 14.5px; }
.eyebrow { margin: 0 0 12px; }
.stamp { display: inline-block; margin: 0 0 12px; padding: 2px 12px; border: 2px solid;
 border-radius: 4px; font-weight: 650; text-transform: uppercase; letter-spacing: .06em; }
.promoted { color: var(--good); } .refused { color: var(--bad); }
h1 { font-size: clamp(27px, 3.2vw, 38px); line-height: 1.16; letter-spacing: -.018em;
 font-weight: 650; margin: 0 0 16px; text-wrap: balance; }
h2 { font-size: 23px; line-height: 1.25; font-weight: 620; margin: 56px 0 8px; }
.reasons { margin: 0 0 20px; padding-left: 1.2em; font-size: 18px; line-height: 1.45; }
.notes { margin: 0; padding-left: 1.2em; } .how, .protocol { max-width: 48em; margin: 0 0 16px; }
.reasons, .notes, dd { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; line-height: 1.35; }
.narrow { max-width: 560px; } .interval { width: 260px; }
th { font-weight: 400; text-align: left; }
thead th { color: var(--muted); font-size: 13px; padding-bottom: 8px; vertical-align: bottom; }
td, tbody th { padding: 7px 0; border-top: 1px solid var(--rule); white-space: nowrap; }
td + td, th + td, th + th { padding-left: 20px; }
.kind th { border: 0; padding: 18px 0 6px; font-weight: 620; }
.num { text-align: right; } .total > * { font-weight: 620; }
.crit::after { content: "◆"; font-size: .7em; margin-left: .35em; vertical-align: .1em; }
.held .verdict { color: var(--good); } .unsure .verdict { color: var(--doubt); }
.fallen .verdict { color: var(--bad); font-weight: 620; } .not-judged { color: var(--muted); }
svg { display: block; } svg line { stroke: var(--rule); stroke-width: 1; }
svg .allowed { stroke: var(--muted); stroke-dasharray: 3 3; }
svg .bar { stroke: var(--line); stroke-width: 3; } svg circle { fill: var(--line); }
.fallen .bar { stroke: var(--bad); } .fallen circle { fill: var(--bad); }
figure { margin: 28px 0 0; } figcaption { font-size: 14.5px; margin-bottom: 8px; }
.row { display: grid; grid-template-columns: repeat(5, 1fr); gap: 8px; }
.row span { display: block; font-size: 13.5px; color: var(--muted); margin-bottom: 2px; }
img { display: block; width: 100%; height: auto; background: var(--soft); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0; padding: 0;
 font-size: 13.5px; }
.legend i { display: inline-block; width: 12px; height: 12px; margin-right: 6px;
 border: 1px solid var(--rule); vertical-align: -1px; print-color-adjust: exact; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 6px 20px;
 font-size: 14.5px; margin: 0 0 16px; }
dt { color: var(--muted); } dd { margin: 0; }
pre { background: var(--soft); padding: 16px; overflow-x: auto; font-size: 13px; }
summary { cursor: pointer; } :focus-visible { outline: 2px solid var(--line); outline-offset: 3px; }
@media (max-width: 640px) {
 main { padding: 0 16px 64px; } header { padding-top: 24px; }
 .row { grid-template-columns: repeat(2, 1fr); }
 td + td, th + td, th + th { padding-left: 12px; }
 .checks, .checks tbody, .checks thead { display: block; }
 .checks tr { display: grid; grid-template-columns: minmax(0, 1fr) 72px 46px 62px 52px; }
 .checks tr > * { padding-left: 0; } .checks th { overflow-wrap: anywhere; white-space: normal; }
 .checks .kind th { grid-column: 1 / -1; } .checks thead .interval { display: none; }
 .checks td.interval { grid-column: 1 / -1; border: 0; padding: 0 0 6px; justify-self: end; }
 .checks td.interval:empty { display: none; }
 dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 10px; }
}
@media print { figure { break-inside: avoid; } }
"""
