// The table of jobs: searched, filtered, sorted; a page of rows at a time, so that 100,000 are no more than 50.

const ROWS = 50;
const order = ['failed', 'timed_out', 'lost', 'unreadable', 'running', 'cancelled', 'waiting', 'succeeded'];
const filter = { text: '', states: new Set(), group: '', host: '', kind: '', low: null, high: null };
let sorting = { by: 'name', down: false }, rowsFound = [], page = 0, searchable = null;

const hostName = (job) => {
  const one = countedOf(job);
  return one < 0 ? '' : hosts[hostOf[tries.worker[one]]];
};
const triesOf = (job) => (jobs.tries[job] ? tries.number[first[job + 1] - 1] : 0);
const startOf = (job) => (countedOf(job) < 0 ? null : tries.start[countedOf(job)]);
const errorOf = (job) => [words.kind[jobs.kind[job]], words.error[jobs.error[job]]].filter(Boolean).join(': ');

const values = {
  name: (job) => job, state: (job) => order.indexOf(stateOf(job)), tries: triesOf, start: startOf, length: lengthOf,
  host: hostName, error: errorOf,
};

function fits(job) {
  const took = lengthOf(job);
  return (!filter.states.size || filter.states.has(stateOf(job)))
    && (filter.group === '' || groupOf(job) === Number(filter.group))
    && (filter.host === '' || hostName(job) === filter.host)
    && (filter.kind === '' || words.kind[jobs.kind[job]] === filter.kind)
    && (filter.low === null || (took !== null && took >= filter.low - 1e-9 && took < filter.high - 1e-9
      && !['running', 'waiting', 'lost'].includes(stateOf(job))))
    && (!filter.text || searchable[job].includes(filter.text));
}

function search() {
  if (filter.text && !searchable) {
    searchable = Array.from({ length: JOBS }, (_, job) => `${nameOf(job)}\n${errorOf(job)}`.toLowerCase());
  }
  rowsFound = [];
  for (let job = 0; job < JOBS; job++) if (fits(job)) rowsFound.push(job);
  sort();
}

// What is not known comes last, whichever way it is sorted.
function sort() {
  const value = values[sorting.by], way = sorting.down ? -1 : 1;
  const keyed = rowsFound.map((job) => [value(job), job]);
  keyed.sort(([a, one], [b, other]) => {
    const unknownA = a === null || a === '', unknownB = b === null || b === '';
    if (unknownA || unknownB) return unknownA - unknownB || one - other;
    return (a < b ? -1 : a > b ? 1 : 0) * way || one - other;
  });
  rowsFound = keyed.map(([, job]) => job);
  for (const head of document.querySelectorAll('#table th[aria-sort]')) {
    const name = head.querySelector('button').dataset.sort;
    const mine = name === sorting.by;
    head.setAttribute('aria-sort', mine ? (sorting.down ? 'descending' : 'ascending') : 'none');
  }
  page = 0;
  showPage();
}

function row(job) {
  const name = nameOf(job), took = lengthOf(job), start = startOf(job), error = errorOf(job);
  const link = make('a', { href: `#job=${encodeURIComponent(name)}`, title: name }, name);
  const cell = (column, ...content) => make('td', { class: `c-${column}` }, ...content);
  return make('tr', { 'data-job': job },
    make('th', { class: 'c-name', scope: 'row' }, link),
    cell('state', badge(stateOf(job))),
    cell('tries', triesOf(job) ? String(triesOf(job)) : ''),
    cell('start', start === null ? '' : clock(start)),
    cell('length', took === null ? '' : span(took)),
    cell('host', hostName(job)),
    make('td', { class: 'c-error', title: error }, error));
}

function showPage() {
  const from = page * ROWS, to = Math.min(rowsFound.length, from + ROWS);
  find('#table tbody').replaceChildren(...rowsFound.slice(from, to).map(row));
  const which = rowsFound.length === JOBS ? '' : `${number(rowsFound.length)} of `;
  find('#found').textContent = `${which}${number(JOBS)} job${JOBS === 1 ? '' : 's'}`;
  find('#page-number').textContent = rowsFound.length ? `${number(from + 1)} to ${number(to)}` : 'none fits';
  find('#back').disabled = !page;
  find('#next').disabled = to >= rowsFound.length;
  for (const button of ['#back', '#next', '#page-number']) find(button).hidden = rowsFound.length <= ROWS && rowsFound.length > 0;
}

