/** `holdfast/concurrency`: what programs build on a cluster to work together. The keys are those of etcd's own recipes in Go. */
export { Barrier } from "./barrier.ts";
export { Counter, Sequence, type SequenceOptions } from "./counter.ts";
export type { DoubleBarrier } from "./double-barrier.ts";
export {
  type Election,
  type Leader,
  type LeaderContext,
  type LeaderOptions,
  type Leadership,
  leaderOf,
  observeLeader,
  runWhileLeader,
} from "./election.ts";
export { BarrierHeldError, LockLostError, StmConflictError, TooManyClientsError } from "./errors.ts";
export { type HeldLock, type LockContext, type Mutex, withLock } from "./mutex.ts";
export { PriorityQueue, Queue, type QueueItem, type QueueOptions } from "./queue.ts";
export { type Provider, type RegisterOptions, type Registration, ServiceRegistry, type ServiceView } from "./registry.ts";
export type { RwMutex } from "./rw-mutex.ts";
export { openSession, type Session, type SessionOptions, type WaitOptions } from "./session.ts";
export { type Isolation, type StmOptions, type StmResult, stm, type Transaction } from "./stm.ts";
