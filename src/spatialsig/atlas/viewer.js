"use strict";
// H&E in tiles on one canvas, colours of patches on another above it; places are full-resolution px of the H&E
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const $ = (id) => document.getElementById(id);
  const view = $("view"), image = $("image"), values = $("values");
  const NONE = 65535, KEPT_TILES = 300, SCORES = ["measured", "predicted"];
  const state = { slide: 0, layer: "", signature: "", opacity: 70, grey: true, failed: false, x: 0, y: 0, z: 0.1 };
  const at = { x: 0, y: 0, inside: false };  // the pointer
  let asked = false;

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const once = new WeakMap();
  function decoded(entry) {  // values of a map, NaN where there are none
    if (!once.has(entry)) {
      const steps = new Uint16Array(bytes(entry.steps).buffer), width = (entry.high - entry.low) || 1;
      once.set(entry, Float32Array.from(steps, (s) => s === NONE ? NaN : entry.low + s / (NONE - 1) * width));
    }
    return once.get(entry);
  }
  function places(slide) {
    if (!once.has(slide.patches)) {
      const p = slide.patches, Kind = p.grid ? Uint32Array : Float32Array;
      const x = new Kind(bytes(p.x).buffer), y = new Kind(bytes(p.y).buffer);
      const found = { x, y };
      if (p.grid) {
        found.width = x.reduce((a, b) => Math.max(a, b), 0) + 1;
        found.height = y.reduce((a, b) => Math.max(a, b), 0) + 1;
        found.rows = new Int32Array(found.width * found.height).fill(-1);
        x.forEach((column, row) => { found.rows[y[row] * found.width + column] = row; });
      }
      once.set(slide.patches, found);
    }
    return once.get(slide.patches);
  }
  const slide = () => content.slides[state.slide];
  const isColumn = () => state.layer.startsWith("column:");

  // what is shown of each patch
  function mapOf(layer) {
    const s = slide();
    if (layer.startsWith("column:")) return s.columns[layer.slice(7)] ? decoded(s.columns[layer.slice(7)]) : null;
    if (layer === "difference") {
      const [m, p] = SCORES.map(mapOf);
      return m && p ? m.map((value, row) => value - p[row]) : null;
    }
    const entry = (s.scores[layer] || {})[state.signature];
    return entry ? decoded(entry) : null;
  }
  const failed = () => slide().columns.qc_pass ? decoded(slide().columns.qc_pass) : null;
  const anyFails = () => (failed() || []).some((pass) => pass === 0);
  function shownOf(layer) {  // without patches that fail quality control, whose scores mean nothing
    const map = mapOf(layer), pass = layer.startsWith("column:") || state.failed ? null : failed();
    return map && pass ? map.map((value, row) => pass[row] === 0 ? NaN : value) : map;
  }
  function scaleOf(layer) {
    if (layer.startsWith("column:")) return content.columns[layer.slice(7)] || [0, 1];
    const scales = content.scales[state.signature] || {};
    return (["difference", "interval", "std"].includes(layer) ? scales[layer] : scales.score) || [0, 1];
  }
  const lut = {};
  for (const [name, hex] of Object.entries(content.colours)) {
    lut[name] = Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
  }
  const lutOf = (layer) => layer === "difference" ? lut.difference : lut.score;
  const rasters = new Map();
  function raster(layer) {  // one px per patch
    const key = [state.slide, layer, isColumn() ? "" : state.signature, state.failed].join("\n");
    if (!rasters.has(key)) {
      const map = shownOf(layer), p = places(slide()), [low, high] = scaleOf(layer), colours = lutOf(layer);
      const canvas = document.createElement("canvas");
      canvas.width = p.width; canvas.height = p.height;
      const context = canvas.getContext("2d"), pixels = context.createImageData(p.width, p.height);
      if (map) map.forEach((value, row) => {
        if (Number.isNaN(value)) return;
        const k = 3 * Math.round(255 * Math.min(1, Math.max(0, (value - low) / ((high - low) || 1))));
        pixels.data.set([colours[k], colours[k + 1], colours[k + 2], 255], 4 * (p.y[row] * p.width + p.x[row]));
      });
      context.putImageData(pixels, 0, 0);
      if (rasters.size > 24) rasters.delete(rasters.keys().next().value);
      rasters.set(key, canvas);
    }
    return rasters.get(key);
  }

  // tiles
  const tiles = new Map();
  function tile(number, row, column) {
    const key = [state.slide, number, row, column].join(",");
    let found = tiles.get(key);
    if (!found) {
      found = new Image();
      found.onload = draw;
      found.src = "data:image/webp;base64," + slide().levels[number].rows[row][column];
      if (tiles.size > KEPT_TILES) tiles.delete(tiles.keys().next().value);
    } else tiles.delete(key);  // to the end: the oldest goes first
    tiles.set(key, found);
    return found.complete && found.naturalWidth ? found : null;
  }
  function drawTiles(context, width, height) {
    const levels = slide().levels, ratio = window.devicePixelRatio || 1;
    let finest = levels.findIndex((level) => level.scale * state.z * ratio > 1.0);
    finest = finest < 0 ? levels.length - 1 : Math.max(0, finest - 1);
    let waiting = 0;
    for (let number = levels.length - 1; number >= finest; number--) {
      const { scale, rows } = levels[number], edge = content.edge * scale;
      const [x0, y0, x1, y1] = [...toSlide(0, 0), ...toSlide(width, height)];
      for (let row = Math.max(0, Math.floor(y0 / edge)); row < Math.min(rows.length, y1 / edge); row++) {
        for (let column = Math.max(0, Math.floor(x0 / edge)); column < Math.min(rows[row].length, x1 / edge); column++) {
          const picture = tile(number, row, column);
          if (!picture) { waiting++; continue; }
          const [left, top] = toScreen(column * edge, row * edge).map(Math.round);
          const [right, bottom] = toScreen(column * edge + picture.naturalWidth * scale, row * edge + picture.naturalHeight * scale).map(Math.round);
          context.drawImage(picture, left, top, right - left, bottom - top);
        }
      }
    }
    return waiting;
  }
  function drawMap(context, layer, width, height) {
    const s = slide(), p = places(s), { side, x0, y0, grid } = s.patches;
    if (grid) {
      const [left, top] = toScreen(x0, y0), z = side * state.z;
      context.imageSmoothingEnabled = false;
      context.drawImage(raster(layer), left, top, p.width * z, p.height * z);
      return;
    }
    const map = shownOf(layer), [low, high] = scaleOf(layer), colours = lutOf(layer);
    if (map) map.forEach((value, row) => {
      const [left, top] = toScreen(p.x[row], p.y[row]), edge = side * state.z;
      if (Number.isNaN(value) || left > width || top > height || left + edge < 0 || top + edge < 0) return;
      const k = 3 * Math.round(255 * Math.min(1, Math.max(0, (value - low) / ((high - low) || 1))));
      context.fillStyle = `rgb(${colours[k]} ${colours[k + 1]} ${colours[k + 2]})`;
      context.fillRect(left, top, edge, edge);
    });
  }

  const size = () => [view.clientWidth, view.clientHeight];
  const toScreen = (x, y) => { const [w, h] = size(); return [(x - state.x) * state.z + w / 2, (y - state.y) * state.z + h / 2]; };
  const toSlide = (x, y) => { const [w, h] = size(); return [(x - w / 2) / state.z + state.x, (y - h / 2) / state.z + state.y]; };

  function draw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; drawNow(); });
  }
  function drawNow() {
    const [width, height] = size(), ratio = window.devicePixelRatio || 1;
    const contexts = [image, values].map((canvas) => {
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
      const context = canvas.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      return context;
    });
    image.classList.toggle("grey", state.grey);
    values.style.opacity = state.opacity / 100;
    const waiting = drawTiles(contexts[0], width, height), split = state.layer === "split";
    for (const id of ["left", "right", "middle"]) $(id).hidden = !split;
    if (split) {
      SCORES.forEach((layer, side) => {
        contexts[1].save();
        contexts[1].beginPath();
        contexts[1].rect(side * width / 2, 0, width / 2, height);
        contexts[1].clip();
        drawMap(contexts[1], layer, width, height);
        contexts[1].restore();
      });
    } else drawMap(contexts[1], state.layer, width, height);
    drawScale(width);
    drawReadout();
    document.body.dataset.drawn = waiting ? "" : [slide().name, state.layer, state.signature].join("|");
    keepAddress();
  }
  function drawScale(width) {
    const um = slide().um_per_px / state.z, wanted = Math.min(width / 4, 160) * um;
    const power = 10 ** Math.floor(Math.log10(wanted)), length = power * [5, 2, 1].find((n) => n * power <= wanted);
    $("scale").firstElementChild.textContent = length >= 1000 ? `${length / 1000} mm` : `${+length.toPrecision(1)} µm`;
    $("scale").lastElementChild.style.width = `${length / um}px`;
  }
  const number = (value) => Number.isNaN(value) || value === undefined ? "–" : Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3);
  function rowAt(x, y) {
    const s = slide(), p = places(s), { side, x0, y0, grid } = s.patches;
    if (grid) {
      const column = Math.floor((x - x0) / side), row = Math.floor((y - y0) / side);
      return column < 0 || row < 0 || column >= p.width || row >= p.height ? -1 : p.rows[row * p.width + column];
    }
    for (let row = p.x.length - 1; row >= 0; row--) {
      if (x >= p.x[row] && x < p.x[row] + side && y >= p.y[row] && y < p.y[row] + side) return row;
    }
    return -1;
  }
  function drawReadout() {
    const s = slide(), [x, y] = toSlide(at.x, at.y), row = at.inside ? rowAt(x, y) : -1;
    $("readout").replaceChildren();
    if (row < 0) { $("readout").append(line("muted", "Point at a patch to read its values.")); return; }
    $("readout").append(line("muted", `${(x * s.um_per_px).toFixed(0)}, ${(y * s.um_per_px).toFixed(0)} µm from the top left`));
    const table = document.createElement("table");
    const add = (name, value, on) => {
      const line = table.insertRow();
      line.className = on ? "on" : "";
      line.insertCell().textContent = name;
      line.insertCell().textContent = number(value);
    };
    for (const [layer, of] of Object.entries(s.scores)) {
      if (of[state.signature]) add(content.titles[layer], decoded(of[state.signature])[row], layer === state.layer);
    }
    for (const [name, entry] of Object.entries(s.columns)) add(name, decoded(entry)[row], state.layer === `column:${name}`);
    $("readout").append(line("", state.signature), table);
  }
  function line(kind, text) {
    const found = document.createElement("div");
    found.className = kind; found.textContent = text;
    return found;
  }

  // menus
  function options(select, entries, chosen) {
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, false, value === chosen)));
  }
  function layersOf(s) {
    const there = Object.keys(s.scores), both = SCORES.every((layer) => there.includes(layer));
    const names = [...there.filter((n) => SCORES.includes(n)), ...(both ? ["difference", "split"] : []), ...there.filter((n) => !SCORES.includes(n))];
    return [...names.map((n) => [n, content.titles[n]]), ...Object.keys(s.columns).map((n) => [`column:${n}`, n])];
  }
  function refresh() {
    const s = slide(), layers = layersOf(s), names = [...new Set(Object.values(s.scores).flatMap(Object.keys))];
    if (!layers.some(([name]) => name === state.layer)) state.layer = (layers.find(([n]) => n === "predicted") || layers[0])[0];
    if (!names.includes(state.signature)) state.signature = names[0];
    options($("slide"), content.slides.map((one, k) => [String(k), one.name]), String(state.slide));
    options($("layer"), layers, state.layer);
    options($("signature"), names.map((n) => [n, n]), state.signature);
    $("of").hidden = isColumn();
    $("opacity").value = state.opacity; $("grey").checked = state.grey;
    $("failed").checked = state.failed; $("of-failed").hidden = isColumn() || !anyFails();
    const title = document.createElement("b");
    title.textContent = s.name;
    const whose = s.patient === s.name ? "" : `patient ${s.patient}, `, n = (failed() || []).filter((pass) => pass === 0).length;
    const fail = n ? `; ${n.toLocaleString("en")} fail quality control and are left clear` : "";
    const facts = `${whose}${places(s).x.length.toLocaleString("en")} patches of ${+s.patch_um.toPrecision(4)} µm${fail}`;
    $("about").replaceChildren(title, line("muted", facts), ...s.notes.map((note) => line(s.cautions.includes(note) ? "warn" : "muted", note)));
    const [low, high] = scaleOf(state.layer), colours = lutOf(state.layer), context = $("bar").getContext("2d");
    for (let k = 0; k < 256; k++) {
      context.fillStyle = `rgb(${colours[3 * k]} ${colours[3 * k + 1]} ${colours[3 * k + 2]})`;
      context.fillRect(k, 0, 1, 1);
    }
    $("what").textContent = isColumn() ? state.layer.slice(7) : `${state.signature}, ${content.titles[state.layer]}`;
    $("kind").textContent = content.slides.length > 1 ? `2nd to 98th percentile of these ${content.slides.length} slides` : "2nd to 98th percentile of this slide";
    $("low").textContent = `≤ ${number(low)}`; $("high").textContent = `≥ ${number(high)}`;
    draw();
  }
  function fit() {
    const s = slide(), [w, h] = size();
    Object.assign(state, { x: s.width / 2, y: s.height / 2, z: 0.95 * Math.min(w / s.width, h / s.height) });
  }
  function zoom(factor, x, y) {
    const [w, h] = size(), before = toSlide(x ?? w / 2, y ?? h / 2), s = slide();
    const smallest = 0.3 * Math.min(w / s.width, h / s.height), largest = 8;
    state.z = Math.min(largest, Math.max(smallest, state.z * factor));
    const after = toSlide(x ?? w / 2, y ?? h / 2);
    state.x += before[0] - after[0]; state.y += before[1] - after[1];
    draw();
  }

  // the address keeps what is shown
  let waits = 0;
  function keepAddress() {
    clearTimeout(waits);
    waits = setTimeout(() => {
      const kept = { slide: slide().name, layer: state.layer, signature: state.signature, opacity: state.opacity, grey: +state.grey, failed: +state.failed };
      for (const name of ["x", "y"]) kept[name] = state[name].toFixed(1);
      kept.z = state.z.toPrecision(4);
      try { history.replaceState(null, "", "#" + new URLSearchParams(kept)); } catch (_) { /* some browsers refuse it for files */ }
    }, 300);
  }
  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const index = content.slides.findIndex((s) => s.name === asked.get("slide"));
    if (index >= 0) state.slide = index;
    for (const name of ["layer", "signature"]) if (asked.has(name)) state[name] = asked.get(name);
    fit();
    for (const name of ["opacity", "x", "y", "z"]) {
      const value = parseFloat(asked.get(name));
      if (Number.isFinite(value) && (name !== "z" || value > 0)) state[name] = value;
    }
    if (asked.has("grey")) state.grey = asked.get("grey") !== "0";
    if (asked.has("failed")) state.failed = asked.get("failed") === "1";
  }

  // hands
  $("slide").onchange = (event) => { state.slide = +event.target.value; fit(); refresh(); };
  $("layer").onchange = (event) => { state.layer = event.target.value; refresh(); };
  $("signature").onchange = (event) => { state.signature = event.target.value; refresh(); };
  $("opacity").oninput = (event) => { state.opacity = +event.target.value; draw(); };
  $("failed").onchange = (event) => { state.failed = event.target.checked; draw(); };
  $("grey").onchange = (event) => { state.grey = event.target.checked; draw(); };
  $("in").onclick = () => zoom(1.5); $("out").onclick = () => zoom(1 / 1.5); $("fit").onclick = () => { fit(); draw(); };
  const pointers = new Map();
  const local = (event) => { const box = view.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  view.onwheel = (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.03 : 0.0015)), ...local(event)); };
  view.onpointerdown = (event) => { view.setPointerCapture(event.pointerId); pointers.set(event.pointerId, local(event)); view.classList.add("moving"); };
  view.onpointerup = view.onpointercancel = (event) => { pointers.delete(event.pointerId); view.classList.toggle("moving", pointers.size > 0); };
  view.onpointerleave = () => { at.inside = false; draw(); };
  view.onpointermove = (event) => {
    const [x, y] = local(event), before = pointers.get(event.pointerId);
    Object.assign(at, { x, y, inside: true });
    if (before) {
      const other = [...pointers].find(([id]) => id !== event.pointerId);
      if (other) {
        const distance = (p) => Math.hypot(p[0] - other[1][0], p[1] - other[1][1]);
        zoom(distance([x, y]) / (distance(before) || 1), (x + other[1][0]) / 2, (y + other[1][1]) / 2);
      } else { state.x -= (x - before[0]) / state.z; state.y -= (y - before[1]) / state.z; }
      pointers.set(event.pointerId, [x, y]);
    }
    draw();
  };
  view.ondblclick = (event) => zoom(2, ...local(event));
  document.onkeydown = (event) => {
    if (["SELECT", "INPUT"].includes(event.target.tagName)) return;
    const step = 80 / state.z, moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) { state.x += moves[event.key][0]; state.y += moves[event.key][1]; draw(); }
    else if (event.key === "+" || event.key === "=") zoom(1.25);
    else if (event.key === "-") zoom(0.8);
    else if (event.key === "0") { fit(); draw(); }
    else return;
    event.preventDefault();
  };
  window.onresize = draw;
  window.onhashchange = () => { readAddress(); refresh(); };
  readAddress();
  refresh();
})();