// -- what people choose -----------------------------------------------------------------------------------------

const OFFERED = 500;  // of more choices nobody chooses; the search finds the others

function options(select, pairs) {
  for (const [value, text] of pairs.slice(0, OFFERED)) select.append(make('option', { value }, text));
  if (pairs.length > OFFERED) select.append(make('option', { disabled: '' }, `and ${number(pairs.length - OFFERED)} more: search for them`));
  select.parentElement.hidden = pairs.length < 2;
}

// Choose a value, also one that was not offered.
function choice(select, value) {
  select.value = value;
  if (select.selectedIndex >= 0) return;
  const text = select.id === 'by-fanout' ? data.fanouts.names[value] : value;
  select.append(make('option', { value }, text));
  select.value = value;
}

// Put the filter into the form.
function showFilter() {
  find('#search').value = filter.text;
  for (const box of document.querySelectorAll('#filters [name="state"]')) box.checked = filter.states.has(box.value);
  choice(find('#by-fanout'), filter.group);
  choice(find('#by-host'), filter.host);
  choice(find('#by-kind'), filter.kind);
  const range = find('#by-range');
  range.hidden = filter.low === null;
  if (filter.low !== null) range.textContent = `took ${span(filter.low)} to ${span(filter.high)} ✕`;
  range.setAttribute('aria-label', `${range.textContent.replace(' ✕', '')}: remove this filter`);
  search();
}

function choose(only) {
  Object.assign(filter, { text: '', states: new Set(), group: '', host: '', kind: '', low: null, high: null }, only);
  showFilter();
}

// What a link or a bar of a histogram asks for.
function asked(wants) {
  return {
    ...(wants.state !== undefined && { states: new Set([wants.state]) }),
    ...(wants.fanout !== undefined && data.fanouts.names.length > 1 && { group: wants.fanout }),
    ...(wants.kind !== undefined && { kind: wants.kind }),
    ...(wants.low !== undefined && { low: Number(wants.low) * 1000, high: Number(wants.high) * 1000 }),
  };
}

function table() {
  find('#table').classList.toggle('dated', DATED);
  const kinds = words.kind.map((kind, place) => [kind, place]).filter(([kind]) => kind);
  options(find('#by-fanout'), data.fanouts.names.map((name, place) => [place, name]));
  options(find('#by-host'), hosts.filter(Boolean).sort().map((host) => [host, host]));
  options(find('#by-kind'), kinds.map(([kind]) => [kind, kind]).sort());

  let later = 0;
  find('#search').addEventListener('input', (event) => {
    clearTimeout(later);
    later = setTimeout(() => { filter.text = event.target.value.trim().toLowerCase(); search(); }, JOBS > 5000 ? 150 : 0);
  });
  find('#filters').addEventListener('change', (event) => {
    if (event.target.id === 'search') return;  // comes when the field is left, in the middle of a click on a row
    filter.states = new Set([...document.querySelectorAll('#filters [name="state"]:checked')].map((box) => box.value));
    filter.group = find('#by-fanout').value;
    filter.host = find('#by-host').value;
    filter.kind = find('#by-kind').value;
    search();
  });
  find('#filters').addEventListener('submit', (event) => event.preventDefault());
  find('#filters').addEventListener('reset', (event) => { event.preventDefault(); choose({}); });
  find('#by-range').addEventListener('click', () => { filter.low = filter.high = null; showFilter(); find('#search').focus(); });
  for (const button of document.querySelectorAll('#table [data-sort]')) {
    button.addEventListener('click', () => {
      const by = button.dataset.sort;
      const largest = by === 'length' || by === 'tries';  // of numbers people want the largest first
      sorting = { by, down: sorting.by === by ? !sorting.down : largest };
      sort();
    });
  }
  const turn = (step) => { page += step; showPage(); find('#found').scrollIntoView({ block: 'nearest' }); };
  find('#back').addEventListener('click', () => turn(-1));
  find('#next').addEventListener('click', () => turn(1));
  find('#table tbody').addEventListener('click', (event) => {
    const line = event.target.closest('tr');
    if (line && !event.target.closest('a') && !String(getSelection())) openJob(Number(line.dataset.job));
  });
  document.addEventListener('click', (event) => {
    const wants = event.target.closest('[data-state], [data-kind], [data-low], [data-fanout]');
    if (!wants) return;
    choose(asked(wants.dataset));
    if (wants.localName !== 'a') find('#jobs').scrollIntoView();
  });
  search();
}

table();
