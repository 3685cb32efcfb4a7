// The panel with the details of one job. `#job=NAME` in the address opens it, so it can be linked to.

const panel = find('#detail');
let openedFrom = null, current = -1;

function openJob(job) {
  location.hash = `job=${encodeURIComponent(nameOf(job))}`;
}

function jobInAddress() {
  if (!location.hash.startsWith('#job=')) return -1;
  let wanted = '';
  try { wanted = decodeURIComponent(location.hash.slice(5)); } catch { return -1; }
  for (let job = 0; job < JOBS; job++) if (wanted.endsWith(jobs.name[job]) && nameOf(job) === wanted) return job;
  return -1;
}

function follow() {
  const job = jobInAddress();
  if (job < 0) { if (panel.open) panel.close(); return; }
  fill(job);
  if (!panel.open) { openedFrom = document.activeElement; panel.showModal(); }
  panel.scrollTop = 0;
}

// The one before or after it in the table, when it is there.
function neighbour(step) {
  const place = rowsFound.indexOf(current);
  return place < 0 ? undefined : rowsFound[place + step];
}

const section = (title, ...content) => (content.some(Boolean) ? [make('h3', {}, title), ...content.filter(Boolean)] : []);
const text = (value) => (value ? make('pre', { tabindex: 0 }, value) : null);

function command(line) {
  const button = make('button', { type: 'button', 'aria-label': `Copy: ${line}` }, 'Copy');
  button.addEventListener('click', async () => {
    try { await navigator.clipboard.writeText(line); button.textContent = 'Copied'; } catch { button.textContent = 'No clipboard'; }
  });
  return make('div', { class: 'command' }, make('code', {}, line), button);
}

function step(label, sign, by) {
  const job = neighbour(by), button = make('button', { type: 'button', 'aria-label': label, title: label }, sign);
  button.disabled = job === undefined;
  button.addEventListener('click', () => { openJob(job); });
  return button;
}

function facts(job, details) {
  const rows = [['state', badge(stateOf(job))], ['took', lengthOf(job) === null ? '' : span(lengthOf(job))]];
  if (startOf(job) !== null) rows.push(['started', clock(startOf(job), true)]);
  if (countedOf(job) >= 0) rows.push(['worker', words.worker[tries.worker[countedOf(job)]]]);
  if (details?.entry) rows.push(['runs', `from ${details.entry} up to ${details.exit || 'the end'}`]);
  const policy = Object.entries(details?.policy || {}).map(([name, value]) => `${name.replaceAll('_', ' ')} ${value}`);
  if (policy.length) rows.push(['policy', policy.join(', ')]);
  if (details?.not_replayable) rows.push(['replay', `not from its record alone: ${details.not_replayable}`]);
  if (details?.job_json) rows.push(['job.json', details.job_json]);
  if (details?.path) rows.push(['path', details.path]);
  return make('dl', { class: 'facts' }, ...rows.filter(([, value]) => value)
    .map(([name, value]) => make('div', {}, make('dt', {}, name), make('dd', {}, value))));
}

function attempt(one, details) {
  const state = words.state[tries.outcome[one]], more = details?.attempts?.find((known) => known.attempt === tries.number[one]);
  const took = tries.length[one] === null ? '' : `${state === 'lost' ? 'at most ' : ''}${span(tries.length[one])}`;
  const told = [more?.type, more?.error].filter(Boolean).join(': ');
  const where = [more?.node && `in node ${more.node}`, more?.exit_code !== undefined && `exit code ${more.exit_code}`,
    more?.sent_back && `sent back by ${more.sent_back}`].filter(Boolean).join(', ');
  return [
    make('tr', {}, make('th', { scope: 'row' }, String(tries.number[one])), make('td', {}, badge(state)),
      make('td', {}, tries.start[one] === null ? '' : clock(tries.start[one], true)), make('td', {}, took),
      make('td', {}, words.worker[tries.worker[one]])),
    told || where || more?.traceback ? make('tr', {}, make('td', { colspan: 5 }, told, where ? make('div', { class: 'quiet' }, where) : null,
      traceback(more?.traceback, one === first[jobOf[one] + 1] - 1))) : null,
  ];
}

// That of the last attempt is open: mostly those before it say the same.
function traceback(lines, open) {
  if (!lines) return null;
  const whole = make('details', {}, make('summary', {}, 'Traceback'), text(lines));
  whole.open = open;
  return whole;
}

function attempts(job, details) {
  if (!jobs.tries[job]) return null;
  const head = ['', 'outcome', 'started', 'took', 'worker'].map((title) => make('th', { scope: 'col' }, title || make('span', { class: 'unseen' }, 'attempt')));
  const rows = [];
  for (let one = first[job]; one < first[job + 1]; one++) rows.push(...attempt(one, details));
  return make('div', { class: 'scroll' }, make('table', {}, make('thead', {}, make('tr', {}, ...head)), make('tbody', {}, ...rows.filter(Boolean))));
}

function fill(job) {
  current = job;
  const name = nameOf(job), details = data.details[name], whole = `${data.run}/${name}`;
  const close = make('button', { type: 'button', 'aria-label': 'Close', title: 'Close (Esc)' }, '✕');
  close.addEventListener('click', () => panel.close());
  const error = errorOf(job);
  const missing = details ? null : make('p', { class: 'note' }, 'Its input, result and output are not on this page, which is bounded; the first command below shows them.');
  panel.replaceChildren(
    make('div', { class: 'head' }, make('h2', { id: 'detail-head' }, name), step('Job before', '↑', -1), step('Next job', '↓', 1), close),
    facts(job, details),
    ...(error ? [make('p', { class: 'note is-failed' }, error)] : []),
    ...[missing].filter(Boolean),
    ...section('Attempts', attempts(job, details)),
    ...(details ? [
      ...section('Input', text(details.input), details.shared ? make('p', { class: 'quiet' }, details.shared) : null),
      ...section('Changed', text(details.result)),
      ...section('Standard output', text(details.stdout)),
      ...section('Standard error', text(details.stderr)),
    ] : []),
    ...section('Commands', command(`tea spool show ${whole}`), command(`tea spool explain ${whole}`),
      details?.not_replayable ? null : command(`tea spool replay ${whole}`), command(`tea spool logs ${whole}`)),
  );
}

panel.addEventListener('close', () => {
  if (jobInAddress() >= 0) history.replaceState(null, '', `${location.pathname}${location.search}`);
  const row = find(`#table tr[data-job="${current}"] a`);
  (openedFrom?.isConnected && openedFrom !== document.body ? openedFrom : row)?.focus();
});
panel.addEventListener('click', (event) => { if (event.target === panel) panel.close(); });
addEventListener('hashchange', follow);
follow();
