/**
 * The answers of a whole member to requests of every kind of right and wrong, beside those recorded from etcd 3.7.1. With HOLDFAST_ORACLE_ETCD naming an etcd
 * the record itself is checked; with UPDATE=1 it is then written anew.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ORACLE_ETCD, ORACLE_MISSING, OracleEtcd } from "../support/oracle-etcd.ts";
import { REQUESTS, type Send } from "./etcd-answers.ts";
import { H2Client } from "./h2-client.ts";
import { type TestMember, testMember } from "./member.ts";

const GOLDEN = fileURLToPath(new URL("../golden/grpc-answers.jsonl", import.meta.url));
const MEMBER_PORT = 24660;
const ORACLE_PORT = 24664;

/** What is compared. Lengths and ids differ from server to server, and a reset behind the status is a matter of timing. */
interface Outcome {
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly trailersOnly?: boolean;
  /** The flags of the messages. */
  readonly messages?: readonly number[];
  readonly trailers?: Readonly<Record<string, string>> | undefined;
  readonly reset?: number | undefined;
  readonly open?: boolean;
  /** By a status or, as happens with etcd, by a bare reset. */
  readonly timedOut?: boolean;
}

/** How long an answer may take that is to be seen not to end. */
const OPEN_MS = 400;

async function ask(port: number, send: Send): Promise<Outcome> {
  await using client = new H2Client(port);
  const id = send(client);
  const answer = client.answer(id);
  const until = performance.now() + OPEN_MS;
  while (!answer.over && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 5));
  const open = !answer.over;
  if (answer.status === "4" || (answer.resetCode === 8 && answer.status === undefined)) return { timedOut: true };
  return {
    ...(answer.headers === undefined ? {} : { headers: plain(answer.headers), trailersOnly: answer.trailersOnly }),
    ...(answer.messages.length === 0 ? {} : { messages: answer.messages.map(({ flag }) => flag) }),
    ...(answer.trailers === undefined ? {} : { trailers: plain(answer.trailers) }),
    ...(answer.resetCode === undefined || answer.status !== undefined ? {} : { reset: answer.resetCode }),
    ...(open ? { open } : {}),
  };
}

/** Go's protobuf library puts a no-break space into some of its texts, or not, by build, so that nobody parses them. */
function plain(fields: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, value.replace("%C2%A0", " ")]));
}

function recorded(): Map<string, Outcome> {
  const lines = readFileSync(GOLDEN, "utf8").trimEnd().split("\n");
  return new Map(lines.map((line) => JSON.parse(line) as [string, Outcome]));
}

const malformed: Outcome = { reset: 1 };

/** Where we answer otherwise, and why. */
const DIFFERENT: Readonly<Record<string, { readonly why: string; readonly ours: Outcome }>> = {
  "te: gzip": { why: "RFC 9113 8.2.2: malformed", ours: malformed },
  "no scheme": { why: "RFC 9113 8.3.1: malformed", ours: malformed },
  "no path": { why: "RFC 9113 8.3.1: malformed", ours: malformed },
  "no method": { why: "RFC 9113 8.3.1: malformed", ours: malformed },
  "a content length that is wrong": { why: "RFC 9113 8.1.1: malformed", ours: malformed },
  "binary metadata that is not base64": {
    why: "metadata that nobody reads is not looked at",
    ours: {
      headers: { ":status": "200", "content-type": "application/grpc" },
      trailersOnly: false,
      messages: [0],
      trailers: { "grpc-status": "0", "grpc-message": "" },
    },
  },
  "gzip, more behind it": {
    why: "words of another library",
    ours: {
      headers: {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "13",
        "grpc-message": "grpc: failed to read decompressed data: gzip: invalid header",
      },
      trailersOnly: true,
    },
  },
  "the end with the headers": {
    why: "etcd's library never notices that nothing will come",
    ours: {
      headers: { ":status": "200", "content-type": "application/grpc", "grpc-status": "2", "grpc-message": "EOF" },
      trailersOnly: true,
    },
  },
  "renewals, ended with the headers": {
    why: "the same",
    ours: { headers: { ":status": "200", "content-type": "application/grpc", "grpc-status": "0", "grpc-message": "" }, trailersOnly: true },
  },
  "range stream, ended with the headers": {
    why: "the same",
    ours: {
      headers: {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "13",
        "grpc-message": "cardinality violation: received no request message from non-client-streaming RPC",
      },
      trailersOnly: true,
    },
  },
};

describe("the answers to requests of every kind", () => {
  let member: TestMember;

  beforeAll(async () => {
    member = await testMember(MEMBER_PORT, { name: "default", initialCluster: `default=http://127.0.0.1:${MEMBER_PORT + 1}` });
  });

  afterAll(async () => {
    await member[Symbol.asyncDispose]();
  });

  it("are etcd's, but for the differences we want", async () => {
    const golden = recorded();
    const ours: [string, Outcome][] = [];
    for (const [name, send] of Object.entries(REQUESTS)) ours.push([name, await ask(MEMBER_PORT, send)]);
    const wanted = Object.keys(REQUESTS).map((name) => [name, DIFFERENT[name]?.ours ?? golden.get(name)]);
    expect(ours).toEqual(wanted);
    // A difference that is none any more does not stay in the list.
    for (const [name, { ours: outcome }] of Object.entries(DIFFERENT)) expect([name, golden.get(name)]).not.toEqual([name, outcome]);
  }, 60_000);

  it("of etcd are still those of the record", async () => {
    if (ORACLE_ETCD === undefined) {
      console.log(ORACLE_MISSING);
      return;
    }
    const oracle = await OracleEtcd.start(ORACLE_PORT);
    try {
      const theirs: [string, Outcome][] = [];
      for (const [name, send] of Object.entries(REQUESTS)) theirs.push([name, await ask(ORACLE_PORT, send)]);
      if (process.env.UPDATE === "1") writeFileSync(GOLDEN, `${theirs.map((line) => JSON.stringify(line)).join("\n")}\n`);
      expect(theirs).toEqual([...recorded()]);
    } finally {
      await oracle.stop();
    }
  }, 120_000);
});
