/** A client of the JSON API which records what it asks, and never asks twice: an unknown outcome stays unknown. */
import { Agent, request } from "node:http";
import * as api from "../../src/api/index.ts";
import { type Exchange, now, type Operation, type Outcome } from "./history.ts";

/** Where a client's requests go at the moment. */
export interface Endpoint {
  readonly member: string;
  /** Which run of the member: counted at each start. */
  readonly run: number;
  readonly url: string;
}

export interface RawAnswer {
  readonly status: number;
  readonly text: string;
}

/** Connection errors after which it is certain that nothing was sent. */
const NOT_SENT = new Set(["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"]);

export class CallError extends Error {
  readonly outcome: Outcome;

  constructor(outcome: Outcome, message: string) {
    super(message);
    this.outcome = outcome;
  }
}

/** HTTP with kept connections. */
export class HttpCaller {
  readonly #agent: Agent;

  constructor(connectionsMax: number) {
    this.#agent = new Agent({ keepAlive: true, maxSockets: connectionsMax });
  }

  post(url: string, path: string, body: string, deadlineMs: number): Promise<RawAnswer> {
    return new Promise((resolve, reject) => {
      const call = request(`${url}${path}`, { method: "POST", agent: this.#agent }, (answer) => {
        const parts: Buffer[] = [];
        answer.on("data", (part: Buffer) => parts.push(part));
        answer.on("end", () => resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") }));
        answer.on("aborted", () => reject(new CallError("unknown", "answer cut off")));
        answer.on("error", (error) => reject(new CallError("unknown", error.message)));
      });
      const timer = setTimeout(() => call.destroy(new Error("no answer in time")), deadlineMs);
      call.on("error", (error: NodeJS.ErrnoException) =>
        reject(new CallError(NOT_SENT.has(error.code ?? "") ? "no" : "unknown", error.message)),
      );
      call.on("close", () => clearTimeout(timer));
      call.end(body);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** Refusals that are certain: they come before anything is proposed, or from applying the request without an effect. */
const CERTAIN_CODES = new Set([3, 5, 9, 11]);
const CERTAIN_TEXTS = ["too many requests", "raft proposal dropped", "corrupt cluster"];

/** What an error answer says about the request. Running out of space is no refusal for certain: the write may be applied all the same. */
export function outcomeOfError(text: string): { outcome: Outcome; why: string } {
  let error: { code?: number; message?: string };
  try {
    error = JSON.parse(text) as typeof error;
  } catch {
    return { outcome: "unknown", why: `no JSON: ${text.slice(0, 100)}` };
  }
  const why = error.message ?? text.slice(0, 100);
  const certain = CERTAIN_CODES.has(error.code ?? -1) || CERTAIN_TEXTS.some((words) => why.includes(words));
  return { outcome: certain ? "no" : "unknown", why };
}

const PATHS: Readonly<Record<Exchange["kind"], string>> = {
  put: "/v3/kv/put",
  delete: "/v3/kv/deleterange",
  txn: "/v3/kv/txn",
  range: "/v3/kv/range",
  compact: "/v3/kv/compaction",
};

export class RecordingClient {
  readonly #number: number;
  readonly #history: Operation[];
  readonly #deadlineMs: number;
  readonly #http = new HttpCaller(1);

  constructor(number: number, history: Operation[], deadlineMs: number) {
    this.#number = number;
    this.#history = history;
    this.#deadlineMs = deadlineMs;
  }

  /** Asks once and records it. */
  async call(endpoint: Endpoint, exchange: Exchange): Promise<Operation> {
    const operation: Operation = {
      client: this.#number,
      member: endpoint.member,
      run: endpoint.run,
      exchange,
      call: now(),
      ret: Number.POSITIVE_INFINITY,
      ended: Number.POSITIVE_INFINITY,
      outcome: "unknown",
      why: "",
    };
    this.#history.push(operation);
    try {
      const { status, text } = await this.#http.post(endpoint.url, PATHS[exchange.kind], printRequest(exchange), this.#deadlineMs);
      if (status === 200) {
        takeResponse(exchange, text);
        operation.ret = now();
        operation.outcome = "yes";
      } else Object.assign(operation, outcomeOfError(text));
    } catch (error) {
      operation.outcome = error instanceof CallError ? error.outcome : "unknown";
      operation.why = error instanceof Error ? error.message : String(error);
    }
    operation.ended = now();
    if (operation.outcome === "no") operation.ret = operation.ended;
    return operation;
  }

  close(): void {
    this.#http.close();
  }
}

function printRequest(exchange: Exchange): string {
  switch (exchange.kind) {
    case "put":
      return api.PutRequest.printJson(exchange.request);
    case "delete":
      return api.DeleteRangeRequest.printJson(exchange.request);
    case "txn":
      return api.TxnRequest.printJson(exchange.request);
    case "range":
      return api.RangeRequest.printJson(exchange.request);
    case "compact":
      return api.CompactionRequest.printJson(exchange.request);
    default:
      return exchange satisfies never;
  }
}

function takeResponse(exchange: Exchange, text: string): void {
  switch (exchange.kind) {
    case "put":
      exchange.response = api.parseJson(api.PutResponse, text);
      return;
    case "delete":
      exchange.response = api.parseJson(api.DeleteRangeResponse, text);
      return;
    case "txn":
      exchange.response = api.parseJson(api.TxnResponse, text);
      return;
    case "range":
      exchange.response = api.parseJson(api.RangeResponse, text);
      return;
    case "compact":
      exchange.response = api.parseJson(api.CompactionResponse, text);
      return;
    default:
      exchange satisfies never;
  }
}
