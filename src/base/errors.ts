/** gRPC status codes, by name; the numbers are the wire's. */
export const GrpcCode = {
  OK: 0,
  Canceled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;
export type GrpcCode = (typeof GrpcCode)[keyof typeof GrpcCode];

const MARK = Symbol.for("holdfast.EtcdError");

/**
 * Base of every expected error. `reason` is what programs branch on, `message` is the exact text that goes over the wire,
 * `grpcCode` the code beside it. Recognise with {@link EtcdError.is}, not `instanceof`: a program may hold two copies of the package.
 */
export class EtcdError extends Error {
  readonly grpcCode: GrpcCode;
  readonly reason: string;

  constructor(reason: string, grpcCode: GrpcCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "EtcdError";
    this.reason = reason;
    this.grpcCode = grpcCode;
    Object.defineProperty(this, MARK, { value: true });
  }

  static is(value: unknown): value is EtcdError {
    return typeof value === "object" && value !== null && (value as Record<symbol, unknown>)[MARK] === true;
  }
}
