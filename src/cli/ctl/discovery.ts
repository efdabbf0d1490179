/** Endpoints out of a domain's SRV records. */
import { resolveSrv } from "node:dns/promises";
import { ExitError } from "../cobra/command.ts";

const SERVICES = [
  { name: "etcd-client-ssl", scheme: "https" },
  { name: "etcd-client", scheme: "http" },
] as const;

/** @throws ExitError when neither kind of record is there */
export async function discoverEndpoints(domain: string, serviceName: string, options: { insecure: boolean }): Promise<string[]> {
  const suffix = serviceName === "" ? "" : `-${serviceName}`;
  const endpoints: string[] = [];
  const problems: string[] = [];
  for (const { name, scheme } of SERVICES) {
    const query = `_${name}${suffix}._tcp.${domain}`;
    try {
      for (const record of await resolveSrv(query)) endpoints.push(`${scheme}://${record.name}:${record.port}`);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      problems.push(`lookup ${query}: ${code === "ENOTFOUND" || code === "ENODATA" ? "no such host" : message}`);
    }
  }
  if (problems.length === SERVICES.length) throw new ExitError(1, `dns lookup errors: ${problems.join(" and ")}`);
  return options.insecure ? endpoints : endpoints.filter((endpoint) => endpoint.startsWith("https://"));
}
