/**
 * The same script by etcd's tool and by ours. What etcdctl 3.7.1 said to etcd 3.7.1 is kept in test/golden/ctl (recorded by UPDATE=1 with
 * HOLDFAST_ORACLE_ETCD and HOLDFAST_ORACLE_ETCDCTL naming the programs); everywhere, our tool must say the same to our server. With the programs at hand,
 * their answers are checked again, and ours to their server.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { silentLogger } from "../../src/base/logger.ts";
import { startEtcd } from "../../src/embed/start-etcd.ts";
import { ORACLE_ETCD, ORACLE_MISSING, OracleEtcd } from "../support/oracle-etcd.ts";
import { type Answer, answersOf, ourTool, programTool } from "./answers.ts";

const ORACLE_CTL = process.env.HOLDFAST_ORACLE_ETCDCTL;
const CTL_MISSING = "HOLDFAST_ORACLE_ETCDCTL does not name an etcdctl binary";
const GOLDEN = new URL("../golden/ctl/answers.jsonl", import.meta.url);
/** One for all three, so that members have the same ids. */
const PORT = 23_500;
const DEADLINE_MS = 300_000;

function recorded(): Answer[] {
  const lines = readFileSync(GOLDEN, "utf8").trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as Answer);
}

const theirs = programTool(ORACLE_CTL ?? "");

describe("the client tool", () => {
  it(
    "says to our server what etcd's tool says to etcd",
    async () => {
      const url = `http://127.0.0.1:${PORT}`;
      const peer = `http://127.0.0.1:${PORT + 1}`;
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
        expect(await answersOf(ourTool, PORT)).toEqual(recorded());
      } finally {
        await server.close();
      }
    },
    DEADLINE_MS,
  );

  it(
    "says to etcd what etcd's tool says to it",
    async (context) => {
      if (ORACLE_ETCD === undefined) return context.skip(ORACLE_MISSING);
      const etcd = await OracleEtcd.start(PORT);
      try {
        expect(await answersOf(ourTool, PORT)).toEqual(recorded());
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
      const etcd = await OracleEtcd.start(PORT);
      try {
        const answers = await answersOf(theirs, PORT);
        if (process.env.UPDATE === "1") writeFileSync(GOLDEN, answers.map((answer) => `${JSON.stringify(answer)}\n`).join(""));
        expect(answers).toEqual(recorded());
      } finally {
        await etcd.stop();
      }
    },
    DEADLINE_MS,
  );
});
