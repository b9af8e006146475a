// Fills the page from /v1/board every few seconds. Text of users only ever becomes text: there is no innerHTML.
"use strict";

const EVERY = 3000; // milliseconds between looks
const PATIENCE = 10000; // milliseconds that an answer may take
const GROUP = 4; // buckets of one mean return, as in board.py
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const kept = window.sessionStorage; // the token is kept nowhere else
const ORDER = ["live", "candidate", "fallback", "application"];

let seen = null; // what was shown last
let range = kept.getItem("range") ?? "all";
let cursor = null; // bucket that is read out
let since = null; // when the service was last heard of
let timer = 0;

// Making and changing elements.

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== false));
  return node;
}
const el = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

const shown = new Map();
// Builds a part again only if what it shows has changed, so that nothing flickers and the focus stays.
function put(id, data, build) {
  const key = JSON.stringify(data) ?? "";
  if (shown.get(id) === key) return;
  shown.set(id, key);
  const focus = document.activeElement?.dataset?.key;
  $(id).replaceChildren(...[build()].flat().filter((child) => child !== null));
  if (focus) [...$(id).querySelectorAll("[data-key]")].find((one) => one.dataset.key === focus)?.focus();
}
function say(node, text, kind) {
  if (node.textContent !== text) node.textContent = text;
  node.className = kind;
}

// Numbers and times as text.

