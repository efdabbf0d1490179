/**
 * Services that announce where they are, and who looks for them. Keys are `service/<id>` and values JSON in the form of etcd's own naming package, so gRPC clients
 * in Go resolve the same names.
 */
import { utf8Bytes, utf8Text } from "../../base/bytes.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { EtcdClient } from "../client.ts";
import { Deadline, linked, pause, unlessAborted } from "../deadline.ts";
import { ClosedError, InvalidUseError } from "../errors.ts";
import type { View } from "../view.ts";
import { openSession, type Session, type WaitOptions } from "./session.ts";

/** One provider of a service. */
export interface Provider {
  readonly id: string;
  readonly address: string;
  readonly metadata: unknown;
}

export interface RegisterOptions {
  /** Different for each provider. Default: the address. */
  readonly id?: string | undefined;
  readonly address: string;
  /** Anything that JSON can hold. */
  readonly metadata?: unknown;
  /** Seconds after which a provider that died is gone. Default 10. */
  readonly ttlSeconds?: number | undefined;
  /** Asked again and again; while it says no (or throws, or takes too long) the provider is not announced. */
  readonly health?: ((signal: AbortSignal) => Promise<boolean> | boolean) | undefined;
  /** Milliseconds between two questions, and the longest that an answer may take. Default 2000. */
  readonly healthEveryMs?: number | undefined;
}

const TTL_SECONDS = 10;
const HEALTH_EVERY_MS = 2000;
const RETRY_MS = 500;
/** etcd's number for "this address is there". */
const OP_ADD = 0;

export class ServiceRegistry {
  readonly #client: EtcdClient<Uint8Array, string>;

  constructor(client: Pick<EtcdClient, "raw">) {
    this.#client = client.raw().withTextKeys();
  }

