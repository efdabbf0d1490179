/** Makes gRPC requests of the JSON ones: the same message, sometimes altered byte by byte, with metadata and compression at random. */
import { type MethodDescriptor, parseJson, printJson } from "../../src/api/index.ts";
import type { Random } from "../../src/base/random.ts";
import type { Step } from "./generate.ts";
import { type GrpcRequest, METHODS } from "./grpc-end.ts";

export interface GrpcStep {
  readonly request: GrpcRequest;
  /** Undefined for paths that name no method. */
  readonly method: MethodDescriptor<object, object> | undefined;
  /** The JSON request that means the same; undefined if none does. */
  readonly json: { readonly path: string; readonly body: string } | undefined;
}

/** Messages of these may be altered: whatever comes out, both servers can do alike. Alarm and Grant are not among them: see the generator. */
const ALTERABLE = new Set([
  "Range",
  "Put",
  "DeleteRange",
  "Txn",
  "Compact",
  "LeaseTimeToLive",
  "LeaseRevoke",
  "MemberRemove",
  "Leader",
  "HashKV",
]);
/** Orders that have ties. */
const TIES = /"sort_target":"(VERSION|CREATE|VALUE)"/;

export function grpcStep(step: Step & { kind: "call" }, random: Random): GrpcStep {
  const method = METHODS.get(step.path);
  if (method === undefined) {
    const path = step.path.replace("/v3/kv/range/", "/etcdserverpb.KV/Range/").replace("/v3/kv/", "/etcdserverpb.KV/");
    return { request: dressed(path, new Uint8Array(0), random), method, json: undefined };
  }
  let message: Uint8Array;
  let body: string | undefined = step.body;
  try {
    message = method.request.encode(parseJson(method.request, step.body === "" ? "{}" : step.body));
  } catch {
    // What is no JSON becomes what is no protobuf, or hardly.
    message = Buffer.from(step.body);
    body = undefined;
  }
  if (ALTERABLE.has(method.name) && random.chance({ of: 1, outOf: 12 })) {
    const altered = alter(message, random);
    if (!TIES.test(jsonOf(method, altered) ?? "")) {
      message = altered;
      body = undefined;
    }
  }
  body ??= jsonOf(method, message);
  const streamed = method.name === "Range" && random.chance({ of: 1, outOf: 20 }) && jsonOf(RANGE_STREAM, message) !== undefined;
  const called = streamed ? RANGE_STREAM : method;
  return {
    request: dressed(called.path, message, random),
    method: called,
    json: body === undefined || streamed ? undefined : { path: step.path, body },
  };
}

const RANGE_STREAM = METHODS.get("/etcdserverpb.KV/RangeStream") as MethodDescriptor<object, object>;

function jsonOf(method: MethodDescriptor<object, object>, message: Uint8Array): string | undefined {
  try {
    return printJson(method.request, method.request.decode(message));
  } catch {
    return undefined;
  }
}

function alter(message: Uint8Array, random: Random): Uint8Array {
  const bytes = Buffer.from(message);
  const at = random.below(Math.max(1, bytes.byteLength));
  switch (random.below(7)) {
    case 0:
      return bytes.subarray(0, at);
    case 1:
      if (bytes.byteLength > 0) bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
      return bytes;
    case 2:
      // Fields that nobody knows: a number, bytes, a group.
      return Buffer.concat([
        bytes,
        [Buffer.from([0xf8, 0x7f, 1]), Buffer.from([0xfa, 0x7f, 2, 1, 2]), Buffer.from([0xfb, 0x7f, 0xfc, 0x7f])][
          random.below(3)
        ] as Buffer,
      ]);
    case 3:
      // The same once more: the last value counts, lists and messages grow together.
      return Buffer.concat([bytes, bytes]);
    case 4:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)]);
    case 5:
      return Buffer.concat([bytes, Buffer.from(Array.from({ length: 1 + random.below(4) }, () => random.below(256)))]);
    default:
      // A number longer than it need be, and one too long for any number.
      return Buffer.concat([
        bytes,
        random.chance({ of: 1, outOf: 2 })
          ? Buffer.from([0x80 | 0x78, 0x80, 0x01])
          : Buffer.from([0x18, ...Array<number>(10).fill(0xff), 1]),
      ]);
  }
}

function dressed(path: string, message: Uint8Array, random: Random): GrpcRequest {
  const fields: Record<string, string> = {};
  const gzip = random.chance({ of: 1, outOf: 16 }) && message.byteLength > 0;
  if (gzip) fields["grpc-encoding"] = "gzip";
  switch (random.below(12)) {
    case 0:
      fields.hasleader = "true";
      break;
    case 1:
      fields["client-api-version"] = ["3.7.1", "3.4.0", "x"][random.below(3)] as string;
      break;
    case 2:
      fields["grpc-timeout"] = ["20S", "1M", "99999999m", "1H"][random.below(4)] as string;
      break;
    case 3:
      fields["content-type"] = ["application/grpc+proto", "application/grpc;x=y", "application/grpc+"][random.below(3)] as string;
      break;
    case 4:
      fields["grpc-accept-encoding"] = "gzip,identity";
      break;
    default:
      break;
  }
  return { path, message, fields, gzip };
}

/** For the reports. */
export function shownRequest({ request, method }: GrpcStep): string {
  const { path, message, fields, gzip } = request;
  const text = method === undefined ? undefined : jsonOf(method, message);
  return `${path} ${JSON.stringify(fields)}${gzip ? " gzip" : ""} ${text ?? ""} 0x${Buffer.from(message).toString("hex")}`;
}

/** The create requests of a watch, from their JSON values. */
export function watchMessages(body: string, method: MethodDescriptor<object, object>): Uint8Array[] {
  return body
    .replaceAll("}}{", "}}\n{")
    .split("\n")
    .map((text) => method.request.encode(parseJson(method.request, text)));
}
