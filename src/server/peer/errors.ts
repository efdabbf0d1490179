import { EtcdError, GrpcCode } from "../../base/errors.ts";
import { hexId, type MemberId } from "../../base/ids.ts";

/**
 * Bytes of a peer that are no frame, or a frame whose content is not what it must be. Nothing of such a frame takes effect, and the
 * connection it came from is closed.
 */
export class PeerFrameError extends EtcdError {
  constructor(problem: string) {
    super("peer-frame-malformed", GrpcCode.DataLoss, `malformed peer frame: ${problem}`);
    this.name = "PeerFrameError";
  }
}

/** The peer cannot be reached now, or the connection broke while the answer was awaited: whether the request took effect is unknown. */
export class PeerUnavailableError extends EtcdError {
  readonly peer: MemberId;

  constructor(peer: MemberId, what: string, options?: { cause?: unknown }) {
    super("peer-unavailable", GrpcCode.Unavailable, `peer ${hexId(peer)} is unavailable: ${what}`, options);
    this.name = "PeerUnavailableError";
    this.peer = peer;
  }
}

/** The other side answered the handshake with something else than 101: the status and the text say why. */
export class PeerRefusedError extends EtcdError {
  readonly status: number;
  /** Body of the answer, cut and trimmed. */
  readonly text: string;
  /** Cluster id the other side named; undefined when it named none. */
  readonly clusterId: string | undefined;

  constructor(status: number, text: string, clusterId: string | undefined) {
    super("peer-refused", GrpcCode.FailedPrecondition, `peer refused the connection: ${status} ${text}`);
    this.name = "PeerRefusedError";
    this.status = status;
    this.text = text;
    this.clusterId = clusterId;
  }
}

/** One snapshot is already under way to (or from) that peer. */
export class SnapshotInProgressError extends EtcdError {
  constructor(peer: MemberId) {
    super("snapshot-in-progress", GrpcCode.ResourceExhausted, `a snapshot for peer ${hexId(peer)} is already in progress`);
    this.name = "SnapshotInProgressError";
  }
}

/** The transport was closed before or during the call. */
export class PeerTransportClosedError extends EtcdError {
  constructor() {
    super("peer-transport-closed", GrpcCode.Unavailable, "the peer transport is closed");
    this.name = "PeerTransportClosedError";
  }
}

/** Fields of an error as they travel. Anything but an EtcdError becomes "internal", so that no inner detail leaves this process. */
export function errorFields(error: unknown): { reason: string; code: GrpcCode; message: string } {
  if (EtcdError.is(error) && error.grpcCode !== GrpcCode.OK) return { reason: error.reason, code: error.grpcCode, message: error.message };
  return { reason: "internal", code: GrpcCode.Internal, message: "internal error at the peer" };
}
