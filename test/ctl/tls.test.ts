/** The client tool over TLS: to a real etcd that wants certificates of its clients. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { freePorts } from "../support/free-ports.ts";
import { ORACLE_ETCD, ORACLE_MISSING } from "../support/oracle-etcd.ts";
import { etcdKind, ServerProcess, until } from "../support/server-process.ts";
import { type RunResult, runCtl } from "./support.ts";

const directory = mkdtempSync(join(tmpdir(), "holdfast-ctl-tls-"));
const file = (name: string): string => join(directory, name);

function openssl(...args: string[]): boolean {
  const { status, error } = spawnSync("openssl", args, { cwd: directory, encoding: "utf8" });
  return error === undefined && status === 0;
}

/** An authority, and a certificate for servers and clients alike. False where there is no openssl. */
function makeCertificates(): boolean {
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  writeFileSync(file("extensions"), "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n");
  return (
    openssl("req", "-x509", ...newKey, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=authority") &&
    openssl("req", ...newKey, "-keyout", "own.key", "-out", "own.csr", "-subj", "/CN=own") &&
    openssl(
      "x509",
      "-req",
      "-in",
      "own.csr",
      "-CA",
      "ca.crt",
      "-CAkey",
      "ca.key",
      "-CAcreateserial",
      ...["-days", "2", "-extfile", "extensions", "-out", "own.crt"],
    )
  );
}

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

describe("the client tool", () => {
  it("says before it dials anybody that certificates are none or do not fit", async (context) => {
    if (!makeCertificates()) return context.skip("there is no openssl");
    const refused = async (...words: string[]): Promise<[number, string]> => {
      const { status, stderr } = await runCtl(["--endpoints", "https://127.0.0.1:1", "get", "a", ...words]);
      return [status, stderr];
    };
    expect(await refused("--cert", file("own.crt"), "--key", file("ca.key"))).toEqual([
      128,
      "Error: tls: private key does not match public key\n",
    ]);
    expect(await refused("--cacert", file("ca.key"))).toEqual([128, expect.stringMatching(/^Error: x509: /)]);
    expect(await refused("--cacert", file("nothing"))).toEqual([128, `Error: open ${file("nothing")}: no such file or directory\n`]);
  });

  it("talks TLS, shows its certificate, and trusts nobody without being told", async (context) => {
    if (ORACLE_ETCD === undefined) return context.skip(ORACLE_MISSING);
    if (!makeCertificates()) return context.skip("there is no openssl");
    const port = await freePorts(2);
    const url = `https://127.0.0.1:${port}`;
    const peer = `http://127.0.0.1:${port + 1}`;
    const flags = [
      ...["--name", "tls", "--data-dir", file("data"), "--log-level", "error", "--listen-client-urls", url, "--advertise-client-urls", url],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", `tls=${peer}`],
      ...["--cert-file", file("own.crt"), "--key-file", file("own.key"), "--client-cert-auth", "--trusted-ca-file", file("ca.crt")],
    ];
    const etcd = new ServerProcess(etcdKind(ORACLE_ETCD), flags, file("etcd.log"));
    try {
      const own = ["--cert", file("own.crt"), "--key", file("own.key")];
      const trusting = ["--cacert", file("ca.crt"), ...own];
      const run = (...words: string[]): Promise<RunResult> => runCtl(["--command-timeout", "10s", ...words]);
      await until(
        "etcd serves",
        30_000,
        async () => (await run("--endpoints", url, "--command-timeout", "1s", ...trusting, "get", "x")).status === 0,
      );
      expect((await run("--endpoints", url, ...trusting, "put", "a", "b")).stdout.toString()).toBe("OK\n");
      // Certificates suffice as a wish for TLS; and names are checked against those in the certificate.
      for (const endpoint of [`127.0.0.1:${port}`, `https://localhost:${port}`]) {
        expect((await run("--endpoints", endpoint, ...trusting, "get", "a")).stdout.toString()).toBe("a\nb\n");
      }
      expect((await run("--endpoints", url, ...own, "--insecure-skip-tls-verify", "get", "a")).stdout.toString()).toBe("a\nb\n");
      for (const words of [
        ["--endpoints", url, ...own],
        ["--endpoints", url, "--cacert", file("ca.crt")],
        ["--endpoints", `127.0.0.1:${port}`],
      ]) {
        const { status, stdout, stderr } = await run(...words, "--command-timeout", "500ms", "get", "a");
        expect([status, stdout.toString(), stderr.split("\n").at(-2)]).toEqual([1, "", "Error: context deadline exceeded"]);
      }
    } finally {
      await etcd.stop();
    }
  }, 90_000);
});
