export { buildHttpApp, buildMetricsApp, type HttpApp, type HttpAppOptions, type MetricsAppOptions } from "./http-app.ts";