const whole = (value) => Math.round(value).toLocaleString("en");
const percent = (value) => `${+(100 * value).toPrecision(3)} %`;
function number(value) {
  if (value === null) return "–";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential(2).replace("-", "−");
  return (size >= 1000 ? whole(value) : String(+value.toPrecision(3))).replace("-", "−");
}
const between = ([low, high]) => `${number(low)} to ${number(high)}`;
const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));
function seconds(value) {
  if (value < 1) return `${+(1000 * value).toPrecision(2)} ms`;
  if (value < 120) return `${+value.toPrecision(3)} s`;
  if (value < 7200) return `${+(value / 60).toPrecision(3)} min`;
  return value < 172800 ? `${+(value / 3600).toPrecision(3)} h` : `${+(value / 86400).toPrecision(3)} days`;
}
const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");
function moment(at) {
  const date = new Date(at * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock(at) : `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clock(at)}`;
}
const evidence = (log) => number(Math.exp(Math.min(log, 700)));
function named(hash) {
  return seen.policies.find((one) => one.policy === hash)?.name ?? hash.slice(0, 12);
}

// What is shown.

function headline() {
  const { mode, live, candidate, explore } = seen.deployment;
  const who = (hash) => [`${named(hash)} `, el("code", {}, hash.slice(0, 12))];
  // Where the application acts no policy is live, and beside a candidate the first one does nothing.
  const parts = mode !== "apprentice" ? [["Live: ", live], [" · candidate: ", candidate]]
    : candidate === null ? [["On paper: ", live]] : [["Candidate: ", candidate]];
  return [
    el("h1", {}, el("span", { class: `mode ${mode}` }, mode), seen.acts),
    el(
      "p", { class: "lede" },
      ...parts.flatMap(([label, hash]) => (hash === null ? [] : [label, ...who(hash)])),
      ` · explore: ${/^[\d.]+$/.test(explore) ? `${percent(+explore)} at random` : explore}`,
    ),
    el("p", { class: "lede" }, `Since ${moment(seen.since)}, by ${seen.who}${seen.why ? `: ${seen.why}` : ""}`),
  ];
}

function alerts() {
  const said = [];
  if (seen.trial?.alarm) said.push(["Alarm.", seen.trial.alarm]);
  const { mode } = seen.deployment;
  if (seen.who === "promotion" && (mode === "frozen" || seen.why.startsWith("alarm"))) {
    const live = seen.why.startsWith("alarm: the live policy");
    const done = live ? "The live policy was rolled back." : "The candidate was withdrawn.";
    said.push([mode === "frozen" ? "The service froze itself." : done, seen.why]);
  }
  if (seen.problem) said.push(["The trial is not judged.", seen.problem]);
  if (seen.failure) said.push(["The service has a problem.", seen.failure]);
  if (seen.read < 1) said.push(["Reading the log.", `${Math.floor(100 * seen.read)} % of it is counted so far.`]);
  return said;
}

function total(what) {
  return Object.values(seen.arms).reduce((sum, arm) => sum + arm[what], 0);
}
function tiles() {
  const { arms, width, answered } = seen;
  const lists = Object.values(arms).map((arm) => arm.traffic);
  const length = Math.max(0, ...lists.map((list) => list.length));
  const last = Math.max(0, length - 2); // the last bucket is not over yet
  const rate = lists.reduce((sum, list) => sum + (list[last] ?? 0), 0) / width;
  const late = Object.values(arms).map((arm) => arm.late);
  const slowest = (which) => {
    const known = late.map((one) => one[which]).filter((one) => one !== null);
    return known.length ? `≤ ${seconds(Math.max(...known))}` : "–";
  };
  const [due, decided] = [total("due"), total("decisions")];
  const refusals = seen.refused.reduce((sum, one) => sum + one.count, 0);
  const window = seen.rules.window;
  return [
    ["Decisions", whole(decided), `${number(rate)} per second lately`],
    ["Latency, median", answered.count ? seconds(answered.median) : "–",
      answered.count ? `p99 ${seconds(answered.most)}, since the service began` : "no decision since the service began"],
    ["Reward lag, median", slowest("median"), `90 % of those that came: ${slowest("most")}`],
    window === null
      ? ["Rewards to come", decided ? percent(Math.max(0, 1 - total("outcomes") / decided)) : "–", "no reward window is declared"]
      : ["Rewards missing", due ? percent(total("missing") / due) : "–", `after the window of ${seconds(window)}`],
    ["Refused requests", whole(refusals), refusals ? `most: ${seen.refused[0].code}` : "none in this range"],
    ["Waiting to be written", whole(seen.waiting), "rows"],
  ];
}

function meter(label, value, needed, note, warn) {
  const share = Math.max(0, Math.min(1, value / needed));
  const fill = el("div", { class: warn ? "fill warn" : "fill" });
  fill.style.width = `${100 * share}%`;
  return el(
    "div", { class: "meter", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100,
      "aria-valuenow": Math.round(100 * share), "aria-valuetext": note },
    el("p", {}, el("span", {}, label), el("span", { class: "quiet" }, note)), el("div", { class: "track" }, fill),
  );
}

function difference(effect, interval) {
  const values = [0, effect, ...(interval ?? [])];
  const span = Math.max(...values.map(Math.abs)) * 1.15 || 1;
  const x = (value) => 200 + (190 * value) / span;
  return svg(
    "svg", { viewBox: "0 0 400 46", class: "difference candidate", role: "img",
      "aria-label": `Difference ${signed(effect)}${interval ? `, from ${number(interval[0])} to ${number(interval[1])}` : ""}` },
    svg("line", { class: "grid", x1: 5, x2: 395, y1: 14, y2: 14 }),
    svg("line", { class: "zero", x1: 200, x2: 200, y1: 3, y2: 25 }),
    interval && svg("line", { class: "line", x1: x(interval[0]), x2: x(interval[1]), y1: 14, y2: 14 }),
    svg("circle", { class: "dot", cx: x(effect), cy: 14, r: 5 }),
    svg("text", { x: 5, y: 41 }, "worse"), svg("text", { x: 200, y: 41, "text-anchor": "middle" }, "0"),
    svg("text", { x: 395, y: 41, "text-anchor": "end" }, "better"),
  );
}

function trial() {
  const { trial, off_policy: judged, deployment, rules } = seen;
  const parts = [];
  if (trial) {
    const weighed = (label, log, needed, warn) =>
      meter(label, log, needed, `e-value ${evidence(log)} of ${evidence(needed)}`, warn);
    const drawn = trial.stage.candidate + trial.stage.live;
    parts.push(
      el("p", { class: trial.alarm ? "verdict alarm" : "verdict" }, sentence(trial.verdict)),
      el(
        "div", { class: "columns" },
        el(
          "div", {},
          weighed("Candidate is better: the next stage", trial.log_better, trial.needed.better, false),
          weighed("Candidate is worse: alarm", trial.log_worse, trial.needed.worse, true),
          weighed("Sample-ratio mismatch: alarm", trial.log_mismatch, trial.needed.mismatch, true),
          trial.cost_limit !== null
            && weighed("Candidate costs more than the limit: alarm", trial.log_over, trial.needed.over, true),
          el("p", { class: "note" }, `Trial ${trial.trial} of this log. In this stage ${whole(trial.stage.candidate)} of `
            + `${whole(drawn)} units are the candidate's`
            + `${drawn ? ` (${percent(trial.stage.candidate / drawn)}; declared ${percent(trial.share)})` : ""}.`),
        ),
        el(
          "div", {},
          el("h3", {}, "Return per unit, candidate − live"),
          ...(trial.difference === null
            ? [el("p", { class: "quiet" }, "Not known before both arms have units.")]
            : [
              difference(trial.difference, trial.interval),
              el("p", { class: "note" }, signed(trial.difference), trial.interval
                ? `; ${percent(1 - rules.alpha)} interval ${between(trial.interval)}, valid whenever you look`
                : "; the interval needs more units"),
            ]),
          trial.cost && el("p", { class: "note" }, `Cost per unit, candidate − live: ${between(trial.cost)}`
            + (rules.cost === null ? "" : `; tolerated ${number(rules.cost)}`)),
          trial.cost_limit !== null && el("p", { class: "note" }, `Cost of the candidate per unit: ${trial.cost_upper === null
            ? "needs more units" : `at most ${number(trial.cost_upper)}`}; limit ${number(trial.cost_limit)}`),
        ),
      ),
      units(trial),
    );
  }
  if (judged) {
    const { effective_episodes: effective, needed, reason } = judged.evidence;
    parts.push(
      el("p", { class: "verdict" }, `Off-policy gate, ${moment(judged.at)}: ${judged.verdict}${reason ? ` – ${reason}` : ""}`),
      needed && meter("Effective sample size", effective, needed, `${number(effective)} of ${number(needed)} episodes`, false),
    );
  }
  if (!parts.length) {
    parts.push(el("p", { class: "note" }, deployment.candidate === null
      ? "No candidate is on trial. Stage a policy, or let segue learn stage them; then begin with shadow or canary below."
      : `${named(deployment.candidate)} has not been judged from the log yet. Judge it below.`));
  }
  if (rules.cost_limit !== null) {
    parts.push(el("p", { class: "note" }, `No policy may cost more than ${number(rules.cost_limit)} per unit on average.`));
  }
  if (rules.window === null) {
    const how = el("code", {}, "segue policies rules --window SECONDS");
    parts.push(el("p", { class: "note" }, "No reward window is declared, so no trial can begin: ", how));
  }
  return parts;
}
function units({ arms: both, live }) {
  const costs = Object.values(both).some((one) => one.cost !== null);
  const rows = ORDER.filter((arm) => arm in both).map((arm) => {
    const { units, waiting, mean, cost, missing, lag } = both[arm];
    const late = [missing === null ? "–" : percent(missing), lag === null ? "–" : seconds(lag)];
    const name = arm === "live" && live === "" ? "application" : arm; // in a trial beside an application that acts
    return [swatch(name), whole(units), whole(waiting), number(mean), ...(costs ? [number(cost)] : []), ...late];
  });
  const heads = ["Arm", "Units", "Window open", "Mean return", ...(costs ? ["Cost"] : []), "Rewards missing", "Mean lag"];
  return table(heads, rows, 1);
}
const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
const swatch = (arm) => el("span", {}, el("span", { class: `swatch ${arm}` }), arm);

function table(heads, rows, numbers = heads.length, kind = "") {
  const right = (place) => (place >= numbers ? { class: "number" } : {});
  return el(
    "div", { class: "wide" },
    el(
      "table", { class: kind },
      el("thead", {}, el("tr", {}, ...heads.map((head, place) => el("th", { scope: "col", ...right(place) }, head)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, place) => el("td", right(place), cell))))),
    ),
  );
}

