/**
 * Metric handles and their text form. The handles are plain fields that hot paths increment: no hashing of labels, no allocation. Names, labels
 * and the Prometheus text are dealt with on a scrape. A family also answers `get()` in prom-client's shape, so that a prom-client `Registry`
 * can hold it and an embedding program can merge it with metrics of its own.
 */

/** One value or distribution, with the labels of its family already decided. */
export interface Series {
  /** Appends its lines. `labels` is the inner text of the braces, such as `a="b",c="d"`, or empty. */
  write(lines: string[], name: string, labels: string): void;
  samples(name: string, labels: Readonly<Record<string, string>>, into: Sample[]): void;
  reset(): void;
}

/** prom-client's shape of one value. */
export interface Sample {
  readonly value: number;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly metricName?: string;
}

export type MetricType = "counter" | "gauge" | "histogram";

/** Only goes up. `value` may be added to directly. */
export class Counter implements Series {
  value = 0;

  inc(by = 1): void {
    this.value += by;
  }

  write(lines: string[], name: string, labels: string): void {
    lines.push(line(name, labels, this.value));
  }

  samples(_name: string, labels: Readonly<Record<string, string>>, into: Sample[]): void {
    into.push({ value: this.value, labels });
  }

  reset(): void {
    this.value = 0;
  }
}

/** A value that is either set, or asked for on a scrape once {@link Gauge.readFrom} was called. */
export class Gauge implements Series {
  value = 0;
  #read: (() => number) | undefined;

  set(value: number): void {
    this.value = value;
  }

  inc(by = 1): void {
    this.value += by;
  }

  dec(by = 1): void {
    this.value -= by;
  }

  /** From now on scrapes ask `read`, which must be cheap. */
  readFrom(read: () => number): void {
    this.#read = read;
  }

