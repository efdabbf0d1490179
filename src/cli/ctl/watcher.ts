/** Watches of one client over one stream, which is opened again, and every watch with it from where it was, when it breaks. */
import * as api from "../../api/index.ts";
import { GrpcCode } from "../../base/errors.ts";
import type { Client } from "./client.ts";
import type { DuplexCall } from "./grpc-client.ts";
import { GrpcError } from "./grpc-error.ts";

export type WatchRequest = Omit<api.WatchCreateRequest, "watchId">;

/** Called for every response but the one that a watch was created. Nothing else of the watch happens before it has resolved. */
export type OnResponse = (response: api.WatchResponse) => Promise<void>;

interface Watch {
  readonly id: bigint;
  readonly request: WatchRequest;
  readonly onResponse: OnResponse;
  /** 0 until the first response has told a revision. */
  nextRevision: number;
}

/** Servers without a leader end the stream instead of keeping silent. */
const REQUIRE_LEADER = { hasleader: "true" };
const REOPEN_MS = 100;

export class WatchStream {
  readonly #client: Pick<Client, "duplex">;
  readonly #watches = new Map<bigint, Watch>();
  readonly #signal: AbortSignal;
  #call: DuplexCall<api.WatchRequest, api.WatchResponse> | undefined;
  #nextId = 1n;

  constructor(client: Pick<Client, "duplex">, signal: AbortSignal) {
    this.#client = client;
    this.#signal = signal;
  }

  /** Watches from now on (or from the request's revision). */
  add(request: WatchRequest, onResponse: OnResponse): void {
    const watch: Watch = { id: this.#nextId, request, onResponse, nextRevision: request.startRevision };
    this.#nextId += 1n;
    this.#watches.set(watch.id, watch);
    this.#create(watch);
  }

  /** Asks for a sign of how far the stream is. */
  progress(): void {
    if (this.#watches.size > 0) this.#call?.send(api.WatchRequest.create({ progressRequest: api.WatchProgressRequest.create() }));
  }

  /**
   * Hands responses out until the signal ends it, or until `onResponse` throws. Goes on over broken connections.
   * @throws GrpcError for what going on does not help against
   */
  async run(): Promise<void> {
    while (!this.#signal.aborted) {
      try {
        this.#call = await this.#client.duplex(api.WatchService.watch, { signal: this.#signal, headers: REQUIRE_LEADER });
        for (const watch of this.#watches.values()) this.#create(watch);
        for await (const response of this.#call) await this.#take(response);
      } catch (error) {
        if (this.#signal.aborted) return;
        if (!(error instanceof GrpcError) || error.code !== GrpcCode.Unavailable) throw error;
        await new Promise((resolve) => setTimeout(resolve, REOPEN_MS));
      } finally {
        this.#call?.cancel();
        this.#call = undefined;
      }
    }
  }

  #create(watch: Watch): void {
    const createRequest = { ...watch.request, startRevision: watch.nextRevision, watchId: watch.id };
    this.#call?.send(api.WatchRequest.create({ createRequest: api.WatchCreateRequest.create(createRequest) }));
  }

  async #take(response: api.WatchResponse): Promise<void> {
    // Events may be older than the server's revision, and more of them may follow.
    const revision = response.events.at(-1)?.kv?.modRevision ?? response.header?.revision ?? 0;
    // An answer to a progress request is of no single watch.
    const watches = response.watchId < 0n ? [...this.#watches.values()] : [this.#watches.get(response.watchId)];
    for (const watch of watches) {
      if (watch === undefined) continue;
      const isNew = response.created && watch.nextRevision === 0;
      if (!response.created || isNew) watch.nextRevision = Math.max(watch.nextRevision, revision + 1);
      if (response.canceled) this.#watches.delete(watch.id);
      if (response.created && !response.canceled) continue;
      await watch.onResponse(response);
    }
  }
}

export function isProgressNotify(response: api.WatchResponse): boolean {
  return (
    response.events.length === 0 &&
    !response.canceled &&
    !response.created &&
    response.compactRevision === 0 &&
    (response.header?.revision ?? 0) !== 0
  );
}
