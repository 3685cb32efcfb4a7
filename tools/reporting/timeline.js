// The timeline: attempts as bars in lanes, by worker, host or fan-out. Drawn on a canvas, only what is in view.

function timeline() {
  const box = find('#chart'), canvas = box.querySelector('canvas'), pen = canvas.getContext('2d');
  const strip = find('#overview'), stripCanvas = strip.querySelector('canvas'), stripPen = stripCanvas.getContext('2d');
  const AXIS = 26, NARROW = 560, rows = find('#rows');
  const length = (one) => tries.length[one] ?? 0;
  const shown = [];
  for (let one = 0; one < jobOf.length; one++) if (tries.start[one] !== null) shown.push(one);
  let begin = 0, end = -Infinity;
  for (const one of shown) {
    begin = Math.min(begin, tries.start[one]);
    end = Math.max(end, tries.start[one] + length(one));
  }
  const room = Math.max((end - begin) * 0.02, 1);
  // A worker claims its next job a moment before the last one has ended; that is no second job at once.
  const tolerance = Math.max(0.011, (end - begin) / 800);
  const all = { from: begin - room, to: end + room };
  const view = { ...all };
  const most = atOnce();
  let lanes = [], labels = [], laneHeight = 16, gutter = 120, colours = {};

  // How many attempts ran at once at most; of a lost one nobody knows how long it did.
  function atOnce() {
    const starts = [], ends = [];
    for (const one of shown) {
      if (words.state[tries.outcome[one]] === 'lost') continue;
      starts.push(tries.start[one]);
      ends.push(tries.start[one] + length(one));
    }
    const begins = Float64Array.from(starts).sort(), stops = Float64Array.from(ends).sort();
    let best = 0;
    for (let start = 0, stop = 0; start < begins.length; start++) {
      while (stops[stop] <= begins[start]) stop++;
      best = Math.max(best, start + 1 - stop);
    }
    return best;
  }

  // -- lanes ----------------------------------------------------------------------------------------------------

  const keys = {
    worker: [(one) => tries.worker[one], (key) => words.worker[key] || 'unknown worker'],
    host: [(one) => hostOf[tries.worker[one]], (key) => hosts[key] || 'unknown host'],
    fanout: [(one) => groupOf(jobOf[one]), (key) => data.fanouts.names[key]],
  };

  // Attempts of one row that overlap get lanes of their own; each lane is in order, so it can be searched.
  function arrange(mode) {
    const [key, name] = keys[mode], groups = new Map();
    for (const one of shown) {
      if (!groups.has(key(one))) groups.set(key(one), []);
      groups.get(key(one)).push(one);
    }
    lanes = [];
    labels = [];
    const named = [...groups].map(([group, list]) => [name(group), list]);
    const order = new Intl.Collator('en', { numeric: true });
    named.sort((a, b) => order.compare(a[0], b[0]));
    for (const [label, list] of named) {
      list.sort((a, b) => tries.start[a] - tries.start[b]);
      const top = lanes.length, ends = [];
      for (const one of list) {
        let lane = ends.findIndex((until) => until <= tries.start[one] + tolerance);
        if (lane < 0) {
          lane = ends.push(0) - 1;
          lanes.push([]);
        }
        lanes[top + lane].push(one);
        ends[lane] = tries.start[one] + length(one);
      }
      labels.push({ label, top, count: ends.length });
    }
    laneHeight = Math.max(lanes.length > 80 ? 6 : 13, Math.min(22, Math.floor(400 / Math.max(1, lanes.length))));
    resize();
  }

  // -- places ---------------------------------------------------------------------------------------------------

  let width = 0, height = 0;
  function fit(target, context, wide, high) {
    const scale = window.devicePixelRatio || 1;
    target.width = Math.round(wide * scale);
    target.height = Math.round(high * scale);
    target.style.height = `${high}px`;
    context.setTransform(scale, 0, 0, scale, 0, 0);
  }

  function resize() {
    const content = lanes.length * laneHeight + AXIS + 6;
    height = Math.min(content, 458);
    box.style.height = `${height + 2}px`;
    width = box.clientWidth;
    const widest = labels.reduce((most, { label }) => Math.max(most, label.length * 6.6 + 16), 0);
    gutter = Math.min(width < NARROW ? 74 : 200, Math.max(width < NARROW ? 50 : 80, widest));
    fit(canvas, pen, width, height);
    canvas.style.marginBottom = `${content - height}px`;
    fit(stripCanvas, stripPen, strip.clientWidth, 60);
    recolour();
  }

  function recolour() {
    for (const name of ['ground', 'soft', 'line', 'text', 'quiet', 'focus', ...words.state]) colours[name] = colour(name);
    draw();
  }

  const x = (time) => gutter + ((time - view.from) / (view.to - view.from)) * (width - gutter);
  const timeAt = (place) => view.from + ((place - gutter) / (width - gutter)) * (view.to - view.from);

  // -- drawing --------------------------------------------------------------------------------------------------

  let waiting = 0;
  const draw = () => { waiting ||= requestAnimationFrame(() => { waiting = 0; drawChart(); drawStrip(); }); };

  // The first bar of a lane that ends after a time.
  function search(lane, time) {
    let low = 0, high = lane.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (tries.start[lane[middle]] + length(lane[middle]) < time) low = middle + 1; else high = middle;
    }
    return low;
  }

  function drawChart() {
    pen.clearRect(0, 0, width, height);
    drawGrid();
    const scroll = box.scrollTop, from = Math.max(0, Math.floor((scroll - AXIS) / laneHeight));
    const to = Math.min(lanes.length, Math.ceil((scroll + height) / laneHeight));
    pen.save();
    pen.beginPath();
    pen.rect(gutter, AXIS, width - gutter, height - AXIS);
    pen.clip();
    for (let lane = from; lane < to; lane++) drawLane(lanes[lane], AXIS + lane * laneHeight - scroll);
    pen.restore();
    drawLabels(scroll);
    find('#range').textContent = `${clock(view.from)} to ${clock(view.to)}, ${span(view.to - view.from)}`;
  }

  // Bars narrower than a pixel are drawn once a pixel and state; what did not succeed last, so that it is seen.
  function drawLane(lane, top) {
    const high = laneHeight > 9 ? laneHeight - 3 : laneHeight - 1, later = [];
    let drawn = -1;
    for (let place = search(lane, view.from); place < lane.length; place++) {
      const one = lane[place], start = tries.start[one];
      if (start > view.to) break;
      // On whole points: crisp, and neighbours keep a gap as soon as there is room for one.
      const left = Math.round(x(start)), whole = Math.round(x(start + length(one))) - left;
      const wide = Math.max(1, whole > 3 ? whole - 1 : whole);
      if (words.state[tries.outcome[one]] !== 'succeeded') {
        later.push([one, left, wide]);
        continue;
      }
      if (wide < 2 && left === drawn) continue;
      drawn = left;
      bar(one, left, wide, top, high);
    }
    for (const [one, left, wide] of later) bar(one, left, Math.max(2, wide), top, high);
  }

  function bar(one, left, wide, top, high) {
    const state = words.state[tries.outcome[one]];
    pen.fillStyle = colours[state];
    if (state !== 'lost' && state !== 'unreadable') {
      pen.fillRect(left, top, wide, high);
      return;
    }
    const end = Math.min(left + Math.max(5, wide), width);  // hatched: nobody knows when it ended
    pen.fillRect(left, top, 2, high);
    pen.globalAlpha = 0.28;
    pen.fillRect(left, top, end - left, high);
    pen.globalAlpha = 1;
    pen.strokeStyle = colours[state];
    pen.beginPath();
    for (let place = Math.max(left, gutter - 20); place < end; place += 5) {
      pen.moveTo(place, top + high);
      pen.lineTo(Math.min(place + high, end), top + high - Math.min(high, end - place));
    }
    pen.stroke();
  }

  const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5,
    72e5, 108e5, 216e5, 432e5, 864e5, 1728e5, 6048e5];

  function drawGrid() {
    const wanted = ((view.to - view.from) / (width - gutter)) * 110;
    const step = STEPS.find((one) => one >= wanted) ?? Math.ceil(wanted / 6048e5) * 6048e5;
    pen.font = '11px system-ui, sans-serif';
    pen.textBaseline = 'middle';
    for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
      const place = Math.round(x(at)) + 0.5;
      pen.strokeStyle = colours.line;
      pen.beginPath();
      pen.moveTo(place, AXIS - 6);
      pen.lineTo(place, height);
      pen.stroke();
      pen.fillStyle = colours.quiet;
      pen.textAlign = place > width - 30 ? 'right' : place < gutter + 30 ? 'left' : 'center';
      pen.fillText(at === 0 ? 'begin' : `${at < 0 ? '−' : '+'}${span(Math.abs(at))}`, place, 11);
    }
  }

  function drawLabels(scroll) {
    pen.textAlign = 'left';
    pen.fillStyle = colours.ground;
    pen.fillRect(0, 0, gutter, height);
    let below = AXIS - 3, before = null;
    for (const { label, top, count } of labels) {
      const y = AXIS + top * laneHeight - scroll, bottom = y + count * laneHeight;
      if (bottom < AXIS || y > height) continue;
      const family = rows.value === 'worker' ? label.split(':')[0] : label;  // a line between hosts, or between all rows
      if (top && y > AXIS && family !== before) {
        pen.fillStyle = colours.line;
        pen.fillRect(0, y - 1.5, width, 1);
      }
      before = family;
      const middle = Math.max(AXIS, y) + Math.min(count * laneHeight, 18) / 2 - (laneHeight > 9 ? 1.5 : 0);
      if (middle - 6 < below) continue;  // no room: the next one that has room gets its name
      below = middle + 6;
      const text = label.length * 6.4 > gutter ? `…${label.slice(-Math.floor((gutter - 14) / 6.6))}` : label;
      pen.fillStyle = colours.text;
      pen.fillText(text, 8, middle);
    }
    pen.fillStyle = colours.ground;
    pen.fillRect(0, 0, gutter, AXIS - 2);
    pen.fillStyle = colours.line;
    pen.fillRect(0, AXIS - 2, width, 1);
  }

  // -- the strip: how many attempts ran at once -----------------------------------------------------------------

  function drawStrip() {
    const wide = strip.clientWidth, high = 60, bins = Math.max(1, Math.floor(wide));
    const busy = new Float64Array(bins + 2), bad = new Map();
    const place = (time) => Math.min(bins - 1, Math.max(0, Math.floor(((time - all.from) / (all.to - all.from)) * bins)));
    const exact = (time) => ((time - all.from) / (all.to - all.from)) * bins;
    // How busy each column is on average: an attempt counts from where it begins in its first to where it ends in its last.
    const step = (time, sign) => {
      const bin = place(time), rest = Math.min(1, Math.max(0, bin + 1 - exact(time)));
      busy[bin] += sign * rest;
      busy[bin + 1] += sign * (1 - rest);
    };
    for (const one of shown) {
      const state = words.state[tries.outcome[one]], end = tries.start[one] + length(one);
      step(tries.start[one], 1);
      step(end, -1);
      if (state === 'succeeded' || state === 'running') continue;
      const column = place(end), known = bad.get(column);
      bad.set(column, { state, count: (known?.count ?? 0) + 1 });
    }
    let now = 0;
    const at = Array.from({ length: bins }, (_, bin) => { now += busy[bin]; return now; });
    const highest = Math.max(1, ...at);
    stripPen.clearRect(0, 0, wide, high);
    stripPen.fillStyle = colours.quiet;
    stripPen.globalAlpha = 0.45;
    at.forEach((count, bin) => { stripPen.fillRect(bin, high - 8 - (count / highest) * 34, 1, (count / highest) * 34); });
    stripPen.globalAlpha = 1;
    const worst = Math.max(1, ...[...bad.values()].map(({ count }) => count));
    for (const [bin, { state, count }] of bad) {
      stripPen.fillStyle = colours[state];
      stripPen.fillRect(bin - 0.5, high - 1 - 6 * (count / worst), 2, 6 * (count / worst));
    }
    const left = place(view.from), right = place(view.to) + 1;
    stripPen.fillStyle = colours.ground;
    stripPen.globalAlpha = 0.7;
    stripPen.fillRect(0, 0, left, high);
    stripPen.fillRect(right, 0, wide - right, high);
    stripPen.globalAlpha = 1;
    stripPen.strokeStyle = colours.focus;
    stripPen.lineWidth = 2;
    stripPen.strokeRect(left + 1, 1, Math.max(2, right - left - 2), high - 2);
    stripPen.lineWidth = 1;
    stripPen.fillStyle = colours.quiet;
    stripPen.font = '11px system-ui, sans-serif';
    stripPen.fillText(`running at once, at most ${number(most)}`, 8, 13);
  }

  // -- moving ---------------------------------------------------------------------------------------------------

  function show(from, to) {
    const whole = all.to - all.from, wanted = Math.min(whole, Math.max(0.05, to - from));
    const middle = (from + to) / 2;
    view.from = Math.min(Math.max(middle - wanted / 2, all.from), all.to - wanted);
    view.to = view.from + wanted;
    draw();
  }

  function zoom(factor, around = (view.from + view.to) / 2) {
    show(around - (around - view.from) * factor, around + (view.to - around) * factor);
  }

  const move = (share) => show(view.from + (view.to - view.from) * share, view.to + (view.to - view.from) * share);
  const fitAll = () => show(all.from, all.to);

  box.addEventListener('keydown', (event) => {
    const act = {
      ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), '+': () => zoom(0.6), '=': () => zoom(0.6),
      '-': () => zoom(1 / 0.6), 0: fitAll, Home: fitAll,
      ArrowUp: () => { box.scrollTop -= 40; }, ArrowDown: () => { box.scrollTop += 40; },
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  box.addEventListener('wheel', (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(event.deltaY * 0.002), timeAt(event.clientX - box.getBoundingClientRect().left));
  }, { passive: false });
  box.addEventListener('scroll', draw);

  // One pointer moves, two zoom.
  const pointers = new Map();
  let moved = 0;
  box.addEventListener('pointerdown', (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, event.clientX);
    moved = 0;
  });
  box.addEventListener('pointermove', (event) => {
    if (!pointers.has(event.pointerId)) { hover(event); return; }
    const before = [...pointers.values()];
    const step = event.clientX - pointers.get(event.pointerId);
    pointers.set(event.pointerId, event.clientX);
    moved += Math.abs(step);
    if (moved < 4) return;
    if (!box.hasPointerCapture(event.pointerId)) box.setPointerCapture(event.pointerId);
    box.classList.add('dragging');
    hideTip();
    if (pointers.size === 1) { move(-step / (width - gutter)); return; }
    const after = [...pointers.values()], left = box.getBoundingClientRect().left;
    const apart = Math.abs(after[0] - after[1]);
    if (apart > 10) zoom(Math.abs(before[0] - before[1]) / apart, timeAt((after[0] + after[1]) / 2 - left));
  });
  const release = (event) => { pointers.delete(event.pointerId); box.classList.remove('dragging'); };
  box.addEventListener('pointerup', release);
  box.addEventListener('pointercancel', release);
  box.addEventListener('pointerleave', hideTip);
  box.addEventListener('click', (event) => {
    const one = moved < 4 ? under(event) : -1;
    if (one >= 0) openJob(jobOf[one]);
  });

  let chosen = null;
  const stripTime = (event) => all.from + ((event.clientX - strip.getBoundingClientRect().left) / strip.clientWidth) * (all.to - all.from);
  strip.addEventListener('pointerdown', (event) => { chosen = stripTime(event); strip.setPointerCapture(event.pointerId); });
  strip.addEventListener('pointermove', (event) => {
    if (chosen !== null) show(Math.min(chosen, stripTime(event)), Math.max(chosen, stripTime(event)));
  });
  strip.addEventListener('pointerup', (event) => {
    const there = stripTime(event), half = (view.to - view.from) / 2;
    if (chosen !== null && Math.abs(there - chosen) < (all.to - all.from) / 200) show(there - half, there + half);
    chosen = null;
  });

  // -- what is under the pointer --------------------------------------------------------------------------------

  function under(event) {
    const place = box.getBoundingClientRect(), left = event.clientX - place.left, top = event.clientY - place.top;
    const lane = lanes[Math.floor((top + box.scrollTop - AXIS) / laneHeight)];
    if (!lane || left < gutter || top < AXIS) return -1;
    const time = timeAt(left), near = ((view.to - view.from) / (width - gutter)) * 3;
    let best = -1, least = near;
    for (let at = search(lane, time - near * 3); at < lane.length && tries.start[lane[at]] <= time + near; at++) {
      const start = tries.start[lane[at]];
      const away = Math.max(0, start - time, time - start - length(lane[at]));
      if (away < least || (away === least && best < 0)) [best, least] = [lane[at], away];
    }
    return best;
  }

  const tip = find('#tip');
  function hover(event) {
    const one = event.pointerType === 'touch' ? -1 : under(event);
    if (one < 0) { hideTip(); return; }
    const state = words.state[tries.outcome[one]], job = jobOf[one];
    const took = tries.length[one] === null ? 'for a time that nobody knows'
      : `${state === 'lost' ? 'at most ' : ''}${span(tries.length[one])}`;
    tip.textContent = `${nameOf(job)}\nattempt ${tries.number[one]}: ${plain(state)}, ${took}\n`
      + `from ${clock(tries.start[one], true)} on ${words.worker[tries.worker[one]] || 'an unknown worker'}`;
    tip.hidden = false;
    const space = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - space.width - 6))}px`;
    tip.style.top = `${event.clientY + 18 + space.height > innerHeight ? event.clientY - space.height - 10 : event.clientY + 16}px`;
  }
  function hideTip() { tip.hidden = true; }

  find('#zoom-in').addEventListener('click', () => zoom(0.5));
  find('#zoom-out').addEventListener('click', () => zoom(2));
  find('#zoom-fit').addEventListener('click', fitAll);
  rows.value = words.worker.length > 40 || innerWidth < NARROW ? 'host' : 'worker';
  rows.addEventListener('change', () => arrange(rows.value));
  drawers.push(recolour);
  new ResizeObserver(resize).observe(strip);
  arrange(rows.value);
}

if (find('#chart')) timeline();
