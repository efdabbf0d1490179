/**
 * The same script by etcd's tool and by ours. What etcdctl 3.7.1 said to etcd 3.7.1 is kept in test/golden/ctl (recorded by UPDATE=1 with
 * HOLDFAST_ORACLE_ETCD and HOLDFAST_ORACLE_ETCDCTL naming the programs); everywhere, our tool must say the same to our server. With the programs at hand,
 * their answers are checked again, and ours to their server.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { silentLogger } from "../../src/base/logger.ts";
import { startEtcd } from "../../src/embed/start-etcd.ts";
import { freePorts } from "../support/free-ports.ts";
import { ORACLE_ETCD, ORACLE_MISSING, OracleEtcd } from "../support/oracle-etcd.ts";
import { type Answer, answersOf, ourTool, programTool, type ToolRun } from "./answers.ts";

const ORACLE_CTL = process.env.HOLDFAST_ORACLE_ETCDCTL;
const CTL_MISSING = "HOLDFAST_ORACLE_ETCDCTL does not name an etcdctl binary";
const GOLDEN = new URL("../golden/ctl/answers.jsonl", import.meta.url);
/** What Debian's package etcd-client, of a version of its own, says to etcd 3.7.1. */
const DEBIAN_GOLDEN = new URL("../golden/ctl/debian-answers.jsonl", import.meta.url);
const DEBIAN_VERSION = "3.4.23";
const DEBIAN_MISSING = `the system has no etcdctl ${DEBIAN_VERSION}`;
const DEADLINE_MS = 300_000;

function recorded(golden = GOLDEN): Answer[] {
  const lines = readFileSync(golden, "utf8").trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as Answer);
}

function record(golden: URL, answers: readonly Answer[]): void {
  if (process.env.UPDATE === "1") writeFileSync(golden, answers.map((answer) => `${JSON.stringify(answer)}\n`).join(""));
}

function hasDebianTool(): boolean {
  const { status, stdout } = spawnSync("etcdctl", ["version"], { encoding: "utf8" });
  return status === 0 && stdout.startsWith(`etcdctl version: ${DEBIAN_VERSION}\n`);
}

/** The answers of one tool to a fresh member of ours. */
async function answersOfOurServer(run: ToolRun): Promise<Answer[]> {
  const port = await freePorts(2);
  const url = `http://127.0.0.1:${port}`;
  const peer = `http://127.0.0.1:${port + 1}`;
  const server = await startEtcd({
    name: "oracle",
    inMemory: true,
    listenClientUrls: url,
    advertiseClientUrls: url,
    listenPeerUrls: peer,
    initialAdvertisePeerUrls: peer,
    initialCluster: `oracle=${peer}`,
    logger: silentLogger,
  });
  try {
    await server.ready;
    return await answersOf(run, port);
  } finally {
    await server.close();
  }
}

const theirs = programTool(ORACLE_CTL ?? "");

describe("the client tool", () => {
  it(
    "says to our server what etcd's tool says to etcd",
    async () => expect(await answersOfOurServer(ourTool)).toEqual(recorded()),
    DEADLINE_MS,
  );

  it(
    "says to etcd what etcd's tool says to it",
    async (context) => {
      if (ORACLE_ETCD === undefined) return context.skip(ORACLE_MISSING);
      const port = await freePorts(2);
      const etcd = await OracleEtcd.start(port);
      try {
        expect(await answersOf(ourTool, port)).toEqual(recorded());
      } finally {
        await etcd.stop();
      }
    },
    DEADLINE_MS,
  );

  it(
    "is compared with what etcd's tool really says",
    async (context) => {
      if (ORACLE_ETCD === undefined) return context.skip(ORACLE_MISSING);
      if (ORACLE_CTL === undefined) return context.skip(CTL_MISSING);
      const port = await freePorts(2);
      const etcd = await OracleEtcd.start(port);
      try {
        const answers = await answersOf(theirs, port);
        record(GOLDEN, answers);
        expect(answers).toEqual(recorded());
      } finally {
        await etcd.stop();
      }
    },
    DEADLINE_MS,
  );

  it(
    "is not the only one: Debian's says to our server what it says to etcd",
    async (context) => {
      if (!hasDebianTool()) return context.skip(DEBIAN_MISSING);
      if (ORACLE_ETCD !== undefined) {
        const port = await freePorts(2);
        const etcd = await OracleEtcd.start(port);
        try {
          const answers = await answersOf(programTool("etcdctl"), port);
          record(DEBIAN_GOLDEN, answers);
          expect(answers).toEqual(recorded(DEBIAN_GOLDEN));
        } finally {
          await etcd.stop();
        }
      }
      expect(await answersOfOurServer(programTool("etcdctl"))).toEqual(recorded(DEBIAN_GOLDEN));
    },
    DEADLINE_MS,
  );
});