const arms = () => ORDER.filter((arm) => arm in seen.arms);
function byArm() {
  if (!arms().length) return el("p", { class: "note" }, "No episode in this range yet.");
  const late = (value, one) => (one.outcomes ? (value === null ? "> 7 days" : `≤ ${seconds(value)}`) : "–");
  return table(
    ["Arm", "Episodes", "Decisions", "Outcomes", "Mean return per episode", "95 % interval", "of episodes",
      "Rewards missing", "Lag, median", "Lag, 90 %"],
    arms().map((arm) => {
      const one = seen.arms[arm];
      return [
        swatch(arm), whole(one.episodes), whole(one.decisions), whole(one.outcomes), number(one.mean),
        one.low === null ? "–" : `${number(one.low)} to ${number(one.high)}`, whole(one.counted),
        one.due && seen.rules.window !== null ? `${percent(one.missing / one.due)} of ${whole(one.due)}` : "–",
        late(one.late.median, one), late(one.late.most, one),
      ];
    }), 1,
  );
}

function policyTable() {
  return table(["Policy", "Status", "Trained to row", "Staged", "Last gate", ""], seen.policies.map((one) => {
    const steps = ["evaluate", "shadow", "canary", "promote"].filter((name) => name !== one.status);
    const buttons = one.status === "live" ? [] : steps;
    return [
      el("span", {}, one.name, " ", el("code", { class: "quiet" }, one.policy.slice(0, 12)),
        one.parent && el("span", { class: "note" }, ` from ${named(one.parent)}`)),
      el("span", { class: `tag ${one.status}` }, one.status),
      one.trained_to === null ? "–" : whole(one.trained_to), moment(one.at), one.gate === null ? "–" : `${one.gate}: ${one.verdict}`,
      el("div", { class: "actions" }, ...buttons.map((name) => button(name, one, "small"))),
    ];
  }), 6, "policies");
}

