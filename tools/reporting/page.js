// What all parts of the page share: the data, words for them, the theme. Parts: timeline.js, table.js, detail.js.

const root = document.documentElement;
root.classList.add('scripted');

const find = (selector) => document.querySelector(selector);
const data = JSON.parse(find('#data').textContent);
const { jobs, tries, words } = data;
const JOBS = jobs.name.length;

// The first attempt of each job in the columns of attempts, and whose job an attempt is.
const first = new Int32Array(JOBS + 1);
for (let job = 0; job < JOBS; job++) first[job + 1] = first[job] + jobs.tries[job];
const jobOf = new Int32Array(first[JOBS]);
for (let job = 0; job < JOBS; job++) jobOf.fill(job, first[job], first[job + 1]);

const hosts = [...new Set(words.worker.map(hostOfName))];
const hostNumbers = new Map(hosts.map((host, place) => [host, place]));
const hostOf = words.worker.map((worker) => hostNumbers.get(hostOfName(worker)));  // the host of each worker

function hostOfName(worker) {
  return worker.slice(0, Math.max(0, worker.lastIndexOf(':')));
}

const nameOf = (job) => `${words.place[jobs.place[job]]}/${jobs.name[job]}`;
const stateOf = (job) => words.state[jobs.state[job]];
const groupOf = (job) => data.fanouts.of[jobs.place[job]];
const countedOf = (job) => (jobs.counted[job] < 0 ? -1 : first[job] + jobs.counted[job]);
const lengthOf = (job) => (countedOf(job) < 0 ? null : tries.length[countedOf(job)]);
const plain = (state) => state.replace('_', ' ');
const number = (value) => value.toLocaleString('en-US');

// The same as span() in spans.py.
function span(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return '?';
  const seconds = milliseconds / 1000;
  const digits = (value) => value.toFixed(value >= 10 ? 0 : value >= 1 || !value ? 1 : 2);
  if (milliseconds < 999.5) return `${digits(milliseconds)} ms`;
  if (seconds < 59.5) return `${digits(seconds)} s`;
  const whole = Math.round(seconds);
  const two = (value) => String(value).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)} min`;
  if (whole < 48 * 3600) return `${Math.floor(whole / 3600)}:${two(Math.floor((whole % 3600) / 60))} h`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

const DATED = data.end > 20 * 3600e3;

// The time of day at so many milliseconds after the run began; with the date where the run is long.
function clock(milliseconds, fine = false) {
  const at = new Date(data.begin * 1000 + milliseconds);
  const two = (value, width = 2) => String(value).padStart(width, '0');
  let text = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (fine) text += `.${two(at.getMilliseconds(), 3)}`;
  return DATED ? `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${text}` : text;
}

// An element with text or children in it. Text is always a text node: nothing in the data can become an element.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'onclick') element.addEventListener('click', value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const badge = (state) => make('span', { class: `badge is-${state}` }, plain(state));

// -- theme ------------------------------------------------------------------------------------------------------

const themes = ['auto', 'light', 'dark'];
const drawers = [];  // what has to be drawn again when colours or sizes change

function stored() {
  try { return localStorage.getItem('tea-report-theme') || 'auto'; } catch { return 'auto'; }
}

function setTheme(theme) {
  if (theme === 'auto') root.removeAttribute('data-theme'); else root.setAttribute('data-theme', theme);
  find('#theme span').textContent = theme;
  try { localStorage.setItem('tea-report-theme', theme); } catch { /* a file that may store nothing */ }
  for (const draw of drawers) draw();
}

let theme = themes.includes(stored()) ? stored() : 'auto';
find('#theme').addEventListener('click', () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  setTheme(theme);
});
setTheme(theme);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => setTheme(theme));

const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
