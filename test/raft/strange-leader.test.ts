import { expect, test } from "vitest";
import { setVerify } from "../../src/base/assert.ts";
import type { RaftMutant } from "../../src/raft/index.ts";
import { Violation } from "./cluster.ts";
import { runStrangeLeader } from "./strange-leader.ts";

setVerify(true);

const SEEDS = 400;

test("a follower under any legal leader acknowledges and commits what is the leader's (I9, J4, BM12)", () => {
  let answers = 0;
  for (let seed = 1; seed <= SEEDS; seed++) answers += runStrangeLeader({ seed });
  expect(answers / SEEDS).toBeGreaterThan(10);
});

test.each<[RaftMutant, string]>([
  ["ack-full-log", "I9"],
  ["commit-beyond-covered", "J3"],
  ["snapshot-without-conf", "BM12"],
])("%s is noticed", (mutant, check) => {
  const noticed = new Set<string>();
  for (let seed = 1; seed <= 50; seed++) {
    try {
      runStrangeLeader({ seed, mutant });
    } catch (error) {
      noticed.add(error instanceof Violation ? error.check : String(error));
    }
  }
  expect([...noticed]).toContain(check);
});
