/** The face of the watch hub: one per member, fed by the applier, read by the stream skins. `hub.ts` implements it. */
import type { WatchCreateRequest, WatchResponse } from "../api/index.ts";
import type { Revision } from "../base/ids.ts";
import type { MvccEvent, MvccStoreFace } from "../mvcc/index.ts";

export type WatchSource = Pick<MvccStoreFace, "revision" | "compactRevision" | "history" | "rowAt" | "rowsAt">;

export interface WatchHubOptions {
  readonly source: WatchSource;
  /** Event bytes that may wait unread on one stream; beyond it its watchers fall back to catching up from the store (nothing is lost). */
  readonly streamBytesMax: number;
  /** Responses larger than this are split for watchers that asked for fragments. */
  readonly fragmentBytes: number;
  /** Distinct revisions per catch-up response: 1000. */
  readonly catchUpRevisionsMax: number;
  readonly watchersPerStreamMax: number;
  /** Resolves in a later turn of the event loop. */
  readonly yieldNow: () => Promise<void>;
  /** Called when `lagging` turns true, from within the hub: schedule `catchUp`, do not call it. */
  readonly onLagging?: () => void;
  readonly mutants?: ReadonlySet<string>;
}

export interface WatchHubFace {
  /** After the applier executed something: all events of one revision. Synchronous and cheap; encodes an event once however many watchers get it. */
  notify(revision: Revision, events: readonly MvccEvent[]): void;
  openStream(onReadable: () => void): WatchStreamFace;
  /** After a snapshot was installed: watchers go on from the new store exactly where they were (or are cancelled as compacted). */
  restore(source: WatchSource): void;
  /** Does a bounded piece of catching up; the driver calls it whenever `lagging` and pauses between calls. Returns when one round is done. */
  catchUp(): Promise<void>;
  /** True when some watcher has to be served from the store. */
  readonly lagging: boolean;
  /** Called by the owner's timer: progress responses for quiet, caught-up watchers that asked for them. One timer per stream is the caller's business: call with that stream. */
  readonly stats: {
    readonly streams: number;
    readonly watchers: number;
    readonly slowWatchers: number;
    readonly pendingEvents: number;
    readonly eventsTotal: number;
  };
  close(): void;
}

/**
 * Responses have a header with only `revision` (0 where api-semantics says so). The service puts another header with ids and term in its place
 * before they leave; headers, event lists and events are shared between responses and must not be changed.
 */
export interface WatchStreamFace {
  /** Answers (also refusals: watchId -1, created and canceled) come through `take`, before any event of that watcher. */
  create(request: WatchCreateRequest): void;
  /** Unknown ids are ignored. */
  cancel(watchId: bigint): void;
  /** A refusal decided above the hub (permission): queued like one of the hub's own. */
  refuse(reason: string): void;
  /** api-semantics 10.6: answered at once with watchId -1 or dropped. */
  requestProgress(): void;
  /** Periodic progress for watchers created with progressNotify that had no events since the last call. */
  notifyProgress(): void;
  /** True while so many answers to requests lie unread that the owner should not read further requests. */
  readonly congested: boolean;
  /** Ready responses, at least one if any, about `bytesMax` at most; [] when none: `onReadable` is called once when there is something again. */
  take(bytesMax: number): WatchResponse[];
  readonly watcherCount: number;
  close(): void;
}
