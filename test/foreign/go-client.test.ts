/**
 * etcd's own Go client against a whole member: the program in go-client/ says PASS for each thing that programs do with etcd. The short form; `npm run foreign`
 * runs all of it, against a real etcd too.
 */
import { expect, it } from "vitest";
import { testMember } from "../grpc/member.ts";
import { goProgram, runGo } from "./go-program.ts";

const PORT = 22200;
const MINUTES = 60_000;

it(
  "etcd's Go client finds everything as it knows it",
  async () => {
    const found = goProgram({ download: false });
    if ("missing" in found) {
      console.log(`the Go client is not tried: ${found.missing} (npm run foreign would fetch them)`);
      return;
    }
    await using member = await testMember(PORT);
    const words = ["check", "-short", "-callers", "20", "-numbers", "5", "-endpoints", member.url.replace("http://", "")];
    const { code, lines } = await runGo(found.program, words).ended;
    expect(lines.filter((line) => line.startsWith("FAIL "))).toEqual([]);
    expect(lines.at(-1)).toMatch(/^\d+ passed, 0 failed$/);
    expect(lines.filter((line) => line.startsWith("PASS ")).length).toBeGreaterThan(30);
    expect(code).toBe(0);
  },
  10 * MINUTES,
);
