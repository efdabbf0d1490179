import { expect, test } from "vitest";
import { jsonName, propertyName, staleFiles } from "../../scripts/gen-api.ts";

test("the committed API code is what the proto files yield", () => {
  expect(staleFiles()).toEqual([]);
});

test("names follow one rule", () => {
  const names = [
    "create_revision",
    "ID",
    "TTL",
    "grantedTTL",
    "peerURLs",
    "memberID",
    "member_ID",
    "remaining_TTL",
    "raftTerm",
    "dbSizeInUse",
  ];
  expect(names.map(propertyName)).toEqual([
    "createRevision",
    "id",
    "ttl",
    "grantedTtl",
    "peerUrls",
    "memberId",
    "memberId",
    "remainingTtl",
    "raftTerm",
    "dbSizeInUse",
  ]);
  expect(["create_revision", "ID", "member_ID", "peerURLs"].map(jsonName)).toEqual(["createRevision", "ID", "memberID", "peerURLs"]);
});
