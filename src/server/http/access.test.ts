import type { IncomingMessage } from "node:http";
import { describe, expect, test } from "vitest";
import { AccessControl, withoutPort } from "./access.ts";

function request(options: { host?: string; tls?: { authorized: boolean; commonName?: string } }): IncomingMessage {
  const { host, tls } = options;
  const socket =
    tls === undefined
      ? {}
      : {
          encrypted: true,
          authorized: tls.authorized,
          getPeerCertificate: () => ({ subject: tls.commonName === undefined ? undefined : { CN: tls.commonName } }),
        };
  return { headers: host === undefined ? {} : { host }, socket } as unknown as IncomingMessage;
}

function access(options: Partial<ConstructorParameters<typeof AccessControl>[0]> = {}): AccessControl {
  return new AccessControl({ cors: ["*"], hostWhitelist: ["*"], clientCertAuth: false, authEnabled: () => false, ...options });
}

describe("hosts", () => {
  test.each([
    ["a.example", "a.example"],
    ["a.example:80", "a.example"],
    ["a.example:", "a.example"],
    [":80", ""],
    ["[::1]:80", "::1"],
    ["[::1]", "[::1]"],
    ["::1", "::1"],
    ["a:b:c", "a:b:c"],
    ["", ""],
  ])("%j without its port is %j", (host, name) => {
    expect(withoutPort(host)).toBe(name);
  });

  test("a list without a star is a list, an empty one allows all", () => {
    expect(access({ hostWhitelist: [] }).refusal(request({ host: "any" }), true)).toBeUndefined();
    expect(access({ hostWhitelist: ["a", "*"] }).refusal(request({ host: "any" }), true)).toBeUndefined();
    expect(access({ hostWhitelist: ["a"] }).refusal(request({ host: "any" }), true)?.status).toBe(421);
    expect(access({ hostWhitelist: ["a"] }).refusal(request({}), true)?.status).toBe(421);
    expect(access({ hostWhitelist: ["a"] }).refusal(request({ host: "any" }), true, "a:80")).toBeUndefined();
  });

  test("only plain text is checked", () => {
    expect(access({ hostWhitelist: ["a"] }).refusal(request({ host: "any", tls: { authorized: false } }), true)).toBeUndefined();
  });
});

describe("client certificates with a name, on the gateway", () => {
  const named = { authorized: true, commonName: "root" };
  const refused = {
    status: 400,
    text: "CommonName of client sending a request against gateway will be ignored and not used as expected",
  };
  const strict = { clientCertAuth: true, authEnabled: (): boolean => true };

  test("are refused while users are authenticated", () => {
    expect(access(strict).refusal(request({ tls: named }), true)).toEqual(refused);
  });

  test.each([
    ["another path", strict, named, false],
    ["users are not authenticated", { ...strict, authEnabled: (): boolean => false }, named, true],
    ["certificates are not demanded", { ...strict, clientCertAuth: false }, named, true],
    ["the certificate is not verified", strict, { ...named, authorized: false }, true],
    ["it has an empty name", strict, { authorized: true, commonName: "" }, true],
    ["it has no name", strict, { authorized: true }, true],
  ])("but not if: %s", (_what, options, tls, gatewayPath) => {
    expect(access(options).refusal(request({ tls }), gatewayPath)).toBeUndefined();
  });
});
