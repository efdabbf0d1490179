/** Packages that most programs never need are loaded when they are, so that starting costs no more than what is used. */
import { createRequire } from "node:module";

/** As CommonJS has it, from where this package is installed: `requirePackage("yaml") as typeof import("yaml")`. */
export const requirePackage: (name: string) => unknown = createRequire(import.meta.url);
