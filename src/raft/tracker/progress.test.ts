import { expect, test } from "vitest";
import type { MemberId } from "../../base/ids.ts";
import { seededRandom } from "../../base/random.ts";
import { Inflights } from "./inflights.ts";
import { Progress } from "./progress.ts";

const make = (next: number): Progress => new Progress(2n as MemberId, next, false, new Inflights(3, 1000));

test("a probe goes back by the hint, but never to the match (BR18)", () => {
  const peer = make(10);
  expect(peer.acknowledged(4)).toBe(true);
  expect(peer.refused(9, 2)).toBe(true);
  expect(peer.next).toBe(5);
  peer.check();
});

test("a probe ignores the refusal of another position", () => {
  const peer = make(10);
  expect(peer.refused(5, 1)).toBe(false);
  expect(peer.next).toBe(10);
});

test("a refusal never moves next beyond the refused position", () => {
  const peer = make(10);
  expect(peer.refused(9, 50)).toBe(true);
  expect(peer.next).toBe(9);
});

test("replicate falls back to a probe right behind the match; a refusal at or below the match is old", () => {
  const peer = make(1);
  peer.acknowledged(3);
  peer.becomeReplicate();
  peer.sent(4, 10, 3);
  expect(peer.next).toBe(8);
  expect(peer.refused(3, 1)).toBe(false);
  expect(peer.refused(7, 1)).toBe(true);
  expect([peer.state, peer.next, peer.inflights.count]).toEqual(["probe", 4, 0]);
});

test("replicate pauses with a full window and resumes with the acknowledgement", () => {
  const peer = make(1);
  peer.becomeReplicate();
  peer.sent(1, 1, 0);
  peer.sent(1, 1, 0);
  expect(peer.isPaused()).toBe(false);
  peer.sent(1, 1, 0);
  expect(peer.isPaused()).toBe(true);
  peer.acknowledged(1);
  peer.inflights.freeTo(1);
  expect(peer.isPaused()).toBe(false);
});

test("a probe pauses after one append", () => {
  const peer = make(5);
  peer.sent(2, 1, 4);
  expect(peer.isPaused()).toBe(true);
  expect(peer.next).toBe(5);
});

test("a snapshot pauses until reported; probing goes on behind it, or behind the match when it failed", () => {
  const received = make(1);
  received.becomeSnapshot(20);
  expect([received.isPaused(), received.next]).toEqual([true, 21]);
  received.becomeProbe();
  expect(received.next).toBe(21);

  const failed = make(1);
  failed.becomeSnapshot(20);
  failed.pendingSnapshot = 0;
  failed.becomeProbe();
  expect(failed.next).toBe(1);
});

test("an empty append is worth sending when it tells a commit index that the follower can use", () => {
  const peer = make(1);
  peer.becomeReplicate();
  expect(peer.canTellCommit(5)).toBe(false);
  peer.sent(3, 1, 1);
  expect(peer.sentCommit).toBe(1);
  expect(peer.canTellCommit(1)).toBe(false);
  expect(peer.canTellCommit(2)).toBe(true);
  peer.sent(0, 0, 9);
  expect(peer.sentCommit).toBe(3);
  expect(peer.canTellCommit(9)).toBe(false);
});

test("match stays below next under random histories", () => {
  const random = seededRandom(3);
  for (let round = 0; round < 300; round++) {
    const peer = make(1 + random.below(20));
    let last = 30;
    for (let step = 0; step < 60; step++) {
      switch (random.below(7)) {
        case 0:
          if (peer.acknowledged(random.below(Math.min(last, peer.next + 2))) && peer.state === "replicate")
            peer.inflights.freeTo(peer.match);
          break;
        case 1:
          peer.refused(random.below(last), random.below(last));
          break;
        case 2:
          if (peer.state !== "snapshot") peer.becomeReplicate();
          break;
        case 3:
          if (peer.match + 1 < last) peer.becomeSnapshot(peer.match + 1 + random.below(last - peer.match - 1));
          break;
        case 4:
          peer.becomeProbe();
          break;
        default:
          if (!peer.isPaused()) peer.sent(random.below(3), random.below(300), random.below(last));
          last += random.below(3);
      }
      // A leader takes an acknowledged snapshot out of its state at once.
      if (peer.state === "snapshot" && peer.match >= peer.pendingSnapshot) peer.becomeReplicate();
      peer.check();
    }
  }
});
