/** One call through the JSON gateway: what its headers say, and how it is told that nobody waits any more. */
import type { IncomingHttpHeaders } from "node:http";
import { invalidGrpcTimeout, rpcError } from "../../api/index.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import type { EtcdError } from "../../base/errors.ts";
import type { CallContext } from "../services/services.contract.ts";

/** Credentials and wishes of a call. */
export interface CallMetadata {
  readonly token: string | undefined;
  readonly requireLeader: boolean;
  readonly clientApiVersion: string | undefined;
}

/** Made once per call; the abort signal only if somebody asks for it. */
export class GatewayCall implements CallContext {
  readonly token: string | undefined;
  /** A client certificate never names a gateway user (catalogue BA9). */
  readonly commonName = undefined;
  readonly requireLeader: boolean;
  readonly clientApiVersion: string | undefined;
  #controller: AbortController | undefined;
  #ended: EtcdError | undefined;
  #deadline: Timer | undefined;

  constructor(metadata: CallMetadata) {
    this.token = metadata.token;
    this.requireLeader = metadata.requireLeader;
    this.clientApiVersion = metadata.clientApiVersion;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#ended !== undefined) this.#controller.abort(this.#ended);
    }
    return this.#controller.signal;
  }

  /** Why the call was given up; undefined while it was not. */
  get givenUp(): EtcdError | undefined {
    return this.#ended;
  }

  /** Nobody waits for the result any more. Further calls change nothing. */
  giveUp(reason: EtcdError): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.#deadline?.cancel();
    this.#controller?.abort(reason);
  }

  /** Gives up after `ms`, then calls `passed`. */
  startDeadline(clock: Clock, ms: number, passed: (reason: EtcdError) => void): void {
    const due = clock.monotonicMs() + ms;
    const check = (): void => {
      const left = due - clock.monotonicMs();
      // Clocks cut long timers; what is left is waited for again.
      if (left > 0) {
        this.#deadline = clock.timer(left, check);
        return;
      }
      const reason = rpcError("deadline-exceeded");
      this.giveUp(reason);
      passed(reason);
    };
    check();
  }

  /** The call is over: forgets its deadline. */
  finish(): void {
    this.#deadline?.cancel();
    this.#deadline = undefined;
  }
}

/** gRPC metadata is printable ASCII; headers with anything else are passed over, as the gateway does. */
const PRINTABLE = /^[\x20-\x7e]*$/;

/** The first of several headers of one name: Node joins them with commas, and none of the values looked at here may hold one. */
function first(value: string | string[] | undefined): string | undefined {
  const text = typeof value === "string" ? value : value?.[0];
  if (text === undefined) return undefined;
  const comma = text.indexOf(",");
  const only = comma < 0 ? text : text.slice(0, comma);
  return PRINTABLE.test(only) ? only : undefined;
}

function withoutScheme(token: string): string {
  return token.startsWith("Bearer ") ? token.slice(7) : token;
}

/** `Token` alone is not looked at: the gateway drops it. */
export function metadataOf(headers: IncomingHttpHeaders): CallMetadata {
  const token = first(headers["grpc-metadata-token"]) ?? first(headers.authorization) ?? first(headers["grpc-metadata-authorization"]);
  return {
    token: token === undefined ? undefined : withoutScheme(token),
    requireLeader: first(headers["grpc-metadata-hasleader"]) === "true",
    clientApiVersion: first(headers["grpc-metadata-client-api-version"]),
  };
}

/** Nanoseconds of each unit. */
const UNITS: Readonly<Record<string, bigint>> = {
  H: 3_600_000_000_000n,
  M: 60_000_000_000n,
  S: 1_000_000_000n,
  m: 1_000_000n,
  u: 1000n,
  n: 1n,
};

const INT64_MAX = 2n ** 63n - 1n;

/**
 * Milliseconds of a `Grpc-Timeout` header, undefined for no limit (also `0S`). Zero or less has passed already; so has what is too large for 64 bits
 * of nanoseconds, because it wraps around.
 * @throws TransportError for a malformed one.
 */
export function timeoutMsOf(headers: IncomingHttpHeaders): number | undefined {
  const value = headers["grpc-timeout"];
  if (value === undefined || value === "") return undefined;
  const text = typeof value === "string" ? value : (value[0] ?? "");
  const unit = UNITS[text.slice(-1)];
  const digits = /^[+-]?\d+$/.exec(text.slice(0, -1))?.[0];
  if (unit === undefined || digits === undefined) throw invalidGrpcTimeout(text);
  const count = BigInt(digits.startsWith("+") ? digits.slice(1) : digits);
  if (count > INT64_MAX || count < -INT64_MAX - 1n) throw invalidGrpcTimeout(text);
  const nanoseconds = BigInt.asIntN(64, count * unit);
  return nanoseconds === 0n ? undefined : Number(nanoseconds) / 1e6;
}
