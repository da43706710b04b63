// The layer explorer: draws the numbers in #explorer-data as densities, percentile bands and distances, by layer.
(() => {
  const root = document.getElementById("explorer");
  if (!root) return;
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const levels = data.levels, last = levels.length - 1;
  const outer = levels.findIndex((level) => level > 0), inner = levels.findIndex((level) => level >= 0.15), half = last / 2;
  const HEIGHTS = { density: 130, bands: 130, moved: 100 };
  const LEFT = 36, RIGHT = 10, TOP = 6, BOTTOM = 20, POINTS = 110, SECONDS = 0.7; // pixels; of a density; of each snapshot while it plays
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const find = (selector) => root.querySelector(selector);
  const slider = find("input[type=range]"), button = find(".play"), said = find("output"), box = find(".panels");
  const choose = (name) => find(`select[name=${name}]`);
  const selects = [...root.querySelectorAll("select[data-option]")];
  const ticks = [...root.querySelectorAll("input[name=scheme]")];

  // ---- numbers
  const decode = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer;
  const cache = new Map();
  const cached = (key, make) => { if (!cache.has(key)) cache.set(key, make()); return cache.get(key); };
  // A run's series: for each of its snapshots { q, zero }, or null where nothing was measured.
  const series = (run, key) => cached(run.series[key], () => {
    const count = run.steps.length, buffer = decode(run.series[key]);
    const scale = new Float32Array(buffer, 0, count), whole = new Int16Array(buffer, 4 * count);
    return run.steps.map((_, i) => {
      const row = [...whole.subarray(i * (last + 2), (i + 1) * (last + 2))].map((number) => number / 32767);
      return Number.isNaN(scale[i]) ? null : { zero: row[0], q: row.slice(1).map((share) => share * scale[i]) };
    });
  });
  const moved = (run, key) => key in run.moved ? cached(run.moved[key], () => {
    const all = new Float32Array(decode(run.moved[key]));
    return [0, 1, 2, 3].map((k) => [...all.subarray(k * run.steps.length, (k + 1) * run.steps.length)]);
  }) : null;
  const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
  // Of a distribution with straight lines between its quantiles.
  const integral = (f) => levels.slice(1).reduce((sum, level, k) => sum + (level - levels[k]) * f(k), 0) / (levels[last] - levels[0]);
  const deviation = ({ q }) => {
    const center = integral((k) => (q[k] + q[k + 1]) / 2);
    return Math.sqrt(integral((k) => { const a = q[k] - center, b = q[k + 1] - center; return (a * a + a * b + b * b) / 3; }));
  };
  const distance = (now, then) => integral((k) => (Math.abs(now.q[k] - then.q[k]) + Math.abs(now.q[k + 1] - then.q[k + 1])) / 2)
    / Math.hypot(deviation(now), deviation(then)) * Math.SQRT2;
  const between = (series, position) => {
    const a = series[Math.floor(position)], b = series[Math.ceil(position)], part = position % 1;
    if (!a || !b || !part) return a && (b || !part) ? a : null;
    return { zero: a.zero + part * (b.zero - a.zero), q: a.q.map((value, k) => value + part * (b.q[k] - value)) };
  };
  // The share of values below x.
  const below = ({ q }, x) => {
    if (x < q[0] || x >= q[last]) return x < q[0] ? 0 : 1;
    const k = q.findIndex((value) => value > x) - 1;
    return levels[k] + (levels[k + 1] - levels[k]) * (x - q[k]) / (q[k + 1] - q[k]);
  };
  // The density at each x without the values that are exactly 0: constant between two quantiles, falling towards the
  // least and the greatest value; then smoothed with a kernel (logistic; its width a share of half the middle 70%) that
  // does not reach below 0 if no value does.
  const density = ({ q, zero }, xs, smooth) => {
    const parts = levels.slice(1).flatMap((level, k) => {
      const [from, to, mass] = [q[k], q[k + 1], level - levels[k]], left = levels[k] === 0, right = level === 1;
      if (!(left || right) || from === to || (zero && from * to === 0)) return [{ from, to, mass }];
      return [0, 1, 2, 3, 4].map((i) => ({ from: from + i * (to - from) / 5, to: from + (i + 1) * (to - from) / 5, mass: mass * 2 ** (left ? i : 4 - i) / 31 }));
    });
    const tied = parts.filter(({ from, to }) => zero && from === 0 && to === 0), rest = parts.filter((part) => !tied.includes(part));
    const sum = (some) => some.reduce((total, { mass }) => total + mass, 0);
    const near = rest.filter(({ from, to }) => zero && (from === 0 || to === 0)); // where the other zeros are
    const kept = near.length ? Math.max(0, 1 - (zero - sum(tied)) / sum(near)) : 1;
    const width = Math.max(smooth * (q[last - inner] - q[inner]) / 2, (xs[1] - xs[0]) / 2), bounded = zero && q[0] >= 0;
    const share = (z) => 1 / (1 + Math.exp(-1.7 * z / width));
    const smoothed = (x) => rest.reduce((total, part) => {
      const to = Math.max(part.to, part.from + width / 10), mass = near.includes(part) ? part.mass * kept : part.mass;
      return total + mass * (share(x - part.from) - share(x - to)) / (to - part.from);
    }, 0);
    return xs.map((x) => (bounded ? (x < 0 ? 0 : smoothed(x) + smoothed(-x)) : smoothed(x)));
  };

  // ---- drawing
  const svg = (tag, attributes = {}, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const html = (tag, attributes = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };
  const short = (value) => {
    const size = Math.abs(value);
    if (size >= 1e6 || (size && size < 1e-3)) return value.toExponential(1);
    return size >= 1000 ? `${Number((value / 1000).toPrecision(3))}k` : String(Number(value.toPrecision(3))).replace("-", "−");
  };
  const whole = new Intl.NumberFormat("en");
  const line = (points) => points.map(([x, y], i) => `${i && points[i - 1][1] === points[i - 1][1] ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const known = (points) => points.filter(([, y]) => Number.isFinite(y));
  const scale = (low, high, from, to) => (value) => from + (value - low) / (high - low || 1) * (to - from);
  const nice = (low, high, count) => {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high; i += 1) found.push(i * step);
    return found;
  };

  // ---- state
  let setting, runs, layers, steps, panels = [], position = 0, playing = 0;
  const tensorOf = (run, layer, tensor) => tensor === "normalized" && !(`${layer}|normalized|` in run.series) ? "linear" : tensor;
  const unitsOf = (layer) => [...new Set(runs.flatMap((run) => Object.keys(run.series)).map((key) => key.split("|"))
    .filter(([of, , unit]) => of === layer && unit).map(([, , unit]) => unit))].sort((a, b) => a - b);
  const shownSchemes = () => new Set(ticks.filter((box) => box.checked).map((box) => box.value));
  const snapshot = () => Math.round(position);

  // The setting that fits the select that was changed and most others; at first the one in which schemes differ most.
  const select = (changed) => {
    const fit = ({ at }) => selects.reduce((sum, s) => sum + (at[s.dataset.option] === s.value) * (s === changed ? 100 : 1), 0);
    setting = changed ? data.settings.reduce((best, one) => (fit(one) > fit(best) ? one : best)) : data.settings[0];
    selects.forEach((s) => { s.value = setting.at[s.dataset.option]; });
    runs = setting.runs.map((index) => data.runs[index]);
    const before = steps ? steps[snapshot()] : 0;
    steps = runs.reduce((best, run) => (run.steps.length > best.length ? run.steps : best), []);
    layers = runs.map((run) => [...new Set(Object.keys(run.series).map((key) => key.split("|")[0]))])
      .sort((a, b) => b.length - a.length).flat().filter((layer, i, all) => all.indexOf(layer) === i);
    slider.max = steps.length - 1;
    position = steps.reduce((best, step, i) => (Math.abs(step - before) < Math.abs(steps[best] - before) ? i : best), 0);
    const different = new Set(runs.map((run) => run.seed)).size > 1;
    const which = different ? `seeds ${runs.map((run) => `${data.schemes[run.scheme].name} ${run.seed}`).join(", ")}` : `seed ${runs[0].seed}`;
    const ended = runs.filter((run) => run.diverged).map((run) => data.schemes[run.scheme].name);
    find(".line").textContent = `${setting.line.replace(/; n = .*/, "")}; ${which}${ended.length ? `; diverged: ${ended.join(", ")}` : ""}`;
  };

  // What a panel shows of each run: its scheme, numbers at each step of the setting, distances from the start.
  const traces = (layer, tensor, unit) => runs.flatMap((run) => {
    const kind = tensorOf(run, layer, tensor), key = `${layer}|${kind}|${unit}`;
    if (!(key in run.series)) return [];
    const own = series(run, key), at = steps.map((step) => run.steps.indexOf(step));
    const values = at.map((i) => (i < 0 ? null : own[i])), table = moved(run, `${layer}|${kind}`);
    const missing = steps.map(() => NaN), which = unit ? 0 : Number(choose("moved").value);
    const all = table ? table.map((row) => at.map((i) => (i < 0 ? NaN : row[i]))) : [missing, missing, missing, missing];
    const w1 = unit ? values.map((now) => (now && values[0] ? distance(now, values[0]) : NaN)) : all[which];
    return [{ ...data.schemes[run.scheme], values, moved: w1, noise: which === 0 && !unit ? all[3] : missing }];
  });

  // The ends of the axis of values: all that is seen over training, without a scheme that would flatten the others.
  const range = (found) => {
    const ends = found.map(({ values }) => {
      const known = values.filter(Boolean);
      return [Math.min(...known.map(({ q }) => q[outer])), Math.max(...known.map(({ q }) => q[last - outer]))];
    });
    const reach = ends.map(([low, high]) => Math.max(-low, high)), limit = Math.min(Math.max(...reach), 5 * median(reach) || Infinity);
    const low = Math.max(-limit, Math.min(...ends.map((end) => end[0]))), high = Math.min(limit, Math.max(...ends.map((end) => end[1])));
    const room = 0.12 * (high - low || Math.abs(high) || 1);
    return [low - room, high + room];
  };

  const axes = (panel, xs, ys) => {
    const { node, width, height, x, y } = panel;
    for (const [value, text] of ys) {
      node.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: "grid" }));
      node.append(svg("text", { x: LEFT - 4, y: y(value) + 3, "text-anchor": "end" }, text));
    }
    for (const [value, text] of xs) {
      node.append(svg("line", { x1: x(value), x2: x(value), y1: height - BOTTOM, y2: height - BOTTOM + 3, class: "axis" }));
      node.append(svg("text", { x: x(value), y: height - 6, "text-anchor": "middle" }, text));
    }
    node.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM, class: "axis" }));
  };

  const panelOf = (kind, layer, traced, width) => {
    const height = HEIGHTS[kind], id = `clip-${kind}-${panels.length}`;
    const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${kind}, ${layer}`, class: kind });
    node.append(svg("clipPath", { id }, svg("rect", { x: LEFT, y: 0, width: Math.max(0, width - LEFT - RIGHT), height: height - BOTTOM })));
    const inside = svg("g", { "clip-path": `url(#${id})` });
    return { kind, layer, traced, width, height, node, inside };
  };

  const build = () => {
    const tensor = choose("tensor").value, place = choose("unit") ? choose("unit").value : "", which = choose("moved");
    which.disabled = place !== "";
    const some = layers.map((layer) => [layer, place === "" ? "" : unitsOf(layer)[place]]).filter(([, unit]) => unit !== undefined)
      .map(([layer, unit]) => [layer, unit, traces(layer, tensor, unit)]).filter(([, , found]) => found.length);
    const width = Math.max(215, Math.min(440, Math.floor((box.clientWidth - 12 * (some.length - 1)) / Math.max(1, some.length))));
    const ranges = some.map(([, , found]) => range(found));
    const common = find("[name=common]").checked ? [Math.min(...ranges.map((r) => r[0])), Math.max(...ranges.map((r) => r[1]))] : null;
    const logarithmic = steps.length > 2 && steps[1] < 0.02 * steps[steps.length - 1];
    const place_of = (step) => (logarithmic ? Math.log1p(step) : step), end = place_of(steps[steps.length - 1]);
    const far = [0, ...[1, 10, 100, 1e3, 1e4, 1e5, 1e6].filter((step) => step <= steps[steps.length - 1])];
    const stepTicks = (logarithmic ? far.filter((step, i) => width > 300 || far.length < 6 || i % 2 === 0) : nice(0, steps[steps.length - 1], 3)).map((step) => [step, short(step)]);
    const highest = Math.max(...some.flatMap(([, , found]) => found.flatMap((t) => [...t.moved, ...t.noise].filter(Number.isFinite))), 0);
    const top = (found) => Math.max(...found.flatMap((t) => [...t.moved, ...t.noise].filter(Number.isFinite)), 0) * 1.08 || 1;
    panels = [];
    const grid = html("div", { className: "grid" });
    grid.style.gridTemplateColumns = `repeat(${some.length}, ${width}px)`;
    const heading = (text) => grid.append(html("p", { className: "row" }, html("span", {}, text)));
    for (const [layer, unit] of some) grid.append(html("h3", {}, unit === "" ? layer : `${layer}, unit ${unit}`));
    heading("Density at this step");
    some.forEach(([layer, , traced], i) => {
      const panel = panelOf("density", layer, traced, width), [low, high] = common || ranges[i];
      panel.xs = [...Array(POINTS + 1).keys()].map((k) => scale(0, POINTS, low, high)(k));
      if (low < 0 && high > 0) panel.xs = [...panel.xs, -1e-9, 0].sort((a, b) => a - b); // an edge there is upright
      panel.smooth = last < 10 ? 0.5 : place === "" ? 0.15 : 0.3; // of few percentiles, of a unit's few values
      const peaks = traced.map(({ values }) => Math.max(...values.filter(Boolean).flatMap((v) => density(v, panel.xs, panel.smooth)), 0));
      const peak = 1.05 * Math.min(Math.max(...peaks), 3 * median(peaks) || Infinity) || 1;
      Object.assign(panel, { x: scale(low, high, LEFT, width - RIGHT), y: scale(0, peak, panel.height - BOTTOM, TOP), back: scale(LEFT, width - RIGHT, low, high) });
      axes(panel, nice(low, high, 4).map((v) => [v, short(v)]), []);
      panel.node.append(svg("line", { x1: panel.x(0), x2: panel.x(0), y1: TOP, y2: panel.height - BOTTOM, class: "grid" }), panel.inside);
      if (traced.some(({ values }) => values.some((v) => v && v.zero > 0.02))) {
        for (const part of [0.5, 1]) panel.node.append(svg("text", { x: width - RIGHT, "text-anchor": "end", y: scale(0, 1, panel.height - BOTTOM, TOP)(part) + 7 }, `${100 * part}% at 0`));
      }
      panel.drawn = traced.map((trace, k) => {
        const bar = svg("rect", { x: panel.x(0) + 3.5 * (k - (traced.length - 1) / 2) - 1.5, width: 3, fill: trace.color, "data-scheme": trace.name });
        const path = svg("path", { stroke: trace.color, "stroke-dasharray": trace.dash, fill: trace.color, class: "hill", "data-scheme": trace.name });
        panel.inside.append(path, bar);
        return { trace, bar, path };
      });
      panels.push(panel);
      grid.append(panel.node);
    });
    heading("Percentiles over training");
    some.forEach(([layer, , traced], i) => {
      const panel = panelOf("bands", layer, traced, width), [low, high] = common || ranges[i];
      Object.assign(panel, { x: (step) => scale(0, end, LEFT, width - RIGHT)(place_of(step)), y: scale(low, high, panel.height - BOTTOM, TOP), back: scale(panel.height - BOTTOM, TOP, low, high) });
      axes(panel, stepTicks, nice(low, high, 4).map((v) => [v, short(v)]));
      panel.node.append(panel.inside);
      for (const { name, color, dash, values } of traced) {
        const there = steps.map((step, k) => [panel.x(step), values[k]]).filter(([, v]) => v);
        const edge = (level) => there.map(([x, { q }]) => [x, panel.y(q[level])]);
        for (const [k, kind] of [[outer, "outer band"], [inner, "band"]]) {
          panel.inside.append(svg("path", { d: line([...edge(k), ...edge(last - k).reverse()]), fill: color, class: kind, "data-scheme": name }));
        }
        for (const k of [inner, last - inner]) panel.inside.append(svg("path", { d: line(edge(k)), stroke: color, "stroke-dasharray": dash, class: "edge", "data-scheme": name }));
        panel.inside.append(svg("path", { d: line(there.map(([x, { q }]) => [x, panel.y(q[half])])), stroke: color, "stroke-dasharray": dash, class: "curve", "data-scheme": name }));
      }
      panels.push(panel);
      grid.append(panel.node);
    });
    if (highest > 0) heading(`Moved since the start, in s.d. of ${place === "" ? "a" : "the"} unit: ${which.options[which.disabled ? 0 : which.value].textContent}`);
    some.forEach(([layer, , traced]) => {
      if (!(highest > 0)) return;
      const panel = panelOf("moved", layer, traced, width), up = find("[name=common]").checked ? highest * 1.08 : top(traced);
      Object.assign(panel, { x: (step) => scale(0, end, LEFT, width - RIGHT)(place_of(step)), y: scale(0, up, panel.height - BOTTOM, TOP), back: scale(panel.height - BOTTOM, TOP, 0, up) });
      axes(panel, stepTicks, nice(0, up, 3).map((v) => [v, short(v)]));
      panel.node.append(panel.inside);
      panel.noise = svg("path", { class: "noise" });
      panel.inside.append(panel.noise);
      for (const { name, color, dash, moved: numbers } of traced) {
        panel.inside.append(svg("path", { d: line(known(steps.map((step, k) => [panel.x(step), panel.y(numbers[k])]))), stroke: color, "stroke-dasharray": dash, class: "curve", "data-scheme": name }));
      }
      panels.push(panel);
      grid.append(panel.node);
    });
    for (const panel of panels.filter(({ kind }) => kind !== "density")) {
      panel.cursor = svg("line", { y1: TOP, y2: panel.height - BOTTOM, class: "cursor" });
      panel.node.append(panel.cursor);
    }
    box.replaceChildren(grid, tip);
    for (const panel of panels) {
      panel.node.addEventListener("pointermove", (event) => hover(panel, event));
      panel.node.addEventListener("pointerleave", () => { tip.hidden = true; });
      if (panel.cursor) panel.node.addEventListener("click", (event) => { stop(); go(nearest(panel, event)); });
    }
    show();
    move();
  };

  // Which schemes are seen.
  const show = () => {
    const shown = shownSchemes();
    box.style.setProperty("--fill", 0.4 / (shown.size + 1)); // many areas on top of one another would hide all
    root.querySelectorAll("[data-scheme]").forEach((node) => { node.style.display = shown.has(node.dataset.scheme) ? "" : "none"; });
    for (const panel of panels.filter(({ noise }) => noise)) {
      const some = panel.traced.filter(({ name }) => shown.has(name));
      const floor = steps.map((step, k) => [panel.x(step), panel.y(mean(some.map(({ noise }) => noise[k]).filter(Number.isFinite)))]);
      panel.noise.setAttribute("d", line(known(floor)));
    }
  };

  // What changes with the position: densities, cursors, words, numbers.
  const move = () => {
    const i = snapshot();
    slider.value = i;
    const words = `step ${whole.format(steps[i])}, snapshot ${i + 1} of ${steps.length}`;
    said.textContent = words;
    slider.setAttribute("aria-valuetext", words);
    const shown = shownSchemes(), lower = Math.floor(position), step = steps[lower] + (position % 1) * ((steps[lower + 1] ?? steps[lower]) - steps[lower]);
    for (const panel of panels) {
      if (panel.cursor) {
        panel.cursor.setAttribute("x1", panel.x(step));
        panel.cursor.setAttribute("x2", panel.x(step));
        continue;
      }
      for (const { trace, bar, path } of panel.drawn.filter(({ trace }) => shown.has(trace.name))) {
        const now = between(trace.values, position), zero = now ? now.zero : 0, high = zero * (panel.height - BOTTOM - TOP);
        const ys = now ? density(now, panel.xs, panel.smooth) : [];
        const top = ys.map((y, k) => [panel.x(panel.xs[k]), panel.y(y)]), floor = panel.height; // closed outside of what is seen
        path.setAttribute("d", ys.length ? line([[0, floor], [0, top[0][1]], ...top, [panel.width, top[top.length - 1][1]], [panel.width, floor]]) : "");
        bar.setAttribute("y", panel.height - BOTTOM - high);
        bar.setAttribute("height", high);
      }
    }
    numbers(i);
  };

  const numbers = (i) => {
    const table = find(".numbers table"), shown = shownSchemes();
    const columns = panels.filter(({ kind }) => kind === "density");
    const head = html("tr", {}, ...["norm", ...columns.map(({ layer }) => layer)].map((text, k) => html("th", { scope: "col", className: k ? "" : "left" }, text)));
    const lines = data.schemes.filter(({ name }) => shown.has(name)).map(({ name }) => html("tr", {}, html("th", { scope: "row" }, name),
      ...columns.map(({ traced }) => {
        const trace = traced.find((one) => one.name === name), now = trace && trace.values[i];
        if (!now) return html("td", {}, "–");
        const text = `${short(now.q[half])} (${short(now.q[inner])} to ${short(now.q[last - inner])})`;
        return html("td", {}, text, Number.isFinite(trace.moved[i]) ? `, moved ${short(trace.moved[i])}` : "", now.zero ? `, ${Math.round(100 * now.zero)}% at 0` : "");
      })));
    const percent = (level) => `${Math.round(100 * levels[level])}%`;
    table.replaceChildren(html("caption", {}, `Median (${percent(inner)} to ${percent(last - inner)}) at step ${whole.format(steps[i])}`), html("thead", {}, head), html("tbody", {}, ...lines));
  };

  // ---- pointer
  const tip = html("div", { className: "tip", hidden: true });
  const inPanel = (panel, event) => {
    const frame = panel.node.getBoundingClientRect();
    return [(event.clientX - frame.left) * panel.width / frame.width, (event.clientY - frame.top) * panel.height / frame.height];
  };
  const nearest = (panel, event) => {
    const [x] = inPanel(panel, event);
    return steps.reduce((best, step, i) => (Math.abs(panel.x(step) - x) < Math.abs(panel.x(steps[best]) - x) ? i : best), 0);
  };
  const hover = (panel, event) => {
    const [x, y] = inPanel(panel, event), shown = shownSchemes(), some = panel.traced.filter(({ name }) => shown.has(name));
    let lines;
    if (panel.kind === "density") {
      const value = panel.back(x), i = snapshot();
      lines = [`step ${whole.format(steps[i])}, value ${short(value)}`, ...some.filter(({ values }) => values[i])
        .map(({ name, values }) => `${name}: ${Math.round(100 * below(values[i], value))}% below${values[i].zero ? `, ${Math.round(100 * values[i].zero)}% at 0` : ""}`)];
    } else {
      const i = nearest(panel, event), at = `step ${whole.format(steps[i])}`;
      if (panel.kind === "moved") {
        lines = [`${at}, moved (s.d.)`, ...some.filter(({ moved: m }) => Number.isFinite(m[i])).map(({ name, moved: m }) => `${name}: ${short(m[i])}`)];
        const floor = some.map(({ noise }) => noise[i]).filter(Number.isFinite);
        if (floor.length) lines.push(`other images: ${short(mean(floor))}`);
      } else {
        const all = some.filter(({ values }) => values[i]).flatMap(({ name, values }) => levels.map((level, k) => ({ name, level, value: values[i].q[k] })));
        if (!all.length) return;
        const best = all.reduce((a, b) => (Math.abs(panel.y(b.value) - y) < Math.abs(panel.y(a.value) - y) ? b : a));
        lines = [at, `${best.name}: quantile ${short(best.level)}`, `value ${short(best.value)}`];
      }
    }
    tip.replaceChildren(...lines.map((text) => html("div", {}, text)));
    tip.hidden = false;
    const frame = box.getBoundingClientRect(), left = event.clientX - frame.left + box.scrollLeft, room = box.scrollLeft + box.clientWidth;
    tip.style.left = `${left + 14 + tip.offsetWidth > room ? Math.max(box.scrollLeft, left - 14 - tip.offsetWidth) : left + 14}px`;
    tip.style.top = `${Math.min(event.clientY - frame.top + 10, box.clientHeight - tip.offsetHeight - 4)}px`;
  };

  // ---- time
  const go = (to) => { position = Math.max(0, Math.min(steps.length - 1, to)); move(); };
  const stop = () => {
    (still.matches ? clearTimeout : cancelAnimationFrame)(playing);
    playing = 0;
    button.setAttribute("aria-label", "Play");
    button.textContent = "▶";
    go(snapshot());
  };
  const play = () => {
    if (position >= steps.length - 1) position = 0;
    button.setAttribute("aria-label", "Pause");
    button.textContent = "❚❚";
    const from = position, start = performance.now();
    const frame = () => {
      const passed = (performance.now() - start) / 1000 / SECONDS;
      go(from + (still.matches ? Math.floor(passed) : passed)); // without motion: from one snapshot to the next
      if (position >= steps.length - 1) return stop();
      playing = still.matches ? setTimeout(frame, 1000 * SECONDS) : requestAnimationFrame(frame);
    };
    move();
    playing = still.matches ? setTimeout(frame, 1000 * SECONDS) : requestAnimationFrame(frame);
  };
  const toggle = () => (playing ? stop() : play());

  // ---- schemes, in step with the filter of the tables, where no tick means all
  const filter = document.querySelector("#filters"), set = filter && filter.querySelector("fieldset[data-key=scheme]");
  const boxes = set ? [...set.querySelectorAll("input")] : [];
  const fromFilter = () => {
    if (boxes.length) ticks.forEach((tick) => { tick.checked = boxes.every((b) => !b.checked) || boxes.some((b) => b.checked && b.value === tick.value); });
    show();
    move();
  };
  const toFilter = () => {
    if (ticks.every((tick) => !tick.checked)) ticks.forEach((tick) => { tick.checked = true; });
    const all = ticks.every((tick) => tick.checked);
    boxes.forEach((b) => { b.checked = !all && ticks.some((tick) => tick.checked && tick.value === b.value); });
    if (boxes.length) filter.dispatchEvent(new Event("change"));
    else fromFilter();
  };

  root.querySelectorAll(".live").forEach((part) => { part.hidden = false; });
  root.querySelectorAll(".still").forEach((part) => { part.hidden = true; });
  button.textContent = "▶";
  find("form").addEventListener("submit", (event) => event.preventDefault());
  slider.addEventListener("input", () => { const to = Number(slider.value); stop(); go(to); });
  button.addEventListener("click", toggle);
  slider.addEventListener("keydown", (event) => { if (event.key === " ") { event.preventDefault(); toggle(); } });
  box.addEventListener("keydown", (event) => { if (event.key === " ") { event.preventDefault(); toggle(); } });
  ticks.forEach((tick) => tick.addEventListener("change", toFilter));
  root.querySelectorAll("select, [name=common]").forEach((one) => one.addEventListener("change", () => {
    stop();
    if (one.dataset.option) select(one);
    build();
  }));
  if (filter) {
    filter.addEventListener("change", fromFilter);
    filter.addEventListener("reset", () => setTimeout(fromFilter));
  }
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; build(); } });
  select();
  build();
  if (boxes.some((b) => b.checked)) fromFilter();
})();
