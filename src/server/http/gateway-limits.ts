/** How large messages may be on the gateway. */

/** What a gRPC message may be longer than the largest request that is replicated. */
const OVERHEAD_BYTES = 512 * 1024;
/** White space, names, escapes and base64 make JSON longer than the message in it; this much longer is accepted. */
const JSON_FACTOR = 4;
const JSON_SLACK_BYTES = 64 * 1024;

export interface GatewayLimits {
  /** Longest message, measured in its binary form, in bytes. */
  readonly messageBytes: number;
  /** Longest JSON text of one message in bytes; nothing longer is kept or read. */
  readonly jsonBytes: number;
}

export function gatewayLimits(maxRequestBytes: number): GatewayLimits {
  const messageBytes = maxRequestBytes + OVERHEAD_BYTES;
  return { messageBytes, jsonBytes: JSON_FACTOR * messageBytes + JSON_SLACK_BYTES };
}
