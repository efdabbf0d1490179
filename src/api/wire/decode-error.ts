import { EtcdError, GrpcCode } from "../../base/errors.ts";

/** What is wrong with bytes that should be a message. */
export type ProtoDecodeReason = "invalid-wire-format" | "invalid-utf8" | "recursion-depth";

const TEXTS: Readonly<Record<ProtoDecodeReason, string>> = {
  "invalid-wire-format": "proto: cannot parse invalid wire-format data",
  "invalid-utf8": "string field contains invalid UTF-8",
  "recursion-depth": "proto: exceeded maximum recursion depth",
};

/**
 * Bytes which are not a message of the wanted type. The text is the one of the protobuf library that etcd stands on; the gRPC layer puts
 * `grpc: error unmarshalling request: ` before it and keeps the code, Internal.
 */
export class ProtoDecodeError extends EtcdError {
  declare readonly reason: ProtoDecodeReason;

  constructor(reason: ProtoDecodeReason) {
    super(reason, GrpcCode.Internal, TEXTS[reason]);
    this.name = "ProtoDecodeError";
  }
}
