# Copyright (c) 2026 chainops.validator contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 - the page is markup
"""The report as one page that opens offline: no script, no font, no image from anywhere. Needs Jinja2, which Ansible brings."""

from __future__ import annotations

import typing as t

from .._core import canonical
from .._core.errors import InputError
from . import collect, invariants
from .invariants import Invariant

try:
    import jinja2
except ImportError:  # pragma: no cover - only where Ansible itself isn't
    jinja2 = None  # type: ignore[assignment]

PAGE = r"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ words }}: release {{ release.id or '?' }} – rollout {{ rollout.id or '?' }}</title>
<style>
:root {
  --paper: #fcfcfa; --card: #ffffff; --ink: #1d2126; --soft: #5d6672; --line: #e1e3e0; --faint: #f1f2ef;
  --good: #1a7f4b; --warn: #9a6700; --bad: #c0272d; --good-bg: #e7f4ec; --warn-bg: #fbf1dc; --bad-bg: #fbe9e9;
  --drain: #6f9fd8; --out: #dfe8f3; --soak: #eadff5; --turn: #b9bfc7; --stop: #d9822b; --freeze: #2b95a8; --migrate: #7a5bbf;
  --switch: #505a66; --start: #3f9e5f; --probe: #8cc99f; --failed: #c0272d; --undo: #e07a7e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1b1f23; --ink: #e6e8ea; --soft: #9aa4af; --line: #2d3238; --faint: #22272c;
    --good: #5cc98c; --warn: #e0b050; --bad: #f0797c; --good-bg: #16301f; --warn-bg: #33290f; --bad-bg: #3a191b;
    --drain: #5b8bc7; --out: #24303e; --soak: #33284a; --turn: #5c646d; --stop: #d9822b; --freeze: #2b95a8; --migrate: #8f73d6;
    --switch: #98a2ad; --start: #3f9e5f; --probe: #7dbd91; --failed: #e05257; --undo: #c9666a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.12rem; margin: 2.6rem 0 .7rem; letter-spacing: -.005em; }
p { margin: .3rem 0; } .soft { color: var(--soft); } .small { font-size: .86rem; }
code, .mono { font: .86em ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.verdict { display: inline-block; padding: .12rem .7rem; border-radius: 999px; font-weight: 600; font-size: .92rem; margin-bottom: .8rem; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.verdict.good { background: var(--good-bg); }
.verdict.warn { background: var(--warn-bg); }
.verdict.bad { background: var(--bad-bg); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(138px, 1fr)); gap: .6rem; margin: 1.5rem 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .65rem .8rem .6rem; }
.tile .label { font-size: .78rem; color: var(--soft); }
.tile .value { font-size: 1.35rem; font-weight: 600; line-height: 1.25; }
.tile .value.unseen { font-size: .95rem; font-weight: 500; line-height: 1.7; }
.tile .note { font-size: .78rem; color: var(--soft); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: .8rem; }
th, td { padding: .46rem .75rem; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child > td { border-bottom: 0; } td.num, th.num { text-align: right; white-space: nowrap; } td.fit { white-space: nowrap; }
.badge { display: inline-block; font-size: .74rem; padding: .02rem .45rem; border-radius: 4px; background: var(--faint); color: var(--soft); }
.state { font-weight: 600; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; } svg text.axis { fill: var(--soft); font-size: 11px; }
svg line { stroke: var(--line); }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem .9rem .5rem; }
.k-drain { fill: var(--drain); } .k-out { fill: var(--out); } .k-soak { fill: var(--soak); } .k-turn { fill: var(--turn); }
.k-stop { fill: var(--stop); } .k-freeze { fill: var(--freeze); } .k-migrate, .k-restore { fill: var(--migrate); }
.k-switch { fill: var(--switch); }
.k-start { fill: var(--start); }
.k-probe { fill: var(--probe); }
.k-failed { fill: var(--failed); }
.k-undo { fill: var(--undo); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .8rem; color: var(--soft); margin: .3rem 0 .2rem; padding: 0; list-style: none; }
.legend svg { display: inline-block; width: 11px; height: 11px; margin-right: .35rem; vertical-align: -1px; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 0; font-size: .92rem; align-items: baseline; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; overflow-wrap: anywhere; }
ul.plain { margin: .4rem 0 0; padding-left: 1.1rem; } ul.plain li { margin: .15rem 0; }
footer { margin-top: 3rem; padding-top: .9rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .84rem; }
@media print { body { font-size: 11pt; } main { max-width: none; padding: 0; } .chart, .scroll, .tile { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<header>
  <span class="verdict {{ grade }}">{{ words }}</span>
  <h1>Release {{ release.id or '?' }} on {{ rollout.network or (rollout.hosts | default([], true) | length) ~ ' validators' }}</h1>
  <p class="soft">Rollout <span class="mono">{{ rollout.id or '?' }}</span> · proposal <span class="mono">{{ rollout.proposal_id or '?' }}</span>
    · {{ stamp(started) }} to {{ stamp(finished) }}{% if started is not none and finished is not none %} · {{ span(finished - started) }}{% endif %}
    {%- if rollout.operator %} · by {{ rollout.operator }}{% endif %}</p>
  {% if rollout.reason %}<p>{{ rollout.reason }}</p>{% endif %}
  <div class="tiles">
  {% for tile in tiles %}
    <div class="tile"><div class="label">{{ tile.label }}</div>
      <div class="value {{ {true: 'good', false: 'bad'}.get(tile.good, '') }} {{ 'unseen' if tile.value == 'not observed' }}">{{ tile.value }}</div>
      <div class="note">{{ tile.note }}</div></div>
  {% endfor %}
  </div>
</header>

<section>
<h2>The promise</h2>
<div class="scroll"><table>
<thead><tr><th></th><th>Invariant</th><th>Held?</th><th>Evidence</th></tr></thead>
<tbody>
{% for one in invariants %}
<tr><td class="fit soft">{{ one.id }}</td><td>{{ one.promise }}</td>
<td class="state {{ {'held': 'good', 'broken': 'bad'}.get(one.status, 'warn') }}">
  {{ {'held': '✓ held', 'broken': '✗ broken'}.get(one.status, '? not observed') }}</td>
<td class="soft">{{ one.evidence }}</td></tr>
{% endfor %}
</tbody></table></div>
</section>

{% macro axis(ticks, top, height) %}
{% for tick in ticks %}
<line x1="{{ 130 + tick.at * 9.2 }}" x2="{{ 130 + tick.at * 9.2 }}" y1="{{ top }}" y2="{{ top + height }}"/>
<text class="axis" x="{{ 130 + tick.at * 9.2 }}" y="{{ top + height + 15 }}"
  text-anchor="{{ 'start' if tick.at < 1 else 'end' if tick.at > 97 else 'middle' }}">{{ tick.text }}</text>
{% endfor %}
{% endmacro %}
{% macro bars(bars, y, height) %}
{% for bar in bars %}
<rect class="k-{{ bar.kind }}" x="{{ (130 + bar.left * 9.2) | round(2) }}"
  y="{{ y + (0 if bar.kind in ('out', 'soak') else 4) }}"
  width="{{ ([bar.width * 9.2, 920 - bar.left * 9.2] | min) | round(2) }}" height="{{ height if bar.kind in ('out', 'soak') else height - 8 }}" rx="2">
<title>{{ bar.title }}</title></rect>
{% endfor %}
{% endmacro %}
{% macro legend(items, shown) %}
<ul class="legend">{% for kind, text in items if kind in shown %}<li><svg viewBox="0 0 11 11" aria-hidden="true">
<rect class="k-{{ kind }}" width="11" height="11" rx="2"/></svg>{{ text }}</li>{% endfor %}</ul>
{% endmacro %}

{% if overview.lanes %}
<section>
<h2>What happened when</h2>
<div class="chart">
<svg viewBox="0 0 1060 {{ overview.lanes | length * 30 + 30 }}" role="img" aria-label="What happened on each host, over the time of the rollout">
{{ axis(overview.ticks, 2, overview.lanes | length * 30) }}
{% for lane in overview.lanes %}
<text x="0" y="{{ loop.index0 * 30 + 21 }}">{{ lane.name | truncate(18, true, '…') }}</text>
{{ bars(lane.bars, loop.index0 * 30 + 5, 24) }}
{% endfor %}
</svg>
{{ legend([('drain', 'draining'), ('out', 'out of rotation'), ('stop', 'stopping'), ('freeze', 'freeze'),
  ('migrate', 'migration'),
  ('start', 'starting'), ('probe', 'probing'), ('turn', 'other steps'), ('soak', 'soak'),
  ('undo', 'undoing'), ('failed', 'failed')], overview_kinds) }}
</div>
</section>
{% endif %}

{% if critical.rows %}
<section>
<h2>While the node was down</h2>
<p class="soft small">Each turn by itself, from the moment its node was told to stop.</p>
<div class="chart">
<svg viewBox="0 0 1060 {{ critical.rows | length * 30 + 30 }}" role="img" aria-label="The steps of each turn while its node was down, in seconds">
{{ axis(critical.ticks, 2, critical.rows | length * 30) }}
{% for row in critical.rows %}
<text x="0" y="{{ loop.index0 * 30 + 21 }}">{{ row.name | truncate(18, true, '…') }}</text>
{{ bars(row.bars, loop.index0 * 30 + 5, 24) }}
{% endfor %}
</svg>
{{ legend([('stop', 'stop'), ('freeze', 'freeze'), ('migrate', 'migration or restore'), ('switch', 'switch'),
  ('start', 'start'), ('probe', 'probe'), ('undo', 'undoing'), ('failed', 'failed')], critical_kinds) }}
</div>
</section>
{% endif %}

{% if hosts %}
<section>
<h2>Hosts</h2>
<div class="scroll"><table>
<thead><tr><th>Host</th>
<th>Release</th>
<th>Outcome</th>
<th class="num">Drain</th>
<th class="num">Stop window</th>
<th class="num">Freeze</th>
<th class="num">Missed blocks</th>
<th>Rollback point</th>
<th>Manifest</th></tr></thead>
<tbody>
{% for host in hosts %}
<tr><td class="fit">{{ host.name }}{% if host.canary %} <span class="badge">canary</span>{% endif %}</td>
<td class="fit">{{ host.before }}{% if host.after != host.before %} → {{ host.after }}{% endif %}</td>
<td class="fit {{ {'committed': 'good', 'put back': 'warn', 'failed': 'bad'}.get(host.outcome, '') }}">{{ host.outcome }}</td>
<td class="num">{{ span(host.drain) }}</td>
<td class="num">{{ span(host.stop_window) }}{% if host.predicted %}<br><span class="soft small">{{ host.predicted }}</span>{% endif %}</td>
<td class="num">{{ span(host.freeze) }}</td>
<td class="num">{{ '–' if host.missed is none else host.missed }}</td>
<td>{% if host.snapshot %}<span class="mono">{{ host.snapshot }}</span>
  {{ 'verified' if host.snapshot_verified else 'does not verify' if host.snapshot_verified is false else 'not verified' }}
  {% else %}–{% endif %}</td>
<td class="fit">{{ {true: 'verified', false: 'does not verify'}.get(host.manifest, '–') }}</td></tr>
{% if host.reason %}<tr><td></td><td colspan="8" class="soft">{{ host.reason }}</td></tr>{% endif %}
{% endfor %}
</tbody></table></div>
</section>
{% endif %}

<section>
<h2>The gate</h2>
{% if proof %}
<dl class="facts">
<dt>Proposal</dt><dd class="mono">{{ rollout.proposal_id or '–' }}</dd>
{% if proof.break_glass %}<dt>BREAK-GLASS</dt>
<dd class="bad"><strong>Not approved on chain.</strong> Opened by {{ proof.break_glass.approvers | default([]) | join(', ') }} until height
{{ proof.break_glass.expires_height }}: {{ proof.break_glass.reason }}. It stood in for:
{{ proof.break_glass.instead_of | default([]) | join('; ') }}.</dd>{% endif %}
{% if proof.approvers %}<dt>People</dt><dd>{{ proof.approvers | join(', ') }} approved beside the chain</dd>{% endif %}
<dt>Gate</dt>
<dd>{{ {true: 'open', false: 'closed'}.get(proof.open, 'not told') }}{% if proof.height is defined %} at height {{ proof.height }}{% endif %}
{%- if proof.readers %}, {{ proof.readers if proof.readers is number else proof.readers | length }} readers agree{% endif %}</dd>
{% if proof.tally %}<dt>Tally</dt>
<dd>{% for key, value in proof.tally | dictsort %}{{ key | replace('_', ' ') }}:
{{ value | join('; ') if value is sequence and value is not string else value }}{{ '<br>' | safe if not loop.last }}{% endfor %}</dd>{% endif %}
<dt>Proof</dt><dd class="mono">{{ proof.sha256 or '–' }}</dd>
<dt>Release digest</dt><dd class="mono">{{ release.sha256 or '–' }}</dd>
</dl>
{% if proof.reasons %}<ul class="plain">{% for reason in proof.reasons %}<li>{{ reason }}</li>{% endfor %}</ul>{% endif %}
{% else %}<p class="soft">Not observed.</p>{% endif %}
</section>

<section>
<h2>The canary, and every later wave</h2>
{% if canary %}
{% for run in canary %}
<p><strong class="{{ {'pass': 'good', 'fail': 'bad'}.get(run.verdict, 'warn') }}">{{ run.verdict }}</strong>
{% if run.wave is defined %}after wave {{ run.wave }}{% endif %}{% if run.seconds is defined %}, watched for {{ span(run.seconds) }}{% endif %}</p>
{% if run.checks %}<div class="scroll"><table>
<thead><tr><th>Check</th><th>Verdict</th><th class="num">Canary</th><th class="num">Others</th><th>Why</th></tr></thead><tbody>
{% for check in run.checks %}
<tr><td>{{ check.name }}</td>
<td class="fit {{ {'pass': 'good', 'fail': 'bad'}.get(check.verdict, 'warn') }}">{{ check.verdict | replace('_', ' ') }}</td>
<td class="num">{{ number(check.canary) }}</td>
<td class="num">{{ number(check.baseline) }}</td>
<td class="soft">{{ check.reason }}</td></tr>
{% endfor %}
</tbody></table></div>{% endif %}
{% endfor %}
{% else %}<p class="soft">Not observed.</p>{% endif %}
</section>

<section>
<h2>Silenced alerts</h2>
{% if rollout.silences %}<div class="scroll"><table>
<thead><tr><th>Host</th><th>State</th><th>What</th><th>From</th><th>Until, at the latest</th><th>For</th></tr></thead><tbody>
{% for one in rollout.silences %}
<tr><td class="fit">{{ one.host }}</td><td class="fit {{ 'good' if one.state == 'removed' else 'warn' }}">{{ one.state }}</td>
<td class="mono">{{ one.matchers | join(', ') }}</td><td class="fit">{{ one.starts_at }}</td><td class="fit">{{ one.ends_at }}</td>
<td>{{ one.comment }}</td></tr>
{% endfor %}
</tbody></table></div>
{% else %}<p class="soft">No silence was made, or Alertmanager was left out.</p>{% endif %}
</section>

<section>
<h2>Clients and the contract</h2>
{% if rollout.load %}
<dl class="facts">
{% for key, value in rollout.load | dictsort if value is not mapping and value is not sequence or value is string %}<dt>{{ key | replace('_', ' ') }}</dt>
<dd>{{ value }}</dd>{% endfor %}</dl>
{% for kind in ['failures', 'slow_requests', 'double_spend_list'] if rollout.load[kind] %}
<h3>{{ kind | replace('_', ' ') }}</h3>
<ul>{% for one in rollout.load[kind] %}<li>{% for key, value in one | dictsort %}{{ key }} {{ value }}{{ ', ' if not loop.last }}{% endfor %}</li>
{% endfor %}</ul>
{% endfor %}
{% else %}<p class="soft">No client load was watched.</p>{% endif %}
{% if contract %}
<p><strong class="{{ 'good' if contract.ok else 'bad' }}">{{ 'contract kept' if contract.ok else 'contract broken' }}</strong>:
{{ contract.exercised }} of {{ contract.operations }} read operations exercised
{%- if contract.requests is defined %} in {{ contract.requests }} requests{% endif %}.</p>
{% if contract.reasons %}<ul class="plain">{% for reason in contract.reasons %}<li>{{ reason }}</li>{% endfor %}</ul>{% endif %}
{% if contract.unimportant %}<details class="small"><summary>
{{- contract.unimportant | length }} difference{{ '' if contract.unimportant | length == 1 else 's' }} that old clients don't notice</summary>
<ul class="plain">{% for words in contract.unimportant %}<li>{{ words }}</li>{% endfor %}</ul></details>{% endif %}
{% else %}<p class="soft">The API's contract was not exercised.</p>{% endif %}
</section>

{% if rollout.drains %}
<section>
<h2>Drains</h2>
<div class="scroll"><table>
<thead><tr><th>Server</th>
<th>Gateway</th>
<th class="num">Empty after</th>
<th class="num">Looks</th>
<th class="num">Reloads</th>
<th>Back in rotation</th></tr></thead><tbody>
{% for drain in rollout.drains %}
<tr><td>{{ drain.server }}</td>
<td>{{ drain.gateway }}</td>
<td class="num">{{ span(drain.seconds) }}</td>
<td class="num">{{ drain.samples or '–' }}</td>
<td class="num">{{ drain.reloads if drain.reloads is defined else '–' }}</td>
<td class="{{ {true: 'good', false: 'bad'}.get(drain.restored, 'warn') }}">
  {{ {true: 'yes', false: 'no, still drained'}.get(drain.restored, 'not observed') }}</td></tr>
{% endfor %}
</tbody></table></div>
{% for host, words in unconfirmed %}<p class="warn">{{ host }}: {{ words }}.</p>
{% endfor %}
</section>
{% endif %}

{% if rollout.events %}
<section>
<h2>Log</h2>
<div class="scroll"><table><tbody>
{% for event in rollout.events %}
<tr><td class="fit soft mono">{{ clock(event.at) }}</td>
<td class="fit">{{ event.host or '' }}</td>
<td>{{ event.what }}</td>
<td class="{{ {'ok': 'good', 'failed': 'bad'}.get(event.result, 'soft') }}">{{ event.result or '' }}</td></tr>
{% endfor %}
</tbody></table></div>
</section>
{% endif %}

<footer>
<p>Every number here is read from <code>report.json</code> beside this page, SHA-256 of its canonical form <code>{{ digest }}</code>.
&ldquo;Not observed&rdquo; means that nobody looked, and is never counted as held.</p>
</footer>
</main>
</body>
</html>
"""


def _number(value: t.Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(value: t.Any) -> str:
    moment = collect.seconds_of(value)
    return "" if moment is None else collect.stamp(moment)[11:19]


def render(rollout: t.Mapping[str, t.Any], judged: t.Sequence[Invariant]) -> bytes:
    """The page, UTF-8. ``rollout`` must be complete and free of secrets. Raises InputError where Jinja2 isn't."""
    if jinja2 is None:
        raise InputError("the report page needs the Python library Jinja2: run rollout_report with Ansible's own interpreter")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined)
    words, grade = collect.outcome(rollout, judged)
    contract = rollout.get("contract") or None
    overview, critical = collect.lanes(rollout), collect.windows(rollout)
    text = environment.from_string(PAGE).render(
        rollout=rollout,
        release=rollout.get("release") or {},
        proof=rollout.get("proof") or None,
        contract=contract.get("verdict", contract) if isinstance(contract, dict) else None,
        canary=rollout.get("canary") or [],
        words=words,
        grade=grade,
        tiles=collect.headline(rollout, judged),
        invariants=[one.as_dict() for one in judged],
        overview=overview,
        critical=critical,
        overview_kinds=collect.kinds(one for lane in overview["lanes"] for one in lane["bars"]),
        critical_kinds=collect.kinds(one for row in critical["rows"] for one in row["bars"]),
        hosts=collect.host_rows(rollout),
        unconfirmed=collect.unconfirmed(rollout),
        started=collect.seconds_of(rollout.get("started")),
        finished=collect.seconds_of(rollout.get("finished")),
        digest=canonical.digest(document(rollout, judged)),
        span=lambda value: collect.span(None if value is None else float(value)),
        stamp=collect.stamp,
        number=_number,
        clock=_clock,
    )
    return text.encode("utf-8")


def document(rollout: t.Mapping[str, t.Any], judged: t.Sequence[Invariant]) -> dict[str, t.Any]:
    """What ``report.json`` holds."""
    return {
        "format": "chainops.report/1",
        "rollout": rollout,
        "invariants": {one.id: one.as_dict() for one in judged},
        "held": all(one.status == invariants.HELD for one in judged),
        "broken": [one.id for one in judged if one.status == invariants.BROKEN],
        "not_observed": [one.id for one in judged if one.status == invariants.NOT_OBSERVED],
    }
