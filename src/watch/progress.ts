/** Progress: how a client learns up to which revision it has everything (api-semantics 10.6). */
import type { ResponseHeader, WatchResponse } from "../api/index.ts";
import type { Revision } from "../base/ids.ts";
import { type Watcher, WatchOption } from "./watcher.ts";

/** Stands for all watchers of a stream in answers to progress requests, and for none in refusals. */
export const NO_WATCH_ID = -1n;

/**
 * True when all events of the watcher up to `notified` are queued or read, and `notified` means something to it: a bookmark below its
 * start would make the client resume too early.
 */
export function isCaughtUp(watcher: Watcher, notified: Revision): boolean {
  return watcher.state === "synced" && watcher.startRevision <= notified;
}

/** Whether a periodic progress is due; starts the next period. */
export function periodEnds(watcher: Watcher, notified: Revision): boolean {
  if (!watcher.has(WatchOption.progressNotify)) return false;
  const { quiet } = watcher;
  watcher.quiet = true;
  return quiet && isCaughtUp(watcher, notified);
}

/** The header of a response, as far as the hub knows it. */
export function headerOf(revision: Revision): ResponseHeader {
  return { clusterId: 0n, memberId: 0n, revision, raftTerm: 0 };
}

/** A response with that header and nothing else: also what a progress looks like. */
export function response(watchId: bigint, header: ResponseHeader): WatchResponse {
  return {
    header,
    watchId,
    created: false,
    canceled: false,
    compactRevision: 0,
    cancelReason: "",
    fragment: false,
    events: [],
  };
}
