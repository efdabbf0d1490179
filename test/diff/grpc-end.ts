/** One server's gRPC side: single calls and watches over a raw connection, answers complete with headers and trailers. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { gunzipSync, gzipSync } from "node:zlib";
import type { MethodDescriptor } from "../../src/api/index.ts";
import * as api from "../../src/api/index.ts";
import type { GrpcCode } from "../../src/base/errors.ts";
import { type Answer, type Fields, grpcFrame, H2Client } from "../grpc/h2-client.ts";
import type { RawAnswer } from "./pair.ts";

/** The methods of all services by their JSON path and by their gRPC path. */
export const METHODS: ReadonlyMap<string, MethodDescriptor<object, object>> = new Map(
  [
    api.KvService,
    api.WatchService,
    api.LeaseService,
    api.ClusterService,
    api.MaintenanceService,
    api.AuthService,
    api.LockService,
    api.ElectionService,
  ]
    .flatMap((service) => Object.values(service as Record<string, MethodDescriptor<object, object>>))
    .flatMap((method) => [...method.httpPaths, method.path].map((path) => [path, method] as const)),
);

/** A request as it goes out. */
export interface GrpcRequest {
  readonly path: string;
  readonly message: Uint8Array;
  readonly fields: Fields;
  /** The message is sent compressed. */
  readonly gzip: boolean;
}

const ANSWER_MS = 20_000;

export class GrpcEnd {
  readonly #label: string;
  readonly #port: number;
  #client: H2Client | undefined;

  constructor(label: string, port: number) {
    this.#label = label;
    this.#port = port;
  }

  async call(request: GrpcRequest): Promise<Answer> {
    const client = await this.#connected();
    const id = client.open(request.path, request.fields);
    client.data(id, request.gzip ? grpcFrame(gzipSync(request.message), 1) : grpcFrame(request.message), { endStream: true });
    const late = setTimeout(() => client.socket.destroy(), ANSWER_MS);
    try {
      const answer = await client.finished(id);
      if (!answer.over) throw new Error(`${this.#label} did not answer ${request.path} within ${ANSWER_MS} ms or hung up`);
      return answer;
    } finally {
      clearTimeout(late);
      client.answers.delete(id);
    }
  }

  async watch(requests: readonly Uint8Array[]): Promise<GrpcWatch> {
    return new GrpcWatch(await opened(this.#port), requests);
  }

  /** The next call makes a new connection. */
  close(): void {
    this.#client?.socket.destroy();
    this.#client = undefined;
  }

  async #connected(): Promise<H2Client> {
    if (this.#client === undefined || this.#client.closed) this.#client = await opened(this.#port);
    return this.#client;
  }
}

async function opened(port: number): Promise<H2Client> {
  const socket: Socket = connect({ port, host: "127.0.0.1", noDelay: true });
  await once(socket, "connect");
  const client = new H2Client(port, { socket });
  client.keepFrames = false;
  return client;
}

/** A watch: its answers as the JSON lines that the gateway would make of them. */
export class GrpcWatch {
  readonly #client: H2Client;
  readonly #answer: Answer;
  #lines: string[] = [];
  #read = 0;

  constructor(client: H2Client, requests: readonly Uint8Array[]) {
    this.#client = client;
    const id = client.open(api.WatchService.watch.path);
    this.#answer = client.answer(id);
    for (const request of requests) client.data(id, grpcFrame(request));
  }

  get lines(): readonly string[] {
    const answer = this.#answer;
    while (this.#read + 5 <= answer.bytes.byteLength) {
      const length = answer.bytes.readUInt32BE(this.#read + 1);
      if (this.#read + 5 + length > answer.bytes.byteLength) break;
      const message = answer.bytes.subarray(this.#read + 5, this.#read + 5 + length);
      this.#lines.push(api.printStreamResult(api.WatchResponse, api.WatchResponse.decode(message)));
      this.#read += 5 + length;
    }
    if (answer.over && this.#lines.at(-1)?.startsWith('{"error"') !== true)
      this.#lines.push(JSON.stringify({ error: { code: Number(answer.status ?? -1), message: textOf(answer.message) } }));
    return this.#lines;
  }

  close(): void {
    this.#client.socket.destroy();
  }
}

/** `grpc-message` without its percent signs. */
function textOf(message: string | undefined): string {
  return message === undefined ? "" : Buffer.from(decodePercents(message), "latin1").toString("utf8");
}

function decodePercents(text: string): string {
  return text.replace(/%([0-9a-fA-F]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/**
 * What is compared beside the messages: status and text, how the answer was cut into headers and trailers, which fields they have, and whether the messages
 * are encoded as expected.
 */
export function frameFacts(answer: Answer, method: MethodDescriptor<object, object> | undefined): string {
  const { headers = {}, trailers = {}, trailersOnly } = answer;
  const facts = {
    status: answer.status,
    // Which space follows "proto:" differs from build to build of the reference.
    message: answer.message?.replaceAll("%C2%A0", " ").replaceAll("  ", " "),
    // NO_ERROR behind a whole answer only says that the rest of the request is not wanted, if it has not come yet.
    reset: answer.ended && answer.resetCode === 0 ? undefined : answer.resetCode,
    trailersOnly,
    headers: shown(headers),
    trailers: shown(trailers),
    messages: method === undefined ? answer.messages.length : messagesOf(answer).map((bytes) => encoding(method, bytes)),
  };
  return JSON.stringify(facts);
}

/** Values too, but for those that name a request or time. */
function shown(fields: Fields): string[] {
  return Object.entries(fields)
    .map(([name, value]) => (name === "grpc-message" || name === "grpc-status-details-bin" ? name : `${name}: ${value}`))
    .sort();
}

function messagesOf(answer: Answer): Buffer[] {
  return answer.messages.map(({ flag, bytes }) => (flag === 1 ? gunzipSync(bytes) : bytes));
}

/** Bytes may differ by ids and positions, so that only this is asked: are they what our encoder makes of the same message? */
function encoding({ response }: MethodDescriptor<object, object>, bytes: Buffer): string {
  const again = Buffer.from(response.encode(response.decode(bytes)));
  return again.equals(bytes) ? "canonical" : `not canonical: ${bytes.toString("hex")} against ${again.toString("hex")}`;
}

/** The answer as the JSON gateway would give it, for whoever compares and learns from that. */
export function asJson(answer: Answer, method: MethodDescriptor<object, object> | undefined): RawAnswer {
  const code = Number(answer.status ?? -1);
  const stream = method?.serverStreaming === true;
  const lines = method === undefined ? [] : messagesOf(answer).map((bytes) => jsonOf(method, bytes));
  const ok = code === 0 || (stream && lines.length > 0);
  if (code !== 0) {
    const error = { grpcCode: code as GrpcCode, message: textOf(answer.message) };
    lines.push(stream ? api.printStreamError(error) : api.printError(error));
  }
  return { status: ok ? 200 : api.httpStatusOf(code as GrpcCode), contentType: "application/json", body: lines.join("\n") };
}

function jsonOf({ response, serverStreaming }: MethodDescriptor<object, object>, bytes: Uint8Array): string {
  const message = response.decode(bytes);
  return serverStreaming ? api.printStreamResult(response, message) : api.printJson(response, message);
}
