/** Everything between members: the port, the real transport over HTTP upgrades, and one that stays inside the process. */
export { PeerFrameError, PeerRefusedError, PeerTransportClosedError, PeerUnavailableError, SnapshotInProgressError } from "./errors.ts";
export {
  type FetchedCluster,
  type FetchedMember,
  type FetchOptions,
  fetchMembers,
  fetchVersion,
  NoMembersError,
} from "./fetch-members.ts";
export { createHttpPeerTransport, type HttpPeerTransport } from "./http-transport.ts";
export { MemoryNetwork, type MemoryNetworkOptions, type Parcel, type Route } from "./memory-transport.ts";
export type { PeerObserver, SnapshotEvent } from "./observer.ts";
export { SnapshotTooLargeError } from "./snapshot-accept.ts";
export type { PeerAddress, PeerHandlers, PeerRequestKind, PeerTransport, SnapshotInfo, SnapshotSource } from "./transport.ts";
export type { HttpPeerTransportOptions, PeerTransportLimits } from "./transport-context.ts";
