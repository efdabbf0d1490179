/** The raft core: `RawNode` and what goes in and out of it. */

export {
  type ConfProblem,
  type ConfResult,
  changeConf,
  confChangeProblem,
  EMPTY_CONF,
  isProblem,
  isWellFormedConf,
} from "./confchange/change.ts";
export { ConfChangeDecodeError, decodeConfChange, encodeConfChange } from "./confchange/codec.ts";
export type { RaftConfig } from "./config.ts";
export type {
  ConfChange,
  ConfChangeKind,
  ConfChangeStep,
  ConfState,
  Entry,
  EntryType,
  HardState,
  Snapshot,
  SnapshotMetadata,
} from "./entry.ts";
export { EMPTY_HARD_STATE, EMPTY_SNAPSHOT, MemoryStorage } from "./memory-storage.ts";
export type {
  AppendRequest,
  AppendResponse,
  Heartbeat,
  HeartbeatResponse,
  Message,
  Propose,
  ReadIndexRequest,
  ReadIndexResponse,
  SnapshotRequest,
  TimeoutNow,
  TransferLeader,
  VoteRequest,
  VoteResponse,
} from "./message.ts";
export { RAFT_MUTANTS, type RaftMutant } from "./mutants.ts";
export { READS_PENDING_MAX, type ResetOutcome } from "./raft.ts";
export { type AppendTicket, type AppendWork, RawNode, type RawNodeFace, type Ready } from "./raw-node.ts";
export type {
  PeerStatus,
  ProposeConfChangeOutcome,
  ProposeOutcome,
  RaftStatus,
  ReadState,
  Role,
  SoftState,
  StepOutcome,
} from "./status.ts";
export type { RaftStorage } from "./storage.ts";
export type { DropReason, IgnoreReason, TraceEvent, TraceSink } from "./trace.ts";
