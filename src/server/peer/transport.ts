/**
 * The network port between members. The real one (HTTP Upgrade to framed msgpackr on the peer port) and the simulator's implement it.
 * Sending never blocks: a slow or absent peer drops messages and is reported to raft as unreachable.
 */
import type { ClusterId, MemberId } from "../../base/ids.ts";
import type { Message, SnapshotRequest } from "../../raft/index.ts";
import type { FetchedCluster } from "./fetch-members.ts";

export interface PeerTransport {
  /** Begins to accept and to dial. Handlers are called from then on, never from inside a call to the transport. */
  start(handlers: PeerHandlers): Promise<void>;
  /** The members to talk to, without this one. Called again after every membership change: connections to vanished members end. */
  setPeers(peers: readonly PeerAddress[]): void;
  /**
   * Drops what it cannot queue (bounded per peer in messages and bytes). `message.to` picks the peer; unknown ones are dropped.
   * Snapshot messages go through `sendSnapshot` only.
   */
  send(messages: readonly Message[]): void;
  /**
   * Streams a state snapshot beside its raft message. Resolves when the receiver has stored and handed it to raft; rejects otherwise.
   * At most one per peer at a time. Resumes after a broken connection from what the receiver already has, while `chunks` can be re-read from an offset.
   * The caller closes `source`.
   */
  sendSnapshot(message: SnapshotRequest, source: SnapshotSource, signal: AbortSignal): Promise<void>;
  /** A small request to one member (forwarded lease calls, hash comparison, promote): see PeerHandlers.onRequest. */
  request(to: MemberId, kind: PeerRequestKind, body: Uint8Array, options: { signal: AbortSignal }): Promise<Uint8Array>;
  /** Monotonic ms since when the peer has been connected without a break; undefined when it is not. */
  activeSince(peer: MemberId): number | undefined;
  /**
   * The member list of a running cluster, as whoever is reachable tells it; undefined when nobody is. Callable before `start`. A transport without it stands on
   * HTTP, where anybody can ask.
   */
  fetchMembers?(): FetchedCluster | undefined;
  /** Ends everything; idempotent, also before and during `start`. */
  close(): Promise<void>;
}

export interface PeerAddress {
  readonly id: MemberId;
  readonly urls: readonly string[];
}

export type PeerRequestKind = "lease-renew" | "lease-time-to-live" | "member-promote" | "hash-kv" | "status" | "progress-reset";

export interface PeerHandlers {
  readonly clusterId: ClusterId;
  readonly memberId: MemberId;
  onMessage(message: Message): void;
  /** An incoming state snapshot. Consume `chunks`, verify, store; resolve when raft has been given the message. `have` of a partial one is asked first, to resume. */
  onSnapshot(message: SnapshotRequest, chunks: AsyncIterable<Uint8Array>, info: SnapshotInfo): Promise<void>;
  /** Bytes of that snapshot (by its digest id) already stored here; 0 for none. */
  snapshotBytesHeld(info: SnapshotInfo): Promise<number>;
  /** Rejections with an EtcdError arrive at the caller as the same EtcdError (reason, code, message). */
  onRequest(from: MemberId, kind: PeerRequestKind, body: Uint8Array, options: { signal: AbortSignal }): Promise<Uint8Array>;
  onUnreachable(peer: MemberId): void;
  /** True when that id was removed from the cluster: its connections are refused with that reason. */
  isRemoved(peer: MemberId): boolean;
  /** This member learns from a peer that it has been removed. Called at most once. */
  onRemoved(): void;
  /** For GET /members on the peer port (joiners ask), and /version. Sent as they are. */
  membersJson(): string;
  versionJson(): string;
}

export interface SnapshotInfo {
  /** Names the content, so that a resumed stream continues the same bytes. */
  readonly id: string;
  readonly sizeBytes: number;
}

export interface SnapshotSource {
  readonly info: SnapshotInfo;
  /** Bytes from `offset` on, in chunks whose memory is not used again. */
  read(offset: number): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}
