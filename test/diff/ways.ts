/** The two ways to ask a server, JSON and gRPC, behind one face. */
import { WatchService } from "../../src/api/index.ts";
import type { Random } from "../../src/base/random.ts";
import { normalise } from "./compare.ts";
import type { Step } from "./generate.ts";
import { asJson, frameFacts, GrpcEnd } from "./grpc-end.ts";
import { type GrpcStep, grpcStep, shownRequest, watchMessages } from "./grpc-request.ts";
import type { RawAnswer, ServerUnderTest } from "./pair.ts";

/** One request in all its forms. */
export interface Request {
  /** For people. */
  readonly shown: string;
  /** Undefined if JSON cannot say it. */
  readonly json: { readonly path: string; readonly body: string } | undefined;
  /** Undefined if it goes out over JSON alone. */
  readonly grpc: GrpcStep | undefined;
}

export interface Asked {
  readonly answer: RawAnswer;
  /** Equal for equal answers over the same way. */
  readonly comparable: string;
  /** Equal for equal answers, whichever way they came. */
  readonly plain: string;
}

export interface WatchOver {
  /** As the JSON API gives them. */
  readonly lines: readonly string[];
  close(): void;
}

export interface Way {
  ask(request: Request): Promise<Asked>;
  watch(body: string): Promise<WatchOver>;
  /** Gives up its connections. */
  hangUp(): void;
}

export function requestOver(over: string, step: Step & { kind: "call" }, random: Random): Request {
  if (over === "json") return { shown: `${step.path} ${step.body}`, json: step, grpc: undefined };
  const grpc = grpcStep(step, random);
  return { shown: shownRequest(grpc), json: grpc.json, grpc };
}

export function jsonWay(server: ServerUnderTest): Way {
  return {
    async ask({ json }) {
      if (json === undefined) return { answer: { status: 0, contentType: "", body: "" }, comparable: "", plain: "" };
      const answer = await server.send(json.path, json.body);
      const comparable = normalise(json.path, answer);
      return { answer, comparable, plain: comparable };
    },
    watch: async (body) => server.watch(body),
    hangUp: () => undefined,
  };
}

export function grpcWay(server: ServerUnderTest): Way {
  const end = new GrpcEnd(server.label, server.port);
  return {
    async ask({ grpc, json }) {
      if (grpc === undefined) throw new Error("not made for gRPC");
      const answer = await end.call(grpc.request);
      const plainAnswer = asJson(answer, grpc.method);
      const plain = normalise(json?.path ?? grpc.method?.httpPaths[0] ?? "", plainAnswer);
      return { answer: plainAnswer, comparable: `${frameFacts(answer, grpc.method)}\n${plain}`, plain };
    },
    watch: (body) => end.watch(watchMessages(body, WatchService.watch as Parameters<typeof watchMessages>[1])),
    hangUp: () => end.close(),
  };
}
