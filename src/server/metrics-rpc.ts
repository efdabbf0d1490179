/** Counts of RPC methods (`grpc_server_*`), kept as plain fields per method. */
import { Histogram, labelText, line, type MetricFamily, type MetricType, type Sample } from "./metrics-text.ts";

/** Upper bounds in seconds. */
const RPC_SECONDS = Float64Array.of(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10);

/** What a transport counts of one method. Fields may be added to directly. */
export class RpcSeries {
  readonly service: string;
  readonly method: string;
  /** `unary`, `server_stream`, `client_stream` or `bidi_stream`. */
  readonly type: string;
  started = 0;
  received = 0;
  sent = 0;
  /** Finished calls, indexed by gRPC code. */
  readonly handled = new Float64Array(RPC_CODES.length);
  /** Only with extensive metrics; observe seconds. */
  readonly seconds: Histogram | undefined;

  constructor(service: string, method: string, type: string, extensive: boolean) {
    this.service = service;
    this.method = method;
    this.type = type;
    this.seconds = extensive ? new Histogram(RPC_SECONDS) : undefined;
  }

  /** Counts the end of a call. Unknown codes count as Unknown. */
  finish(code: number): void {
    const index = code >= 0 && code < this.handled.length ? code : 2;
    this.handled[index] = (this.handled[index] as number) + 1;
  }
}

/** Indexed by gRPC code. */
const RPC_CODES = [
  "OK",
  "Canceled",
  "Unknown",
  "InvalidArgument",
  "DeadlineExceeded",
  "NotFound",
  "AlreadyExists",
  "PermissionDenied",
  "ResourceExhausted",
  "FailedPrecondition",
  "Aborted",
  "OutOfRange",
  "Unimplemented",
  "Internal",
  "Unavailable",
  "DataLoss",
  "Unauthenticated",
] as const;

/** What is needed to know of a method; the descriptors of `api` have it. */
export interface RpcShape {
  readonly service: string;
  readonly name: string;
  readonly path: string;
  readonly clientStreaming: boolean;
  readonly serverStreaming: boolean;
}

export function rpcSeriesOf(method: RpcShape, extensive: boolean): RpcSeries {
  return new RpcSeries(method.service, method.name, typeOf(method), extensive);
}

function typeOf(method: RpcShape): string {
  if (method.clientStreaming) return method.serverStreaming ? "bidi_stream" : "client_stream";
  return method.serverStreaming ? "server_stream" : "unary";
}

const LABELS = ["grpc_method", "grpc_service", "grpc_type"] as const;

function labelsOf(rpc: RpcSeries): string {
  return labelText(LABELS, [rpc.method, rpc.service, rpc.type]);
}

/** Methods in the order of their labels. Sorted anew only when there are more of them. */
class Methods {
  readonly #byPath: ReadonlyMap<string, RpcSeries>;
  #sorted: readonly RpcSeries[] = [];

  constructor(byPath: ReadonlyMap<string, RpcSeries>) {
    this.#byPath = byPath;
  }

  sorted(): readonly RpcSeries[] {
    if (this.#sorted.length !== this.#byPath.size) {
      this.#sorted = Array.from(this.#byPath.values()).sort((a, b) => (labelsOf(a) < labelsOf(b) ? -1 : 1));
    }
    return this.#sorted;
  }
}

abstract class RpcFamilyBase implements MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  protected readonly methods: Methods;

  constructor(name: string, help: string, type: MetricType, byPath: ReadonlyMap<string, RpcSeries>) {
    this.name = name;
    this.help = help;
    this.type = type;
    this.methods = new Methods(byPath);
  }

  abstract write(lines: string[]): void;
  protected abstract samples(): Sample[];

  async get(): Promise<{ name: string; help: string; type: MetricType; values: Sample[]; aggregator: "sum" }> {
    return { name: this.name, help: this.help, type: this.type, values: this.samples(), aggregator: "sum" };
  }

  /** Resetting is for tests of programs that use prom-client's own counters; these series keep counting. */
  reset(): void {
    return;
  }
}

function labelsObject(rpc: RpcSeries): Record<string, string> {
  return { grpc_method: rpc.method, grpc_service: rpc.service, grpc_type: rpc.type };
}

/** One counter per method. */
export class RpcCounterFamily extends RpcFamilyBase {
  readonly #read: (rpc: RpcSeries) => number;

  constructor(name: string, help: string, byPath: ReadonlyMap<string, RpcSeries>, read: (rpc: RpcSeries) => number) {
    super(name, help, "counter", byPath);
    this.#read = read;
  }

  override write(lines: string[]): void {
    for (const rpc of this.methods.sorted()) lines.push(line(this.name, labelsOf(rpc), this.#read(rpc)));
  }

  protected override samples(): Sample[] {
    return this.methods.sorted().map((rpc) => ({ value: this.#read(rpc), labels: labelsObject(rpc) }));
  }
}

/** One counter per method and code, all codes from the start. */
export class RpcHandledFamily extends RpcFamilyBase {
  readonly #codes = RPC_CODES.map((name, code) => ({ name, code })).sort((a, b) => (a.name < b.name ? -1 : 1));

  constructor(byPath: ReadonlyMap<string, RpcSeries>) {
    super("grpc_server_handled_total", "RPCs finished, by code.", "counter", byPath);
  }

  override write(lines: string[]): void {
    const methods = this.methods.sorted();
    for (const { name, code } of this.#codes) {
      for (const rpc of methods) lines.push(line(this.name, `grpc_code="${name}",${labelsOf(rpc)}`, rpc.handled[code] ?? 0));
    }
  }

  protected override samples(): Sample[] {
    return this.#codes.flatMap(({ name, code }) =>
      this.methods.sorted().map((rpc) => ({ value: rpc.handled[code] ?? 0, labels: { grpc_code: name, ...labelsObject(rpc) } })),
    );
  }
}

/** Latency per method; only with extensive metrics. */
export class RpcSecondsFamily extends RpcFamilyBase {
  constructor(byPath: ReadonlyMap<string, RpcSeries>) {
    super("grpc_server_handling_seconds", "Time to answer, in seconds.", "histogram", byPath);
  }

  override write(lines: string[]): void {
    for (const rpc of this.methods.sorted()) rpc.seconds?.write(lines, this.name, labelsOf(rpc));
  }

  protected override samples(): Sample[] {
    const samples: Sample[] = [];
    for (const rpc of this.methods.sorted()) rpc.seconds?.samples(this.name, labelsObject(rpc), samples);
    return samples;
  }
}