  /** Announces a provider until it is closed, or this process dies. Await its `ready` to know that it is announced. */
  register(service: string, options: RegisterOptions): Registration {
    return new Registration(this.#client, service, options);
  }

  /** Watches the providers of a service. Await its `ready`. */
  discover(service: string, options?: { readonly signal?: AbortSignal | undefined }): ServiceView {
    return new ServiceView(this.#client.view(`${service}/`, { signal: options?.signal }), `${service}/`);
  }
}

/** A provider that is announced as long as it is well. Survives the loss of its lease: it is announced anew when the cluster is back. */
export class Registration {
  readonly service: string;
  readonly id: string;
  /** Resolves when it is announced for the first time; rejects if it cannot be, or is closed before. */
  readonly ready: Promise<void>;
  readonly #client: EtcdClient<Uint8Array, string>;
  readonly #options: RegisterOptions;
  readonly #over = new AbortController();
  readonly #done: Promise<void>;
  #metadata: unknown;
  #announced = false;
  #wake: (() => void) | undefined;
  #settle: { resolve: () => void; reject: (error: unknown) => void } | undefined;

  /** Use `registry.register()`. */
  constructor(client: EtcdClient<Uint8Array, string>, service: string, options: RegisterOptions) {
    this.#client = client;
    this.service = service;
    this.id = options.id ?? options.address;
    if (this.id === "" || service === "") throw new InvalidUseError("a provider needs a service and an id");
    this.#options = options;
    this.#metadata = options.metadata;
    this.ready = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.ready.catch(() => undefined);
    const forget = client.onClose(() => this.#over.abort(new ClosedError()));
    this.#done = this.#run().finally(forget);
    this.#done.catch(() => undefined);
  }

  /** What was announced last, as far as this process knows. */
  get announced(): boolean {
    return this.#announced;
  }

  /** Announces other metadata. */
  update(metadata: unknown): void {
    this.#metadata = metadata;
    this.#announced = false;
    this.#wake?.();
  }

  /** Takes the provider out. Idempotent. */
  async close(): Promise<void> {
    this.#over.abort(new ClosedError("the registration"));
    await this.#done.catch(() => undefined);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #key(): string {
    return `${this.service}/${this.id}`;
  }

  async #run(): Promise<void> {
    const { signal } = this.#over;
    try {
      while (!signal.aborted) {
        try {
          await this.#session();
        } catch (error) {
          if (signal.aborted) break;
          if (!mayPass(error)) throw error;
        }
        this.#announced = false;
        await pause(this.#client.clock, RETRY_MS, signal);
      }
    } catch (error) {
      if (!signal.aborted) {
        this.#settle?.reject(error);
        throw error;
      }
    }
    this.#settle?.reject(signal.reason);
  }

  /** As long as one lease lasts. */
  async #session(): Promise<void> {
    const { ttlSeconds = TTL_SECONDS } = this.#options;
    const session = await openSession(this.#client, { ttlSeconds, signal: this.#over.signal });
    const stop = linked(session.lost, this.#over.signal);
    try {
      while (!stop.signal.aborted) {
        await this.#announce(session, await this.#isWell(stop.signal), stop.signal);
        await this.#untilNext(stop.signal);
      }
    } finally {
      stop.done();
      await session.close().catch((error: unknown) => {
        // The lease ends by itself.
        if (!EtcdError.is(error)) throw error;
      });
    }
  }

  async #announce(session: Session<Uint8Array, string>, well: boolean, signal: AbortSignal): Promise<void> {
    if (signal.aborted || well === this.#announced) return;
    // Either may be done twice.
    if (well) {
      const metadata = this.#metadata;
      const value = JSON.stringify({ Op: OP_ADD, Addr: this.#options.address, Metadata: metadata ?? null });
      await this.#client.put(this.#key, utf8Bytes(value), { lease: session.lease.id, retry: "always", signal });
      // Unless there was an update meanwhile.
      this.#announced = metadata === this.#metadata;
      this.#settle?.resolve();
    } else {
      await this.#client.delete(this.#key, { retry: "always", signal });
      this.#announced = false;
    }
  }

  async #isWell(signal: AbortSignal): Promise<boolean> {
    const { health, healthEveryMs = HEALTH_EVERY_MS } = this.#options;
    if (health === undefined) return true;
    const deadline = new Deadline(this.#client.clock, healthEveryMs, signal);
    try {
      return await unlessAborted(Promise.resolve(health(deadline.signal)), deadline.signal);
    } catch {
      return false; // Whatever it is that went wrong: it is not well.
    } finally {
      deadline.done();
    }
  }

  /** Until the next question is due, or something is to be announced. */
  async #untilNext(signal: AbortSignal): Promise<void> {
    const everyMs = this.#options.healthEveryMs ?? HEALTH_EVERY_MS;
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    const { clock } = this.#client;
    const timer = this.#options.health === undefined ? undefined : clock.timer(everyMs, () => this.#wake?.());
    try {
      await unlessAborted(woken, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      timer?.cancel();
      this.#wake = undefined;
    }
  }
}

function mayPass(error: unknown): boolean {
  if (!EtcdError.is(error)) return false;
  if (error.reason === "lease-lost" || error.reason === "lease-not-found") return true;
  return error.grpcCode === GrpcCode.Unavailable || error.grpcCode === GrpcCode.DeadlineExceeded;
}

/** The providers of one service, kept up to date. */
export class ServiceView {
  /** Resolves when the providers have been read. */
  readonly ready: Promise<void>;
  readonly #view: View<Uint8Array, string>;
  readonly #prefix: string;
  #providers: readonly Provider[] | undefined;
  #turn = 0;

  /** Use `registry.discover()`. */
  constructor(view: View<Uint8Array, string>, prefix: string) {
    this.#view = view;
    this.#prefix = prefix;
    this.ready = view.ready;
    view.onChange(() => {
      this.#providers = undefined;
    });
  }

  /** In the order of their ids. Entries that are not of this form are left out. */
  list(): readonly Provider[] {
    this.#providers ??= this.#view.list().flatMap((kv) => providerIn(kv.key.slice(this.#prefix.length), kv.value));
    return this.#view.revision === 0 ? [] : this.#providers;
  }

  /** One after the other; undefined while there is none. */
  pick(): Provider | undefined {
    const providers = this.list();
    if (providers.length === 0) return undefined;
    this.#turn = (this.#turn + 1) % providers.length;
    return providers[this.#turn];
  }

  /** Waits until there is one. @throws `canceled`, `deadline-exceeded`, what ended the view */
  async waitForOne(options?: WaitOptions): Promise<Provider> {
    await this.ready;
    return this.#view.until(() => this.pick(), options);
  }

  /** Calls `listener` after each change. Returns how to stop that. */
  onChange(listener: (providers: readonly Provider[]) => void): () => void {
    return this.#view.onChange(() => listener(this.list()));
  }

  close(): void {
    this.#view.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

function providerIn(id: string, value: Uint8Array): Provider[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(utf8Text(value));
  } catch {
    return []; // Somebody else's key.
  }
  if (typeof parsed !== "object" || parsed === null) return [];
  const { Addr: address, Metadata: metadata, Op: operation } = parsed as Readonly<Record<string, unknown>>;
  if (typeof address !== "string" || (operation !== undefined && operation !== OP_ADD)) return [];
  return [{ id, address, metadata: metadata ?? undefined }];
}