  write(lines: string[], name: string, labels: string): void {
    lines.push(line(name, labels, this.#read?.() ?? this.value));
  }

  samples(_name: string, labels: Readonly<Record<string, string>>, into: Sample[]): void {
    into.push({ value: this.#read?.() ?? this.value, labels });
  }

  reset(): void {
    this.value = 0;
  }
}

/** A distribution over fixed buckets. */
export class Histogram implements Series {
  count = 0;
  sum = 0;
  /** Finite upper bounds, ascending. */
  readonly #bounds: Float64Array;
  /** Not cumulative; one more than bounds, the last for what is above all of them. */
  readonly #counts: Float64Array;

  constructor(bounds: Float64Array) {
    this.#bounds = bounds;
    this.#counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > (bounds[bucket] as number)) bucket++;
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
    this.sum += value;
    this.count++;
  }

  write(lines: string[], name: string, labels: string): void {
    const before = labels === "" ? `${name}_bucket{le="` : `${name}_bucket{${labels},le="`;
    let below = 0;
    for (let i = 0; i < this.#bounds.length; i++) {
      below += this.#counts[i] as number;
      lines.push(`${before}${formatValue(this.#bounds[i] as number)}"} ${formatValue(below)}`);
    }
    lines.push(`${before}+Inf"} ${formatValue(this.count)}`);
    lines.push(line(`${name}_sum`, labels, this.sum), line(`${name}_count`, labels, this.count));
  }

  samples(name: string, labels: Readonly<Record<string, string>>, into: Sample[]): void {
    let below = 0;
    for (let i = 0; i < this.#bounds.length; i++) {
      below += this.#counts[i] as number;
      into.push({ value: below, labels: { ...labels, le: this.#bounds[i] as number }, metricName: `${name}_bucket` });
    }
    into.push({ value: this.count, labels: { ...labels, le: "+Inf" }, metricName: `${name}_bucket` });
    into.push({ value: this.sum, labels, metricName: `${name}_sum` }, { value: this.count, labels, metricName: `${name}_count` });
  }

  reset(): void {
    this.count = 0;
    this.sum = 0;
    this.#counts.fill(0);
  }
}

/** Upper bounds `start, start * 2, ...`, `count` of them. */
export function doubling(start: number, count: number): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => start * 2 ** i);
}

export interface FamilyOptions {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  readonly labels?: readonly string[];
}

/** What a scrape walks over. */
export interface MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  /** Appends the lines of all series, sorted by labels; nothing if there is none. */
  write(lines: string[]): void;
  /** prom-client's view of the same. */
  get(): Promise<{ name: string; help: string; type: MetricType; values: Sample[]; aggregator: "sum" }>;
  reset(): void;
}

/** Series of one family that may exist at a time; more share one whose labels all say `other`. Keeps labels chosen by others from filling the memory. */
export const SERIES_MAX = 1000;

/** A metric with labels: one series for each set of label values, made when first asked for. Keep the series where a path is hot. */
export class Family<S extends Series> implements MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  readonly #labelNames: readonly string[];
  readonly #make: () => S;
  readonly #series = new Map<string, { readonly values: readonly string[]; readonly series: S }>();
  #sorted: readonly { readonly values: readonly string[]; readonly series: S }[] | undefined;

  constructor(options: FamilyOptions, make: () => S) {
    this.name = options.name;
    this.help = options.help;
    this.type = options.type;
    this.#labelNames = options.labels ?? [];
    this.#make = make;
    if (this.#labelNames.length === 0) this.series();
  }

  /** The series of these values, in the order of the family's label names. */
  series(...values: string[]): S {
    const key = labelText(this.#labelNames, values);
    const known = this.#series.get(key);
    if (known !== undefined) return known.series;
    if (this.#series.size >= SERIES_MAX) {
      const others = values.map(() => "other");
      if (values.some((value) => value !== "other")) return this.series(...others);
    }
    const made = { values, series: this.#make() };
    this.#series.set(key, made);
    this.#sorted = undefined;
    return made.series;
  }

  remove(...values: string[]): void {
    this.#series.delete(labelText(this.#labelNames, values));
    this.#sorted = undefined;
  }

  write(lines: string[]): void {
    for (const { values, series } of this.#inOrder()) series.write(lines, this.name, labelText(this.#labelNames, values));
  }

  async get(): Promise<{ name: string; help: string; type: MetricType; values: Sample[]; aggregator: "sum" }> {
    const samples: Sample[] = [];
    for (const { values, series } of this.#inOrder()) {
      series.samples(this.name, Object.fromEntries(this.#labelNames.map((name, i) => [name, values[i] ?? ""])), samples);
    }
    return { name: this.name, help: this.help, type: this.type, values: samples, aggregator: "sum" };
  }

  reset(): void {
    for (const { series } of this.#series.values()) series.reset();
  }

  #inOrder(): readonly { readonly values: readonly string[]; readonly series: S }[] {
    this.#sorted ??= Array.from(this.#series)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, one]) => one);
    return this.#sorted;
  }
}

/** A gauge of constant 1 whose single label value is asked for on a scrape; absent while that is undefined. */
export class InfoFamily implements MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type = "gauge";
  readonly #label: string;
  #read: () => string | undefined;

  constructor(options: { name: string; help: string; label: string }, read: () => string | undefined) {
    this.name = options.name;
    this.help = options.help;
    this.#label = options.label;
    this.#read = read;
  }

  readFrom(read: () => string | undefined): void {
    this.#read = read;
  }

  write(lines: string[]): void {
    const value = this.#read();
    if (value !== undefined) lines.push(line(this.name, labelText([this.#label], [value]), 1));
  }

  async get(): Promise<{ name: string; help: string; type: MetricType; values: Sample[]; aggregator: "sum" }> {
    const value = this.#read();
    const values = value === undefined ? [] : [{ value: 1, labels: { [this.#label]: value } }];
    return { name: this.name, help: this.help, type: this.type, values, aggregator: "sum" };
  }

  /** Nothing is kept here. */
  reset(): void {
    return;
  }
}

/** Tells our families from metrics that an embedding program registered beside them. */
export function isFamily(metric: unknown): metric is MetricFamily {
  return typeof metric === "object" && metric !== null && "write" in metric && typeof metric.write === "function";
}

/** A metric of prom-client's own, as of the last {@link ForeignFamily.refresh}. */
export class ForeignFamily implements MetricFamily {
  readonly #metric: { get(): Promise<{ name: string; help: string; type: unknown; values: readonly unknown[] }> };
  #last: { name: string; help: string; type: unknown; values: readonly unknown[] } = { name: "", help: "", type: "", values: [] };
  readonly name: string;

  constructor(metric: { get(): Promise<{ name: string; help: string; type: unknown; values: readonly unknown[] }> }) {
    this.#metric = metric;
    this.name = "name" in metric ? String(metric.name) : "";
  }

  async refresh(): Promise<void> {
    this.#last = await this.#metric.get();
  }

  get help(): string {
    return this.#last.help;
  }

  get type(): MetricType {
    return String(this.#last.type) as MetricType;
  }

  write(lines: string[]): void {
    for (const { value, labels, metricName } of this.#last.values as readonly Partial<Sample>[]) {
      const names = Object.keys(labels ?? {});
      const values = Object.values(labels ?? {}).map(String);
      lines.push(line(metricName ?? this.name, labelText(names, values), Number(value)));
    }
  }

  async get(): Promise<{ name: string; help: string; type: MetricType; values: Sample[]; aggregator: "sum" }> {
    await this.refresh();
    return { name: this.name, help: this.help, type: this.type, values: this.#last.values as Sample[], aggregator: "sum" };
  }

  reset(): void {
    return;
  }
}

/** The Prometheus text of one family; empty if it has no series. */
export function familyText(family: MetricFamily): string {
  const lines: string[] = [];
  family.write(lines);
  if (lines.length === 0) return "";
  return `# HELP ${family.name} ${escapeHelp(family.help)}\n# TYPE ${family.name} ${family.type}\n${lines.join("\n")}\n`;
}

export function line(name: string, labels: string, value: number): string {
  return labels === "" ? `${name} ${formatValue(value)}` : `${name}{${labels}} ${formatValue(value)}`;
}

/** The inner text of the braces; values escaped, `names` kept in their order. */
export function labelText(names: readonly string[], values: readonly string[]): string {
  let text = "";
  for (let i = 0; i < names.length; i++) text += `${i === 0 ? "" : ","}${names[i]}="${escapeLabel(values[i] ?? "")}"`;
  return text;
}

/**
 * A number as Go's shortest `%g` prints it, which is what scrapers of etcd see (and some shell scripts grep for): an exponent of at least two
 * digits from a million on and below a ten-thousandth.
 */
export function formatValue(value: number): string {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e6) return String(value);
  const text = value.toExponential();
  const at = text.indexOf("e");
  const digits = text.slice(at + 2);
  return `${text.slice(0, at + 2)}${digits.length === 1 ? `0${digits}` : digits}`;
}

export function escapeLabel(value: string): string {
  return /[\\"\n]/.test(value) ? value.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"') : value;
}

function escapeHelp(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}
