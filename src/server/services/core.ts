/** What the services need of the member they serve. One object, made by the assembly; services never see the member itself. */
import type * as api from "../../api/index.ts";
import type { Clock } from "../../base/clock.ts";
import type { ClusterId, LogIndex, MemberId, Revision, Term } from "../../base/ids.ts";
import type { Logger } from "../../base/logger.ts";
import type { RaftStatus } from "../../raft/index.ts";
import type { WatchHub } from "../../watch/index.ts";
import type { State } from "../apply/state.ts";
import type { CompactionRunner } from "../compactor.ts";
import type { ServerConfig } from "../config.ts";
import type { LeaseKeeper } from "../lease-keeper.ts";
import type { MemberChange, MemberRecord } from "../membership.ts";
import type { PeerRequestKind } from "../peer/index.ts";
import type { RaftRequest } from "../raft-request.ts";
import type { RequestIdGenerator } from "../request-id.ts";
import type { Access } from "./access.ts";
import type { CallContext } from "./services.contract.ts";

export interface ServiceCore {
  readonly config: ServerConfig;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly clusterId: ClusterId;
  readonly memberId: MemberId;
  readonly ids: RequestIdGenerator;
  readonly hub: WatchHub;
  readonly leases: LeaseKeeper;
  readonly compaction: CompactionRunner;
  readonly requestTimeoutMs: number;
  readonly access: Access;
  /** The current one: a snapshot from the leader replaces it. */
  readonly state: State;
  readonly term: Term;
  /** NO_MEMBER when none is known. */
  readonly leader: MemberId;
  readonly isLeader: boolean;
  readonly isLearner: boolean;
  readonly commitIndex: LogIndex;
  raftStatus(): RaftStatus;
  /**
   * Refuses what this member must not serve now: stopped, being healed (unless `healingMay`), learner (unless `learnerMay`), no leader for a call that requires
   * one.
   */
  admit(context: CallContext, options?: { learnerMay?: boolean; healingMay?: boolean }): void;
  /** Why this member serves nobody although it runs; undefined when it serves. */
  readonly outage: string | undefined;
  /** Undefined when local state may be read at once, else resolves when it may. */
  linearizable(signal: AbortSignal | undefined): Promise<void> | undefined;
  /** Replicates the request in the caller's name. Rejects with invalid-auth-token before it is proposed. */
  propose<Result>(request: RaftRequest, context: CallContext): Promise<Result>;
  proposeMemberChange(change: Omit<MemberChange, "requestId">, context: CallContext): Promise<readonly MemberRecord[]>;
  /** Asks another member; rejects with its EtcdError. */
  askPeer(to: MemberId, kind: PeerRequestKind, body: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
  /** Monotonic ms since when that peer has been connected; undefined when it is not. This member itself is always connected. */
  activeSince(member: MemberId): number | undefined;
  transferLeader(to: MemberId, context: CallContext): Promise<void>;
  /** Ends with the call's signal, the request timeout, or the member. */
  deadline(context: CallContext): { signal: AbortSignal; done(): void };
  /** Resolves when the applied index has reached the commit index of now; rejects after a second. */
  caughtUp(signal: AbortSignal | undefined): Promise<void>;
  header(revision: Revision): api.ResponseHeader;
  raiseNoSpace(): void;
  /** Resolves in a later turn of the event loop. */
  yieldNow(): Promise<void>;
  /** For metrics. */
  onRead(kind: "Range" | "ReadonlyTxn", ok: boolean, milliseconds: number): void;
}