function events() {
  if (!seen.happened.length) return el("p", { class: "note" }, "Nothing in this range.");
  return table(["When", "Kind", "What", "By", "Why"], seen.happened.slice(-40).reverse().map((one) => [
    moment(one.at), el("span", { class: `kind ${one.kind}` }, one.kind), one.what, one.who || "–", one.why || "–",
  ]));
}

// Charts: one time axis for all of them.

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(+value.toPrecision(12));
  return found;
}
const STEPS = [10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 31536000];
function timeTicks(begin, end, count) {
  const step = STEPS.find((one) => one >= (end - begin) / count) ?? STEPS.at(-1);
  const zone = new Date(begin * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((begin - zone) / step) * step + zone; at <= end; at += step) found.push(at);
  const text = (at) => {
    const date = new Date(at * 1000);
    if (step >= 86400) return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    return date.toLocaleTimeString("en-GB", step < 60 ? {} : { hour: "2-digit", minute: "2-digit" });
  };
  return found.map((at) => [at, text(at)]);
}

function frame() {
  const lists = Object.values(seen.arms);
  const count = Math.max(1, ...lists.map((arm) => arm.traffic.length));
  const width = Math.max(280, $("charts").clientWidth);
  const left = 46;
  const end = seen.begins + count * seen.width;
  const x = (at) => left + ((at - seen.begins) / (end - seen.begins)) * (width - left - 8);
  return { count, width, left, end, x };
}

function axes(at, title, top, height, low, high, text) {
  const y = (value) => top + height - ((value - low) / (high - low || 1)) * height;
  const parts = [svg("text", { class: "title", x: 0, y: top - 12 }, title)];
  for (const value of ticks(low, high, height / 30)) {
    parts.push(svg("line", { class: "grid", x1: at.left, x2: at.width - 8, y1: y(value), y2: y(value) }));
    parts.push(svg("text", { x: at.left - 8, y: y(value) + 4, "text-anchor": "end" }, text(value)));
  }
  return [parts, y];
}

