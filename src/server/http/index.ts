/** The HTTP side. It is loaded when a port is served: a member without one does not need it. */
import type { HttpApp, HttpAppOptions, MetricsAppOptions } from "./http-app.ts";

export type { HttpApp, HttpAppOptions, MetricsAppOptions } from "./http-app.ts";

/** See `http-app.ts`. */
export async function buildHttpApp(options: HttpAppOptions): Promise<HttpApp> {
  return (await import("./http-app.ts")).buildHttpApp(options);
}

/** See `http-app.ts`. */
export async function buildMetricsApp(options: MetricsAppOptions): Promise<HttpApp> {
  return (await import("./http-app.ts")).buildMetricsApp(options);
}
