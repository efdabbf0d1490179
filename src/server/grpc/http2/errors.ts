/** Error codes of HTTP/2 (RFC 9113 section 7). */
export const H2Code = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  INTERNAL_ERROR: 2,
  FLOW_CONTROL_ERROR: 3,
  SETTINGS_TIMEOUT: 4,
  STREAM_CLOSED: 5,
  FRAME_SIZE_ERROR: 6,
  REFUSED_STREAM: 7,
  CANCEL: 8,
  COMPRESSION_ERROR: 9,
  ENHANCE_YOUR_CALM: 11,
} as const;
export type H2Code = (typeof H2Code)[keyof typeof H2Code];

/** The peer broke the protocol in a way that ends the whole connection. Never leaves the transport. */
export class ConnectionError extends Error {
  readonly code: H2Code;

  constructor(code: H2Code, message: string) {
    super(message);
    this.name = "ConnectionError";
    this.code = code;
  }
}
