import type { MemberId } from "../../base/ids.ts";

/** What the transport tells the metrics. Called often: implementations must be cheap and must not throw. */
export interface PeerObserver {
  /** Bytes of frames written to a peer, with the raft messages in them. */
  sent?(to: MemberId, bytes: number, messages: number): void;
  received?(from: MemberId, bytes: number, messages: number): void;
  /** A message was dropped: no connection, full queue, too large. */
  sendFailed?(to: MemberId): void;
  /** Malformed, wrongly addressed or refused: `from` is undefined when not even the sender is known. */
  receiveFailed?(from: MemberId | undefined): void;
  roundTrip?(to: MemberId, ms: number): void;
  /** The connection on which this member sends to `peer` came up or went down. */
  active?(peer: MemberId, active: boolean): void;
  snapshotSend?(to: MemberId, event: SnapshotEvent): void;
  snapshotReceive?(from: MemberId, event: SnapshotEvent): void;
}

export type SnapshotEvent =
  | { readonly type: "started" }
  | { readonly type: "succeeded"; readonly ms: number; readonly bytes: number }
  | { readonly type: "failed"; readonly ms: number };
