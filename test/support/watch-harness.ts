/** A hub over a fake member, with streams that record what they send and get. */
import { type Event, WatchCreateRequest, type WatchResponse } from "../../src/api/index.ts";
import { keyStringOf, utf8Bytes, utf8Text } from "../../src/base/bytes.ts";
import type { Revision } from "../../src/base/ids.ts";
import type { WatchHubOptions } from "../../src/watch/hub.contract.ts";
import { WatchHub } from "../../src/watch/hub.ts";
import type { WatchStream } from "../../src/watch/stream.ts";
import { checkWatchStream, StreamRecord, type WatchViolation } from "./watch-checker.ts";
import { MemberSource, type Operation, WatchHistory } from "./watch-source.ts";

export interface WatchAsk {
  readonly key?: string;
  /** "\0" for everything from the key on. */
  readonly end?: string;
  readonly from?: Revision;
  readonly id?: bigint;
  readonly filters?: number[];
  readonly prevKv?: boolean;
  readonly fragment?: boolean;
  readonly progress?: boolean;
}

export function createRequest(ask: WatchAsk): WatchCreateRequest {
  return WatchCreateRequest.create({
    key: utf8Bytes(ask.key ?? ""),
    rangeEnd: utf8Bytes(ask.end ?? ""),
    startRevision: ask.from ?? 0,
    watchId: ask.id ?? 0n,
    filters: ask.filters ?? [],
    prevKv: ask.prevKv ?? false,
    fragment: ask.fragment ?? false,
    progressNotify: ask.progress ?? false,
  });
}

export class RecordedStream {
  readonly stream: WatchStream;
  readonly record = new StreamRecord();
  readonly taken: WatchResponse[] = [];
  /** Calls of onReadable. */
  readable = 0;

  constructor(hub: WatchHub) {
    this.stream = hub.openStream(() => {
      this.readable += 1;
    });
  }

  create(ask: WatchAsk): void {
    const request = createRequest(ask);
    this.record.create(request);
    this.stream.create(request);
  }

  cancel(id: bigint): void {
    this.record.cancel(id);
    this.stream.cancel(id);
  }

  /** Takes once. */
  take(bytesMax = 1 << 20): WatchResponse[] {
    const responses = this.stream.take(bytesMax);
    for (const response of responses) this.record.response(response);
    this.taken.push(...responses);
    return responses;
  }

  /** Takes everything that is there. */
  drain(): WatchResponse[] {
    const all: WatchResponse[] = [];
    for (let some = this.take(); some.length > 0; some = this.take()) all.push(...some);
    return all;
  }

  /** As drain, in short: `id@revision: events`. */
  read(): string[] {
    return this.drain().map(short);
  }
}

export function short(response: WatchResponse): string {
  const parts = [`${response.watchId}@${response.header?.revision}`];
  if (response.created) parts.push("created");
  if (response.canceled) parts.push("canceled");
  if (response.compactRevision !== 0) parts.push(`compacted=${response.compactRevision}`);
  if (response.cancelReason !== "") parts.push(`"${response.cancelReason}"`);
  if (response.fragment) parts.push("more");
  for (const event of response.events) parts.push(shortEvent(event));
  return parts.join(" ");
}

function shortEvent({ type, kv, prevKv }: Event): string {
  if (kv === undefined) return "?";
  const change = type === 1 ? `-${keyStringOf(kv.key)}` : `${keyStringOf(kv.key)}=${utf8Text(kv.value)}`;
  return prevKv === undefined ? change : `${change}(${utf8Text(prevKv.value)})`;
}

export class HubHarness {
  readonly history = new WatchHistory();
  member: MemberSource;
  readonly hub: WatchHub;
  readonly streams: RecordedStream[] = [];
  lagged = 0;

  constructor(options: Partial<WatchHubOptions> = {}) {
    this.member = new MemberSource(this.history);
    this.hub = new WatchHub({
      source: this.member,
      streamBytesMax: 1 << 20,
      fragmentBytes: 2 << 20,
      catchUpRevisionsMax: 1000,
      watchersPerStreamMax: 10_000,
      yieldNow: () => new Promise((resolve) => setImmediate(resolve)),
      onLagging: () => {
        this.lagged += 1;
      },
      ...options,
    });
  }

  open(): RecordedStream {
    const stream = new RecordedStream(this.hub);
    this.streams.push(stream);
    return stream;
  }

  /** Executes and notifies; nothing happens if nothing changes. */
  apply(...operations: Operation[]): void {
    const events = this.history.apply(...operations);
    if (events.length === 0) return;
    this.member.revision = this.history.revision;
    this.hub.notify(this.history.revision, events);
  }

  put(key: string, value?: string): void {
    this.apply(value === undefined ? { put: key } : { put: key, value });
  }

  delete(key: string): void {
    this.apply({ delete: key });
  }

  /** Catches up until nothing lags any more. */
  async settle(): Promise<void> {
    for (let rounds = 0; this.hub.lagging; rounds += 1) {
      if (rounds > 10_000) throw new Error("watchers do not catch up");
      await this.hub.catchUp();
    }
  }

  /** A snapshot of the history as it is now replaces the member's store. */
  installSnapshot(compactRevision: Revision = this.member.compactRevision): void {
    this.member = new MemberSource(this.history, this.history.revision, compactRevision);
    if (compactRevision > 0 && !this.history.model.compactions.includes(compactRevision))
      this.history.model.compactions.push(compactRevision);
    this.hub.restore(this.member);
  }

  /** Violations on all streams. */
  check(liveUpTo?: Revision): WatchViolation[] {
    return this.streams.flatMap(({ record }) => checkWatchStream(this.history.model, record, liveUpTo === undefined ? {} : { liveUpTo }));
  }
}