function charts() {
  const at = frame();
  const [top, tall, second, taller, strip] = [34, 120, 210, 170, 418];
  const parts = [];
  // Traffic, one arm on another.
  const per = seen.width >= 60 ? 60 : 1;
  const complete = Math.max(1, at.count - 1); // the last bucket is not over yet
  const sums = new Array(complete).fill(0);
  const layers = arms().map((arm) => {
    const base = sums.slice();
    seen.arms[arm].traffic.slice(0, complete).forEach((count, place) => (sums[place] += (count / seen.width) * per));
    return [arm, base, sums.slice()];
  });
  const [grid, y] = axes(at, `Decisions per ${per === 60 ? "minute" : "second"}`, top, tall, 0, (Math.max(...sums) || 1) * 1.05, number);
  parts.push(...grid);
  const left = (place) => at.x(seen.begins + place * seen.width).toFixed(1);
  for (const [arm, base, upto] of layers) {
    const step = (from, to, value) => `${left(from)},${y(value).toFixed(1)} ${left(to)},${y(value).toFixed(1)}`;
    const over = upto.map((value, place) => step(place, place + 1, value));
    const under = base.map((value, place) => step(place + 1, place, value)).reverse();
    parts.push(svg("polygon", { class: `area ${arm}`, points: [...over, ...under].join(" ") }));
  }
  // Mean returns with their intervals.
  const known = arms().flatMap((arm) => {
    const { means, lows, highs, counts } = seen.arms[arm];
    return means.flatMap((mean, place) => (mean === null ? [] : counts[place] >= 5 ? [mean, lows[place], highs[place]] : [mean]));
  });
  const [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  const window = seen.rules.window;
  if (window !== null && seen.at - window > seen.begins && at.x(seen.at) - at.x(seen.at - window) > 3) {
    const from = at.x(seen.at - window);
    parts.push(svg("rect", { class: "open", x: from, y: second, width: at.x(at.end) - from, height: taller },
      svg("title", {}, "The reward windows of these episodes are open")));
  }
  const [grid2, z] = axes(at, "Mean return per episode, 95 % intervals", second, taller, low - pad, high + pad, number);
  parts.push(...grid2, svg("clipPath", { id: "plot" }, svg("rect", { x: at.left, y: second, width: at.width - at.left, height: taller })));
  if (!known.length) {
    const why = window === null ? "No episode has ended yet" : "No reward window has closed yet";
    parts.push(svg("text", { x: at.left + 12, y: second + taller / 2 }, why));
  }
  const middle = (place) => at.x(Math.min(seen.begins + (place + 0.5) * GROUP * seen.width, at.end));
  const clipped = svg("g", { "clip-path": "url(#plot)" });
  for (const arm of arms()) {
    const { means, lows, highs } = seen.arms[arm];
    const runs = [];
    means.forEach((mean, place) => {
      if (mean === null) return;
      if (runs.at(-1)?.at(-1) !== place - 1) runs.push([]);
      runs.at(-1).push(place);
    });
    for (const run of runs) {
      const point = (place, value) => `${middle(place).toFixed(1)},${z(value).toFixed(1)}`;
      const bounded = run.filter((place) => lows[place] !== null);
      if (bounded.length > 1) {
        const [upper, lower] = [highs, lows].map((ends) => bounded.map((place) => point(place, ends[place])));
        const band = [...upper, ...lower.reverse()];
        clipped.append(svg("polygon", { class: `band ${arm}`, points: band.join(" ") }));
      }
      for (const place of run) {
        const r = run.length > 1 ? 2 : 3;
        clipped.append(svg("circle", { class: `dot ${arm}`, cx: middle(place), cy: z(means[place]), r }));
      }
      clipped.append(svg("polyline", { class: `line ${arm}`, points: run.map((place) => point(place, means[place])).join(" ") }));
    }
  }
  parts.push(clipped);
  // What happened, through all of it.
  parts.push(svg("text", { class: "title", x: 0, y: strip - 14 }, "▲ deployments  ◆ gates  ● alarms  ▪ others"));
  for (const one of seen.happened) {
    const x = at.x(Math.max(seen.begins, Math.min(one.at, at.end)));
    if (one.kind === "deployment") {
      parts.push(svg("path", { class: "change", d: `M${x},${top}v${tall}M${x},${second}v${taller}` }));
    }
    const y = one.kind === "deployment" ? strip : strip + 16;
    const shape = {
      deployment: () => svg("polygon", { points: `${x - 6},${y + 12} ${x + 6},${y + 12} ${x},${y}` }),
      gate: () => svg("polygon", { points: `${x},${y} ${x + 6},${y + 6} ${x},${y + 12} ${x - 6},${y + 6}` }),
      alarm: () => svg("circle", { cx: x, cy: y + 6, r: 6 }),
      note: () => svg("rect", { x: x - 3, y: y + 3, width: 6, height: 6 }),
    }[one.kind]();
    shape.setAttribute("class", `mark ${one.kind}`);
    shape.append(svg("title", {}, `${moment(one.at)} ${one.what}${one.why ? ` (${one.why})` : ""}`));
    parts.push(shape);
  }
  for (const [when, text] of timeTicks(seen.begins, at.end, at.width / 110)) {
    parts.push(svg("line", { class: "grid", x1: at.x(when), x2: at.x(when), y1: strip + 33, y2: strip + 38 }));
    const anchor = at.x(when) > at.width - 30 ? "end" : "middle";
    parts.push(svg("text", { x: at.x(when), y: strip + 52, "text-anchor": anchor }, text));
  }
  const cross = svg("line", { id: "cross", class: "cross", y1: top, y2: strip + 33, visibility: "hidden" });
  const said = arms().map((arm) => `${arm}: ${whole(seen.arms[arm].decisions)} decisions, mean return ${number(seen.arms[arm].mean)}`).join("; ");
  return [
    el("div", { class: "legend" }, ...arms().map(swatch)),
    svg(
      "svg", { viewBox: `0 0 ${at.width} ${strip + 57}`, height: strip + 57, role: "img",
        "aria-label": `Decisions and returns over time. ${said || "Nothing yet"}` }, ...parts, cross,
    ),
  ];
}

function readOut() {
  const cross = $("cross");
  if (!cross || !seen) return;
  cross.setAttribute("visibility", cursor === null ? "hidden" : "visible");
  if (cursor === null) {
    $("reading").textContent = "";
    return;
  }
  const at = frame();
  cursor = Math.max(0, Math.min(at.count - 1, cursor));
  const from = seen.begins + cursor * seen.width;
  const x = at.x(from + seen.width / 2);
  cross.setAttribute("x1", x);
  cross.setAttribute("x2", x);
  const place = Math.floor(cursor / GROUP);
  const said = arms().map((arm) => {
    const { traffic, means, lows, highs, counts } = seen.arms[arm];
    const mean = means[place] ?? null;
    const interval = mean === null || lows[place] === null ? "" : ` (${number(lows[place])} to ${number(highs[place])})`;
    const earned = mean === null ? "" : `, mean return ${number(mean)}${interval} of ${whole(counts[place])} episodes`;
    return `${arm} ${whole(traffic[cursor])} decisions${earned}`;
  });
  $("reading").textContent = `${moment(from)}, ${seconds(seen.width)}: ${said.join("; ") || "nothing"}`;
}

function show() {
  const { deployment, policies, refused } = seen;
  put("headline", [deployment, seen.since, policies], headline);
  document.title = `${deployment.mode} · Segue live`;
  const actions = [
    deployment.share && deployment.mode !== "frozen" ? "pause" : null,
    deployment.mode === "frozen" || policies.some((one) => one.status === "paused") ? "resume" : null,
    deployment.candidate !== null || seen.previous !== null ? "rollback" : null,
    ["frozen", "apprentice"].includes(deployment.mode) ? null : "freeze",
  ].filter(Boolean);
  put("actions", actions, () => actions.map((name) => button(name, null, name === "rollback" ? "alert" : "")));
  put("alerts", alerts(), () => alerts().map(([what, why]) => el("p", { class: "banner" }, el("strong", {}, what), ` ${why}`)));
  put("tiles", tiles(), () => tiles().map(([name, value, note]) =>
    el("dl", { class: "tile" }, el("dt", {}, name), el("dd", {}, value), el("dd", {}, note))));
  put("trial", [seen.trial, seen.off_policy, seen.rules, deployment, policies], trial);
  put("charts", [seen.arms, seen.begins, seen.width, seen.happened, seen.rules, $("charts").clientWidth], charts);
  readOut();
  put("arms", [seen.arms, seen.rules.window], byArm);
  put("policies", [policies, deployment], policyTable);
  put("refused", refused, () => refused.length
    ? table(["Code", "Last", "The last one was answered", "Requests"],
      refused.map((one) => [one.code, moment(one.at), one.message, whole(one.count)]), 3)
    : el("p", { class: "note" }, "None in this range."));
  put("events", seen.happened, events);
  for (const one of $("ranges").children) one.setAttribute("aria-pressed", one.dataset.range === range);
}

// Looking again.

class Problem extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

async function ask(path, content) {
  const headers = {};
  if (kept.getItem("token")) headers.authorization = `Bearer ${kept.getItem("token")}`;
  if (content) headers["content-type"] = "application/json";
  const [method, body] = content ? ["POST", JSON.stringify(content)] : ["GET", null];
  const answer = await fetch(path, { method, body, headers, signal: AbortSignal.timeout(PATIENCE) });
  const said = await answer.json();
  if (!answer.ok) throw new Problem(answer.status, said.code, said.message);
  return said;
}

async function look() {
  clearTimeout(timer);
  const asked = range;
  try {
    const found = await ask(`/v1/board?range=${asked}`);
    if (asked !== range) return look();
    seen = found;
    since = Date.now() / 1000;
    $("sign-in").hidden = true;
    $("main").hidden = false;
    document.body.classList.remove("stale");
    show();
    say($("state"), `Connected · ${clock(seen.at)}`, "good");
  } catch (error) {
    if (error instanceof Problem && error.code === "token") {
      $("sign-in-error").textContent = kept.getItem("token") ? WRONG : "";
      kept.removeItem("token");
      $("main").hidden = true;
      $("sign-in").hidden = false;
      say($("state"), "The token is needed", "bad");
      return;
    }
    // A TypeError is how fetch says that nobody answers; the others are a timeout and half an answer.
    if (![Problem, TypeError, DOMException, SyntaxError].some((kind) => error instanceof kind)) throw error;
    document.body.classList.add("stale");
    const why = error instanceof Problem ? `The service says: ${error.message}` : "The service does not answer";
    say($("state"), since === null ? `${why}. Trying again` : `${why}. What you see is from ${clock(since)}; trying again`, "bad");
  }
  if (!document.hidden) timer = setTimeout(look, seen !== null && seen.read < 1 ? 500 : EVERY);
}

// Doing something.

const WRONG = "This is not the service's token. It is what --token or SEGUE_TOKEN gave, or in the file DB.token beside the log.";
const displaced = (P, C) => (C && C !== P ? `, in place of ${C}` : "");
// What each does to whom: the policy P of a row, the candidate C, the live policy L, and A, which acts beside C.
const ACTIONS = {
  pause: {
    title: "Pause",
    does: ({ A, C }) => `New episodes go to ${A}. Episodes of ${C} that are running go on with it. `
      + "The trial can be resumed.",
  },
  resume: {
    title: "Resume",
    does: () => "Goes on as before the pause or the freeze. After a freeze, what is observed and earned from now on "
      + "is taken as normal.",
  },
  freeze: {
    title: "Freeze",
    does: ({ C, L }) => `${L} acts for everyone${C ? `, also in running episodes of ${C}` : ""}, until you resume. `
      + "Nothing is promoted meanwhile.",
  },
  rollback: {
    title: "Roll back",
    does: ({ A, C, L }) => C
      ? `Withdraws ${C}; ${A} acts for all units at once, also in running episodes. The trial ends; `
        + `another trial of ${C} needs more evidence.`
      : seen.previous === ""
        ? `The application acts for all units at once, also in running episodes. ${L} is retired.`
        : `Puts ${named(seen.previous)} back as the live policy of all new episodes, and retires ${L}. `
          + `Episodes that ${L} began as the live policy end with it.`,
  },
  evaluate: {
    title: "Judge",
    does: ({ P }) => `Estimates from the log what ${P} would have earned, and keeps the verdict. `
      + `It takes a minute or more. Nobody meets ${P} by this.`,
  },
  shadow: {
    title: "Shadow", force: true,
    does: ({ A, P, C, L, mode }) => `${P} decides on paper beside ${A}${displaced(P, C || (mode === "apprentice" ? L : ""))}. What it would have done is logged. `
      + (C === P && (mode === "canary" || seen.deployment.share)
        ? "It gets no new units; its running episodes go on with it. "
        : "Nobody meets it. ")
      + (mode === "apprentice"
        ? "No canary begins without you: judge it against the application, then let it act for a share of the units."
        : "Once it has passed the off-policy gate, a canary may begin without you."),
  },
  canary: {
    title: "Canary", force: true, share: true,
    does: ({ A, P, C }) => `${P} acts for a share of the units${displaced(P, C)}; ${A} acts for the others. `
      + `A unit keeps its policy while the trial goes on. An alarm withdraws ${P}.`,
  },
  promote: {
    title: "Promote", force: true,
    does: ({ A, P }) => `${P} acts for all new episodes, in place of ${A}. Running episodes end as they began.`,
  },
};

function button(name, policy, kind) {
  const label = policy ? `${ACTIONS[name].title} ${policy.name}` : null;
  const key = `${name} ${policy?.policy ?? ""}`;
  const on = { click: () => open(name, policy) };
  return el("button", { type: "button", class: kind, "aria-label": label, "data-key": key, on }, ACTIONS[name].title);
}

let chosen = null;
function open(name, policy) {
  const action = ACTIONS[name];
  const { live, candidate, mode, seq } = seen.deployment;
  const [C, L] = [candidate === null ? "" : named(candidate), named(live)];
  chosen = { path: policy ? `/v1/policies/${policy.policy}/${name}` : `/v1/${name}`, upon: seq, action };
  $("dialog-title").textContent = policy ? `${action.title}: ${policy.name}` : action.title;
  const A = mode === "apprentice" ? "the application" : L;
  $("dialog-does").textContent = action.does({ A, P: policy?.name, C, L, mode });
  $("do").textContent = action.title;
  $("dialog-error").textContent = "";
  $("share-field").hidden = !action.share;
  $("share").value = action.share ? 100 * (seen.deployment.share || seen.rules.shares[0]) : "";
  $("share").required = Boolean(action.share);
  $("force-field").hidden = !action.force;
  $("force").checked = false;
  $("why").value = "";
  $("who").value = kept.getItem("who") ?? "";
  askToken(!kept.getItem("token"));
  $("dialog").showModal();
  $("why").focus();
}
function askToken(needed) {
  $("token-field").hidden = !needed;
  $("token").required = needed;
  $("token").value = "";
}

async function submit(event) {
  event.preventDefault();
  if (!$("token-field").hidden) kept.setItem("token", $("token").value);
  kept.setItem("who", $("who").value);
  const { path, upon, action } = chosen;
  const content = { why: $("why").value, who: $("who").value || "administrator", upon };
  if (action.force) content.force = $("force").checked;
  if (action.share) content.share = +$("share").value / 100;
  $("do").disabled = true;
  try {
    await ask(path, content);
    $("dialog").close();
  } catch (error) {
    const refused = error instanceof Problem;
    if (refused && error.code === "token") {
      kept.removeItem("token");
      askToken(true);
      $("token").focus();
      $("dialog-error").textContent = WRONG;
    } else if (refused) {
      $("dialog-error").textContent = `Nothing was changed: ${error.message}`;
    } else {
      $("dialog-error").textContent = "The service did not answer. Look at the page before you try again: it may have been done.";
    }
  } finally {
    $("do").disabled = false;
  }
  look();
}

$("confirm").addEventListener("submit", submit);
$("cancel").addEventListener("click", () => $("dialog").close());
$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  kept.setItem("token", $("reading-token").value);
  $("reading-token").value = "";
  look();
});
$("ranges").addEventListener("click", (event) => {
  if (!event.target.dataset.range) return;
  range = event.target.dataset.range;
  kept.setItem("range", range);
  cursor = null;
  look();
});
$("charts").addEventListener("pointermove", (event) => {
  if (!seen) return;
  const at = frame();
  const place = (event.clientX - $("charts").getBoundingClientRect().left - at.left) / (at.width - at.left - 8);
  cursor = Math.floor(place * at.count);
  readOut();
});
$("charts").addEventListener("pointerleave", () => {
  cursor = null;
  readOut();
});
$("charts").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || !seen) return;
  event.preventDefault();
  cursor = (cursor ?? frame().count - 1) + step;
  readOut();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else look();
});
window.addEventListener("resize", () => seen && show());
look();
