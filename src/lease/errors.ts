import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { LeaseId } from "../base/ids.ts";

/** No lease has that id (never granted, revoked, expired and revoked). */
export class LeaseNotFoundError extends EtcdError {
  readonly leaseId: LeaseId;

  constructor(leaseId: LeaseId) {
    super("lease-not-found", GrpcCode.NotFound, "etcdserver: requested lease not found");
    this.name = "LeaseNotFoundError";
    this.leaseId = leaseId;
  }
}

/** A grant with an id that is in use. */
export class LeaseExistsError extends EtcdError {
  readonly leaseId: LeaseId;

  constructor(leaseId: LeaseId) {
    super("lease-exists", GrpcCode.FailedPrecondition, "etcdserver: lease already exists");
    this.name = "LeaseExistsError";
    this.leaseId = leaseId;
  }
}

/** A grant for longer than {@link LEASE_TTL_SECONDS_MAX}. */
export class LeaseTtlTooLargeError extends EtcdError {
  readonly ttlSeconds: number;

  constructor(ttlSeconds: number) {
    super("lease-ttl-too-large", GrpcCode.OutOfRange, "etcdserver: too large lease TTL");
    this.name = "LeaseTtlTooLargeError";
    this.ttlSeconds = ttlSeconds;
  }
}

/** Longest TTL that can be granted, in seconds. In milliseconds it is still far below 2^53. */
export const LEASE_TTL_SECONDS_MAX = 9_000_000_000;
